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
        'description': "the policy's options as YAML, e.g. '{checkpoint: /models/flow.safetensors}'",
        'read_only': True})
    proposal_tools: str = field(default='[]', metadata={
        'description': "proposal tools around the policy as YAML, e.g. '[{gaussian_expansion: {samples: 5}}]'",
        'read_only': True})
    num_candidates: int = field(default=50, metadata={  # the paper's real-robot setting
        'description': 'K, the number of action chunks proposed per step', 'range': (1, MAX_CANDIDATES)})
    temperature: float = field(default=1.0, metadata={
        'description': 'sampling temperature of the policy; no effect if it has none', 'range': (0.0, 10.0)})
    max_steps: int = field(default=120, metadata={  # Octo's and BridgeData's evaluation
        'description': 'most control steps of an episode whose goal sets no limit', 'range': (1, 100000)})
    image_transport: str = field(default='auto', metadata=images.TRANSPORT)
    wrist_topic: str = field(default='', metadata={
        'description': "the wrist camera's topic, for a policy that uses one; empty: none",
        'read_only': True})
    require_live_camera: bool = field(default=False, metadata={
        'description': 'end an episode whose camera repeats one image under new stamps while the gripper moves (set '
                       'by the robot launch: a simulated camera may not see the arm)', 'read_only': True})
    camera_timeout: float = field(default=2.0, metadata={
        'description': 'time without a frame newer than the last motion, after which the camera is lost [s]',
        'range': (0.05, 3600.0)})
    policy_timeout: float = field(default=60.0, metadata={
        'description': 'time for K candidates, after which the policy is lost [s]', 'range': (0.05, 3600.0)})
    critic_timeout: float = field(default=5.0, metadata={
        'description': 'time for a decision, after which the critic is lost [s]', 'range': (0.05, 3600.0)})
    controller_timeout: float = field(default=5.0, metadata={
        'description': 'time for one step, or for a fault of the arm to clear, after which the controller is lost [s]',
        'range': (0.05, 3600.0)})
    reset_timeout: float = field(default=30.0, metadata={
        'description': 'time for reset_scene, and for the move to the start pose, after which the episode ends [s]',
        'range': (0.05, 3600.0)})
    max_unmoved_steps: int = field(default=10, metadata={
        'description': 'consecutive steps without a motion after which the episode is aborted', 'range': (1, 1000)})

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
