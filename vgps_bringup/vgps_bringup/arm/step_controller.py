"""One control step: a 7-D action becomes joint positions, or a named refusal that changes nothing.

The checks run in this order: finite, clip, compose on the previous target, workspace box, inverse kinematics seeded
by the last command, joint limits, largest joint step, every link above the table and clear of the others all the way.
The box bounds the point between the fingers, the fingertips and the wrist; its floor bounds every link: a target that
would put one of them outside is moved back by as much. Towards the base and above the box the wrist is free, for that
is where it is when the gripper points forward or down. The reference stack moves its target on when the inverse
kinematics fails, so that an unreachable run winds up and is released at once later; here a refusal leaves target,
command and gripper as they were.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from vgps_bringup.arm import previous_target
from vgps_bringup.arm.arms import FINGER_CLOSED, FINGER_OPEN
from vgps_bringup.arm.collision import FINGER_REACH, TOLERANCE, WRIST_REACH, CollisionModel, UnsafePathError
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER, InverseResult, Kinematics
from vgps_msgs_py.vocabulary import ControllerReason as Reason

_RETURN = 0.01    # m per step at which a target outside the workspace box goes back into it by itself

# Boxes in use, [x, y, z] low and high in metres of the base frame. z of the table differs from lab to lab.
WORKSPACES = {
    'bridge': ((0.10, -0.15, -0.01), (0.45, 0.25, 0.25)),   # Octo's and BridgeData V2's evaluations
    'openvla': ((0.10, -0.20, -0.01), (0.45, 0.25, 0.30)),  # OpenVLA's evaluation
}

# Points on the gripper's x axis that the box bounds [m ahead of its frame]: the frame itself, fingertips, wrist.
_BOUNDED = np.array([0.0, FINGER_REACH, -WRIST_REACH])
_FREE_BELOW = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1]], bool)    # of each point: x, y, z; z is the links' floor
_FREE_ABOVE = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]], bool)

_MAX_RAISES = 4  # looks at a target that has to be raised above the table; one is enough for a rigid shift


@dataclass(frozen=True)
class StepControllerConfig:
    """Limits of one control step. Defaults are BridgeData's, except where a comment says otherwise."""

    workspace: str = field(default='bridge', metadata={
        'description': 'which published workspace box the gripper target is kept in', 'choices': ('bridge', 'openvla')})
    # The box cannot know the height of a table: raise this before the first motion.
    min_height: float = field(default=-0.01, metadata={
        'description': "lowest gripper target above the base plane [m], or the box's floor if that is higher; every "
                       'link stays above a plane 23.4 mm lower',
        'range': (-0.10, 0.20)})
    max_translation: float = field(default=0.05, metadata={
        'description': 'largest |dx|, |dy|, |dz| of one step [m]; more is clipped', 'range': (0.001, 0.05)})
    max_rotation: float = field(default=0.25, metadata={
        'description': 'largest |droll|, |dpitch|, |dyaw| of one step [rad]; more is clipped',
        'range': (0.01, 0.25)})
    # Not in BridgeData, whose inverse kinematics sometimes jumps to another branch. Joints turn 0.63 rad in 0.2 s.
    max_joint_step: float = field(default=0.6, metadata={
        'description': 'largest rotation of any joint in one step, from the last command and from the measured '
                       'position [rad]; more is refused', 'range': (0.01, 0.6)})
    gripper_threshold: float = field(default=0.5, metadata={
        'description': 'openness above which the gripper opens, otherwise it closes [0..1]', 'range': (0.05, 0.95)})
    # 1 on the robot; V-GPS's own SIMPLER evaluation uses 3.
    gripper_sticky_steps: int = field(default=1, metadata={
        'description': 'consecutive actions that must ask for a change of the gripper before it is made',
        'range': (1, 15)})

    def __post_init__(self) -> None:
        if self.workspace not in WORKSPACES:
            raise ValueError(f"workspace '{self.workspace}' is unknown: choose one of {', '.join(WORKSPACES)}")

    @property
    def box(self) -> np.ndarray:
        """The workspace as a (2, 3) array [m]: lowest and highest x, y, z."""
        box = np.array(WORKSPACES[self.workspace])
        box[0, 2] = max(box[0, 2], self.min_height)
        return box

    @property
    def floor(self) -> float:
        """Height of the table [m]: where the fingertips of a gripper at the box's floor are that points down."""
        return float(self.box[0, 2]) - FINGER_REACH


@dataclass(frozen=True)
class StepResult:
    """What became of one action; on a refusal pose, command and gripper are the unchanged ones."""

    accepted: bool
    reason: Reason
    message: str                   # in words, with numbers; empty when accepted
    target_pose: np.ndarray        # (4, 4) gripper target in the base frame [m]
    joint_command: np.ndarray      # (6,) rad
    gripper: float                 # commanded openness, 0 closed or 1 open
    action_clipped: bool           # the action exceeded the per-step bounds
    workspace_clipped: bool        # the target was moved back into the box
    inverse_kinematics_ms: float   # 0 where it was not reached


class StepController:
    """Turns BridgeData actions into joint commands, holding the target, the last command and the gripper's state."""

    def __init__(self, config: StepControllerConfig | None = None):
        self.config = config or StepControllerConfig()
        self._kinematics = Kinematics()
        self.collision = CollisionModel()
        self.reset(np.zeros(len(JOINT_NAMES)), 1.0)

    def reset(self, joint_positions: np.ndarray, openness: float = 1.0) -> None:
        """Start from (6,) measured joint positions [rad]: target and command become what is measured."""
        self.joint_command = np.array(joint_positions, float)
        self.target_pose = self._kinematics.forward(self.joint_command)
        self.gripper = 1.0 if openness > self.config.gripper_threshold else 0.0
        self._gripper_disagreements = 0

    def forward(self, joint_positions: np.ndarray) -> np.ndarray:
        """Return the (4, 4) gripper pose of (6,) joint positions."""
        return self._kinematics.forward(joint_positions)

    def step(self, action: np.ndarray, measured: np.ndarray) -> StepResult:
        """Check one (7,) action against the (6,) measured joint positions [rad] and return a StepResult."""
        action, measured = np.asarray(action, float), np.asarray(measured, float)
        if action.shape != (7,) or not np.isfinite(action).all():
            return self._refuse(Reason.NOT_FINITE, f'action is not 7 finite numbers: {action}')
        if measured.shape != (6,) or not np.isfinite(measured).all():
            return self._refuse(Reason.BAD_JOINT_STATES, f'measured joints are not 6 finite numbers: {measured}')
        c = self.config
        bounds = np.array([c.max_translation] * 3 + [c.max_rotation] * 3)
        delta = np.clip(action[:6], -bounds, bounds)
        action_clipped = not np.array_equal(delta, action[:6]) or not 0.0 <= action[6] <= 1.0
        pose = previous_target.compose(self.target_pose, self._kinematics.forward(measured)[:3, 3], delta)
        inside = self._into_box(pose)
        workspace_clipped = not np.array_equal(inside, pose[:3, 3])
        pose[:3, 3] = inside

        started = time.perf_counter()
        finger = self.finger if action[6] <= c.gripper_threshold else FINGER_OPEN
        raised, reason, message, joints = self._solve(pose, measured, finger)
        workspace_clipped = workspace_clipped or raised
        milliseconds = (time.perf_counter() - started) * 1e3
        if joints is None:
            return self._refuse(reason, message, action_clipped, workspace_clipped, milliseconds)
        self.target_pose, self.joint_command = pose, joints
        self._decide_gripper(action[6])
        return self._result(True, reason, '', action_clipped, workspace_clipped, milliseconds)

    @property
    def finger(self) -> float:
        """Distance of one finger from the centre [m] for the commanded gripper."""
        return FINGER_OPEN if self.gripper else FINGER_CLOSED

    def _into_box(self, pose: np.ndarray) -> np.ndarray:
        """Return the (3,) position nearest to that of the (4, 4) `pose` that keeps what the box bounds inside it.

        An arm that stands outside, because the box was changed or it was found there, goes back in slowly.
        """
        wanted, present = (p[:3, 3] + _BOUNDED[:, None] * p[:3, 0] for p in (pose, self.target_pose))
        low, high = self.config.box
        low = np.where(_FREE_BELOW, -np.inf, np.minimum(low, present + _RETURN))
        high = np.where(_FREE_ABOVE, np.inf, np.maximum(high, present - _RETURN))
        back = np.maximum(low - wanted, 0.0).max(axis=0) - np.maximum(wanted - high, 0.0).max(axis=0)
        return np.asarray(pose[:3, 3] + back)

    def _solve(self, pose: np.ndarray, measured: np.ndarray, finger: float
               ) -> tuple[bool, Reason, str, np.ndarray | None]:
        """Find joints for the (4, 4) `pose`, raised in place where a link would be below the table.

        Returns (raised, Reason, message, (6,) joints or None). A link that is below already is not leapt out
        of there: it may only not go deeper.
        """
        lowest_now = self.collision.look(self.joint_command, finger).height
        for raised in range(_MAX_RAISES):
            solution = self._kinematics.inverse(pose, self.joint_command)
            reason, message = self._judge(solution, pose, measured)
            if reason is not Reason.ACCEPTED:
                return raised > 0, reason, message, None
            way = solution.joint_positions - self.joint_command
            # between two poses at the table a straight line in joint space sags a little: that, too, is lifted out
            below = max((min(self.config.floor, lowest_now)
                         - self.collision.look(self.joint_command + share * way, finger).height) / share
                        for share in (0.5, 0.75, 1.0))
            if below <= 0.5 * TOLERANCE or raised == _MAX_RAISES - 1:
                break
            pose[2, 3] += below
        try:
            self.collision.check_path([self.joint_command, solution.joint_positions], self.config.floor, finger)
        except UnsafePathError as error:
            return raised > 0, error.reason, str(error), None
        return raised > 0, Reason.ACCEPTED, '', solution.joint_positions

    def _judge(self, solution: InverseResult, pose: np.ndarray, measured: np.ndarray) -> tuple[Reason, str]:
        if not solution.ok:
            return Reason.UNREACHABLE, (f'no joint positions reach {np.round(pose[:3, 3], 3)} m: nearest is '
                                        f'{solution.position_error * 1e3:.1f} mm and '
                                        f'{solution.rotation_error:.3f} rad off')
        joints = solution.joint_positions
        outside = np.maximum(JOINT_LOWER - joints, joints - JOINT_UPPER)
        worst = int(outside.argmax())
        if outside[worst] > 0.0:
            return Reason.JOINT_LIMIT, (f'{JOINT_NAMES[worst]} would be at {joints[worst]:.3f} rad, outside '
                                        f'{JOINT_LOWER[worst]:.3f} to {JOINT_UPPER[worst]:.3f}')
        for origin, positions in (('last command', self.joint_command), ('measured position', measured)):
            turn = np.abs(joints - positions)
            worst = int(turn.argmax())
            if turn[worst] > self.config.max_joint_step:
                return Reason.JOINT_STEP, (f'{JOINT_NAMES[worst]} would turn {turn[worst]:.3f} rad from its {origin}, '
                                           f'more than {self.config.max_joint_step:.3f}')
        return Reason.ACCEPTED, ''

    def _decide_gripper(self, openness: float) -> None:
        wanted = 1.0 if openness > self.config.gripper_threshold else 0.0
        self._gripper_disagreements = self._gripper_disagreements + 1 if wanted != self.gripper else 0
        if self._gripper_disagreements >= self.config.gripper_sticky_steps:
            self.gripper, self._gripper_disagreements = wanted, 0

    def _refuse(self, reason: Reason, message: str, action_clipped: bool = False, workspace_clipped: bool = False,
                milliseconds: float = 0.0) -> StepResult:
        return self._result(False, reason, message, action_clipped, workspace_clipped, milliseconds)

    def _result(self, accepted: bool, reason: Reason, message: str, action_clipped: bool, workspace_clipped: bool,
                milliseconds: float) -> StepResult:
        return StepResult(accepted, reason, message, self.target_pose.copy(), self.joint_command.copy(), self.gripper,
                          action_clipped, workspace_clipped, milliseconds)
