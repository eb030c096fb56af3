"""Tools that compose over any policy: each is a policy around a policy.

    policy_node: proposal_tools: '[{gaussian_expansion: {samples: 5}}, merge_duplicates]'

applies them in that order, innermost first. Candidate 0 is always what the policy alone would have done: the critic
falls back to it by name. The paper's other control, `random-select`, is a choice and therefore the critic's.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, Policy, check_candidates, load_policy


class _Tool:
    """Passes everything on to the policy inside."""

    def __init__(self, policy: Policy):
        self._policy = policy

    def __getattr__(self, name: str):
        # `temperature` and `close` exist exactly when the policy inside has them.
        if name in ('temperature', 'close'):
            return getattr(self._policy, name)
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any):
        if name == 'temperature':
            self._policy.temperature = value
        else:
            super().__setattr__(name, value)

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode."""
        self._policy.reset(instruction, seed)


class GaussianExpansion(_Tool):
    """Draw few samples from a slow policy, fit a Gaussian to them, draw K from that (RoboMonkey's scheme).

    The Gaussian is diagonal, one per chunk position and dimension; the gripper is decided by majority vote at 0.5.
    Candidate 0 is the policy's own first sample.

    Args:
        samples: drawn from the policy, 2 .. 1000.
        scale: factor on the fitted standard deviation, > 0.
    """

    def __init__(self, policy: Policy, samples: int = 5, scale: float = 1.0):
        if not 2 <= samples <= 1000 or not scale > 0:
            raise PolicyError('gaussian_expansion: samples must be 2 .. 1000 and scale > 0')
        super().__init__(policy)
        self._samples, self._scale = samples, scale

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Return (k, H, 7); a request for no more than the samples goes straight to the policy."""
        if k <= self._samples:
            return self._policy.propose(observation, k)
        base = check_candidates(self._policy.propose(observation, self._samples), self._samples)
        start = time.perf_counter()
        weights = np.ones(len(base)) if base.counts is None else base.counts.astype(float)
        weights = (weights / weights.sum())[:, None, None]
        mean = (weights * base.actions).sum(0)
        deviation = np.sqrt((weights * (base.actions - mean) ** 2).sum(0)) * self._scale
        rng = np.random.default_rng(base.seed)
        actions = rng.normal(mean, deviation, (k, *mean.shape)).astype(np.float32)
        votes = (weights[..., 0] * (base.actions[..., GRIPPER] > 0.5)).sum(0)
        actions[..., GRIPPER] = votes > 0.5
        actions[0] = base.actions[0]
        stages = base.stages | {'expand': 1e3 * (time.perf_counter() - start)}
        return replace(base, actions=actions, log_probabilities=None, counts=None, stages=stages,
                       policy=f'{base.policy} + gaussian_expansion({self._samples})')


class MergeDuplicates(_Tool):
    """Keep one of equal chunks and count it: policies over discrete tokens repeat themselves at low temperature.

    Args:
        tolerance: [m, rad, openness] chunks whose entries fall into the same cells of this size are equal.
    """

    def __init__(self, policy: Policy, tolerance: float = 1e-6):
        if not tolerance > 0:
            raise PolicyError('merge_duplicates: tolerance must be > 0')
        super().__init__(policy)
        self._tolerance = tolerance

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Return up to k distinct chunks in order of first appearance, with counts."""
        return merge_duplicates(self._policy.propose(observation, k), self._tolerance)


def merge_duplicates(candidates: Candidates, tolerance: float = 1e-6) -> Candidates:
    """Return the distinct chunks in order of first appearance, with counts that add up to those before."""
    told = candidates.actions.reshape(len(candidates), -1)
    if (closing := candidates.closing) is not None:
        told = np.column_stack([told, closing])
    cells = np.round(told / tolerance)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    before = np.ones(len(candidates), np.uint32) if candidates.counts is None else candidates.counts
    counts = np.bincount(inverse.reshape(-1), weights=before).astype(np.uint32)
    order = np.argsort(first)
    rows = first[order]
    log_probabilities = candidates.log_probabilities
    return replace(candidates, actions=candidates.actions[rows], counts=counts[order],
                   log_probabilities=None if log_probabilities is None else log_probabilities[rows],
                   closing=None if closing is None else closing[rows])


class ChunkReduction(_Tool):
    """Reduce every chunk to one action: what a critic of single actions scores is then what stands for the chunk.

    Args:
        how: 'first' action, or the 'mean' over the chunk (average velocity; gripper by majority).
    """

    def __init__(self, policy: Policy, how: str = 'first'):
        if how not in ('first', 'mean'):
            raise PolicyError(f"chunk_reduction: how must be 'first' or 'mean', not {how!r}")
        super().__init__(policy)
        self._how = how

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Return (k, 1, 7)."""
        candidates = self._policy.propose(observation, k)
        if self._how == 'first':
            return replace(candidates, actions=candidates.actions[:, :1])
        actions = candidates.actions.mean(1, keepdims=True)
        actions[..., GRIPPER] = (candidates.actions[..., GRIPPER] > 0.5).mean(1, keepdims=True) > 0.5
        return replace(candidates, actions=actions)


class TemporalEnsemble(_Tool):
    """Average each candidate with what the chunks *selected* before predicted for now.

    The executed action equals the reference implementation's (selected chunk into a history of 4, mean of all
    predictions for this step). Deviation: the reference scores the raw first action and executes the average; here
    the average itself is the candidate, so that the critic scores exactly what will be executed.
    Must be the last tool: `committed` speaks of the rows that left this one.

    Args:
        window: chunks remembered, the present one included, 1 .. horizon; 4 in the paper.
        decay: weight exp(-decay * age in steps), >= 0; 0, a plain mean, in the paper.
    """

    def __init__(self, policy: Policy, window: int = 4, decay: float = 0.0):
        if window < 1 or decay < 0:
            raise PolicyError('temporal_ensemble: window must be >= 1 and decay >= 0')
        super().__init__(policy)
        self._decay = decay
        self._history: deque = deque(maxlen=window - 1)  # newest first
        self._proposed: np.ndarray | None = None

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode with an empty history."""
        self._history.clear()
        self._proposed = None
        self._policy.reset(instruction, seed)

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Return the policy's chunks with their first action replaced by the average."""
        candidates = self._policy.propose(observation, k)
        self._proposed = candidates.actions.copy()
        total, weight = candidates.actions[:, 0].copy(), 1.0
        for age, chunk in enumerate(self._history, start=1):
            if age < len(chunk):
                w = float(np.exp(-self._decay * age))
                total, weight = total + w * chunk[age], weight + w
        actions = candidates.actions.copy()
        actions[:, 0] = total / weight
        return replace(candidates, actions=actions)

    def committed(self, index: int) -> None:
        """Take note of the candidate that was sent to the robot; -1 is hold and empties the history."""
        if index < 0 or self._proposed is None or index >= len(self._proposed):
            # Older chunks predicted for a motion that did not happen.
            self._history.clear()
            return
        self._history.appendleft(self._proposed[index])


TOOLS = {'gaussian_expansion': GaussianExpansion, 'merge_duplicates': MergeDuplicates,
         'chunk_reduction': ChunkReduction, 'temporal_ensemble': TemporalEnsemble}


def compose(policy: Policy, tools: list) -> Policy:
    """Wrap a policy in tools, innermost first.

    Args:
        policy: the policy.
        tools: names, or {name: options}.

    Raises:
        PolicyError: unknown tool, wrong option, or temporal_ensemble not at the end.
    """
    if not isinstance(tools, list):
        raise PolicyError(f'proposal tools must be a list, got {tools!r}')
    for position, tool in enumerate(tools):
        name, options = (tool, {}) if isinstance(tool, str) else _single(tool)
        if name not in TOOLS:
            raise PolicyError(f'no proposal tool {name!r}; there are: {", ".join(TOOLS)}')
        if name == 'temporal_ensemble' and position != len(tools) - 1:
            raise PolicyError('temporal_ensemble must be the last proposal tool')
        try:
            policy = TOOLS[name](policy, **options)
        except TypeError as error:
            raise PolicyError(f'{name}: {error}; its options are {inspect.signature(TOOLS[name])}') from error
    return policy


def _single(tool: Any) -> tuple[str, dict]:
    if not isinstance(tool, dict) or len(tool) != 1 or not isinstance(next(iter(tool.values())), dict):
        raise PolicyError(f'a proposal tool is a name or {{name: {{option: value}}}}, got {tool!r}')
    return next(iter(tool.items()))


def build_policy(name: str, options: dict | None = None, tools: list | None = None) -> Policy:
    """Load a policy by entry-point name with its options and wrap it; raises PolicyError."""
    if not isinstance(options or {}, dict):
        raise PolicyError(f'policy options must be a mapping such as {{checkpoint: path}}, got {options!r}')
    return compose(load_policy(name, **(options or {})), tools or [])
