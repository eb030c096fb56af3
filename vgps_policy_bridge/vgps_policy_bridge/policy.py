"""The seam: what every generalist policy looks like to the rest of the system.

A policy is any object with `reset` and `propose` (see `Policy`). It is found by name through the entry-point group
`vgps.policies`, so a laboratory adds its own without touching this package:

    [project.entry-points.'vgps.policies']
    my-policy = 'my_package:MyPolicy'

    ros2 launch vgps_bringup robot.launch.py policy:=my-policy
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vgps_policy_bridge.errors import CandidatesError, ObservationError, PolicyError

ENTRY_POINT_GROUP = 'vgps.policies'
ACTION_DIMENSION = 7  # dx dy dz [m], droll dpitch dyaw [rad], gripper openness [0 closed .. 1 open]
GRIPPER = 6
FRACTAL = 'fractal20220817_data'  # the Google Robot's data set, by the name that every model's statistics bear
MAX_CANDIDATES = 1000
# No arm of this size makes a larger step in 0.2 s (BridgeData's own are below 0.05 m and 0.25 rad): other units.
LARGEST_STEP, LARGEST_TURN = 0.5, 3.2  # [m], [rad]


@dataclass(frozen=True)
class Observation:
    """What a policy may look at in one control step.

    Raises ObservationError when an array has the wrong shape or type.
    """

    image: np.ndarray  # (H, W, 3) uint8 RGB, the third-person camera
    stamp: float  # [s] of the image
    state: np.ndarray | None = None  # (7,) x y z [m], roll pitch yaw [rad] as BridgeData has them, openness 0..1
    wrist_image: np.ndarray | None = None  # (H, W, 3) uint8 RGB

    def __post_init__(self):
        for name, image in (('image', self.image), ('wrist_image', self.wrist_image)):
            if name == 'wrist_image' and image is None:
                continue
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 \
                    or 0 in image.shape:
                found = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
                raise ObservationError(f'{name} must be (H, W, 3) uint8 RGB, got {found}')
        if self.state is not None:
            state = np.asarray(self.state, dtype=np.float32)
            if state.shape != (7,) or not np.isfinite(state).all():
                raise ObservationError(f'state must be (7,) and finite: x y z roll pitch yaw openness, got {state}')
            object.__setattr__(self, 'state', state)

    def require_state(self, policy: str) -> np.ndarray:
        """Return state, or raise ObservationError that says who needs it and where it comes from."""
        if self.state is None:
            raise ObservationError(f'policy {policy!r} needs the robot state; none was given (the node takes it from '
                                   'the topic controller_state)')
        return self.state

    def require_wrist(self, policy: str) -> np.ndarray:
        """Return wrist_image, or raise ObservationError that says who needs it and where it comes from."""
        if self.wrist_image is None:
            raise ObservationError(f'policy {policy!r} needs a wrist camera; none was given (the node takes it from '
                                   'wrist_topic)')
        return self.wrist_image


@dataclass(frozen=True)
class Candidates:
    """K action chunks proposed for one observation, checked when built.

    Raises CandidatesError for a wrong shape, NaN, infinity, or a gripper openness outside 0..1.
    """

    actions: np.ndarray  # (K, H, 7) float32: dx dy dz [m], droll dpitch dyaw [rad], openness 0..1
    policy: str  # identity: entry-point name and checkpoint
    log_probabilities: np.ndarray | None = None  # (K,) natural log under the policy; None where it cannot tell
    counts: np.ndarray | None = None  # (K,) how often each was drawn; None where duplicates were kept
    temperature: float = math.nan  # of the sampling, NaN where the policy has none
    seed: int = 0  # of this draw
    stages: dict[str, float] = field(default_factory=dict)  # [ms] time of each named stage
    used: tuple[str, ...] = ('image', 'instruction')  # what it looked at: image, instruction, state, wrist_image
    statistics: str = ''  # data set in whose units the model acts, by the model's own name; '' where it names none
    closing: np.ndarray | None = None  # (K,) -1 opening .. 1 closing: what a gripper is told that takes changes
    finished: bool = False  # whether the policy itself ends the episode after this step

    def __post_init__(self):
        try:
            actions = np.ascontiguousarray(self.actions, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise CandidatesError(f'policy {self.policy!r}: actions are not numbers: {error}') from error
        if actions.ndim != 3 or actions.shape[2] != ACTION_DIMENSION or 0 in actions.shape:
            raise CandidatesError(f'policy {self.policy!r}: actions must be (K, H, {ACTION_DIMENSION}) with K, H >= 1, '
                                  f'got {actions.shape}')
        bad = ~np.isfinite(actions).all(axis=(1, 2))
        if bad.any():
            raise CandidatesError(f'policy {self.policy!r}: {int(bad.sum())} of {len(bad)} candidates hold NaN or '
                                  f'infinity, the first is number {int(bad.argmax())}')
        openness = actions[..., GRIPPER]
        if openness.min() < -1e-4 or openness.max() > 1 + 1e-4:
            raise CandidatesError(f'policy {self.policy!r}: gripper openness must lie in 0 (closed) .. 1 (open), got '
                                  f'{openness.min():.3f} .. {openness.max():.3f}; un-normalise or clip it in the '
                                  'adapter')
        moved, turned = np.abs(actions[..., :3]).max(), np.abs(actions[..., 3:6]).max()
        if moved > LARGEST_STEP or turned > LARGEST_TURN:
            raise CandidatesError(f'policy {self.policy!r}: a step of {moved:.3g} m and {turned:.3g} rad: these are '
                                  'not end-effector deltas in metres and radians per step (joint positions, degrees, '
                                  'millimetres, or normalised actions?)')
        object.__setattr__(self, 'actions', actions)
        for name, kind in (('log_probabilities', np.float32), ('counts', np.uint32), ('closing', np.float32)):
            value = getattr(self, name)
            if value is None:
                continue
            value = np.asarray(value)
            if value.shape != (len(actions),) or np.isnan(value).any() or (name == 'counts' and (value < 1).any()):
                raise CandidatesError(f'policy {self.policy!r}: {name} must be ({len(actions)},) without NaN'
                                      f'{", each >= 1" if name == "counts" else ""}, got shape {value.shape}')
            if name == 'closing' and np.abs(value).max() > 1 + 1e-4:
                raise CandidatesError(f'policy {self.policy!r}: closing must lie in -1 (opening) .. 1 (closing), got '
                                      f'{value.min():.3f} .. {value.max():.3f}')
            object.__setattr__(self, name, value.astype(kind))

    def __len__(self) -> int:
        return len(self.actions)


@runtime_checkable
class Policy(Protocol):
    """A generalist policy. Optional besides the two methods:

    `temperature: float`: sampling temperature, settable between steps; absent where the policy has none.
    `committed(index: int)`: told which candidate was sent to the robot (-1 for hold) before it is asked again; not
        told when proposal tools stand between, for they change the rows.
    `close()`: release the model or the connection.
    """

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode. Every random choice until the next reset derives from seed."""

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k action chunks; fewer rows only where duplicates were merged (see Candidates.counts)."""


class StepSeeds:
    """Independent seeds for the control steps of one episode: the same episode seed gives the same draws."""

    def __init__(self, episode_seed: int = 0):
        self._episode_seed, self._step = int(episode_seed), 0

    def next(self) -> int:
        """Return the seed of the next draw: uint64, to be stored in Candidates.seed."""
        sequence = np.random.SeedSequence([self._episode_seed, self._step])
        self._step += 1
        # 63 bits: torch and JAX take signed seeds.
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_widowx(candidates: Candidates) -> Candidates:
    """Return candidates that a WidowX may execute; CandidatesError where they are in the Google Robot's units."""
    # an actor names all that it was trained on, with versions
    if FRACTAL in candidates.statistics and 'bridge' not in candidates.statistics:
        raise CandidatesError(f"policy {candidates.policy!r}: its actions are the Google Robot's ({FRACTAL}), and this "
                              "is a WidowX: leave out the policy option statistics, or name BridgeData's")
    return candidates


def check_candidates(candidates: Any, k: int) -> Candidates:
    """Return candidates when a policy kept its promise for a request of k, or raise CandidatesError."""
    if not isinstance(candidates, Candidates):
        raise CandidatesError(f'propose must return vgps_policy_bridge.policy.Candidates, got '
                              f'{type(candidates).__name__}')
    rows = len(candidates)
    if rows > k or (rows < k and candidates.counts is None):
        raise CandidatesError(f'policy {candidates.policy!r}: asked for {k} candidates, got {rows}'
                              f'{"" if rows > k else " without counts, so none can be merged duplicates"}')
    return candidates


def available_policies() -> dict[str, EntryPoint]:
    """Return the installed policies by name. Two packages claiming one name raise PolicyError."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        # The same package may be seen twice (source and install tree); that is no conflict.
        if entry.name in found and found[entry.name].value != entry.value:
            raise PolicyError(f'two installed packages provide the policy {entry.name!r}: {found[entry.name].value} '
                              f'and {entry.value}; uninstall one or rename its entry point')
        found[entry.name] = entry
    return found


def load_policy(name: str, **options: Any) -> Policy:
    """Build the policy with this entry-point name.

    Raises PolicyError for an unknown name, options the policy does not take, or a factory that fails;
    MissingExtraError when its packages are not installed.
    """
    policies = available_policies()
    if name not in policies:
        raise PolicyError(f'no policy {name!r} is installed; there are: {", ".join(sorted(policies)) or "none"}. '
                          f'Policies are found through the entry-point group {ENTRY_POINT_GROUP!r}')
    try:
        factory = policies[name].load()
    except ImportError as error:
        raise PolicyError(f'policy {name!r} ({policies[name].value}) cannot be imported: {error}') from error
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise PolicyError(f'policy {name!r}: {error}; its options are {inspect.signature(factory)}') from error
    try:
        policy = factory(**options)
    except PolicyError:
        raise
    except Exception as error:
        raise PolicyError(f'policy {name!r} failed to start: {type(error).__name__}: {error}') from error
    if not isinstance(policy, Policy):
        raise PolicyError(f'policy {name!r} ({policies[name].value}) lacks reset() or propose()')
    return policy
