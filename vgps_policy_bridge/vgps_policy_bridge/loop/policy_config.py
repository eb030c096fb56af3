"""Parameters of policy_node; one dataclass feeds the ROS parameters, the YAML and rqt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from vgps_msgs_py import images
from vgps_policy_bridge.loop.episode import Limits
from vgps_policy_bridge.policy import MAX_CANDIDATES


@dataclass(frozen=True)
class PolicyNodeConfig:
    """Parameters of policy_node. Raises ValueError for text that is not the YAML it should be."""

    policy: str = field(default='random-policy', metadata={
        'description': "name of an installed policy (entry-point group 'vgps.policies')", 'read_only': True})
    policy_options: str = field(default='{}', metadata={
        'description': "options of the policy as YAML, e.g. '{checkpoint: /models/flow.safetensors}'",
        'read_only': True})
    proposal_tools: str = field(default='[]', metadata={
        'description': "tools around the policy as YAML, e.g. '[{gaussian_expansion: {samples: 5}}]'",
        'read_only': True})
    num_candidates: int = field(default=50, metadata={  # the paper's real-robot setting
        'description': 'K, action chunks proposed per step', 'range': (1, MAX_CANDIDATES)})
    temperature: float = field(default=1.0, metadata={
        'description': 'sampling temperature of the policy; without effect where it has none', 'range': (0.0, 10.0)})
    max_steps: int = field(default=120, metadata={  # Octo's and BridgeData's evaluation
        'description': 'control steps of an episode whose goal names none', 'range': (1, 100000)})
    image_transport: str = field(default='auto', metadata=images.TRANSPORT)
    wrist_topic: str = field(default='', metadata={
        'description': "a second camera's topic, for a policy that looks at one on the wrist; empty: none",
        'read_only': True})
    camera_timeout: float = field(default=2.0, metadata={
        'description': '[s] without a frame newer than the last motion: camera lost', 'range': (0.05, 3600.0)})
    policy_timeout: float = field(default=60.0, metadata={
        'description': '[s] for K candidates: policy lost', 'range': (0.05, 3600.0)})
    critic_timeout: float = field(default=5.0, metadata={
        'description': '[s] for a decision: critic lost', 'range': (0.05, 3600.0)})
    controller_timeout: float = field(default=5.0, metadata={
        'description': '[s] for one step, or for a fault of the arm to clear: controller lost',
        'range': (0.05, 3600.0)})
    reset_timeout: float = field(default=30.0, metadata={
        'description': '[s] for reset_scene and for homing, each', 'range': (0.05, 3600.0)})
    max_unmoved_steps: int = field(default=10, metadata={
        'description': 'steps in a row that did not move the arm before the episode is aborted', 'range': (1, 1000)})

    def __post_init__(self):
        for name, kind in (('policy_options', dict), ('proposal_tools', list)):
            if not isinstance(_yaml(name, getattr(self, name)), kind):
                raise ValueError(f'{name} must be a YAML {"mapping" if kind is dict else "list"}, got '
                                 f'{getattr(self, name)!r}')

    def options(self) -> dict[str, Any]:
        """Return policy_options."""
        return _yaml('policy_options', self.policy_options)

    def tools(self) -> list:
        """Return proposal_tools."""
        return _yaml('proposal_tools', self.proposal_tools)

    def limits(self) -> Limits:
        """Return how long each part may stay silent."""
        return Limits(self.camera_timeout, self.policy_timeout, self.critic_timeout, self.controller_timeout,
                      self.reset_timeout, self.max_unmoved_steps)


def _yaml(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f'{name} is not YAML: {error}') from error
