"""The one way out to the arm: where the next motion starts, what was sent last, and how a motion is cut short."""

import numpy as np

from vgps_bringup.arm.arms import Arm
from vgps_bringup.arm.homing import FAR, SETTLE
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER
from vgps_bringup.arm.step_controller import StepController

_ANCHORED = 0.1    # rad: a resting arm closer than this to its command is where it was told to be
_RESTS = 0.5       # s after the last joint command by which the servos have arrived


class Outlet:
    """Holds the last joint command of `arm`, whose targets are kept by the StepController `steps`."""

    def __init__(self, arm: Arm, steps: StepController):
        self.arm, self.steps = arm, steps
        self.sent = np.full(6, np.nan)    # (6,) rad, NaN before the first
        self.anchored = False    # whether the arm's place has ever been taken as start
        self._sent_at = -np.inf

    def send(self, joint_positions: np.ndarray, now: float, dry_run: bool, openness: float | None) -> None:
        """Command (6,) joint positions [rad] and the gripper's openness, None to leave the fingers alone.

        A folded, limp arm rests a little beyond a limit: what starts from there is clipped here, for every motion.
        """
        if not np.isfinite(joint_positions).all():
            raise ValueError(f'joint command is not finite: {joint_positions}')
        self.sent, self._sent_at = np.clip(joint_positions, JOINT_LOWER, JOINT_UPPER), now
        if not dry_run:
            self.arm.command(self.sent, openness)

    def anchor(self, measured: np.ndarray, force: bool = False, openness: float | None = None) -> np.ndarray:
        """Return where the next motion starts: the last command, or (6,) `measured` [rad] where the arm is elsewhere.

        Within the limits, or no step could begin: the first one brings back an arm that rests beyond one.
        """
        if force or np.abs(measured - self.steps.joint_command).max() > _ANCHORED:
            self.steps.reset(np.clip(measured, JOINT_LOWER, JOINT_UPPER),
                             self.steps.gripper if openness is None else openness)
            self.anchored = True
        return self.steps.joint_command

    def follow(self, measured: np.ndarray, now: float) -> str:
        """Anchor a resting arm that was pushed elsewhere, instead of snapping back with the next step; say so."""
        off = np.abs(measured - self.steps.joint_command)
        worst = int(off.argmax())
        if now - self._sent_at <= _RESTS or off[worst] <= _ANCHORED:
            return ''
        self.anchor(measured)
        return f'{JOINT_NAMES[worst]} was moved by {off[worst]:.2f} rad while at rest: the next step starts from there'

    def hold(self) -> None:
        """Have the fingers stay or go on holding; an arm may be without fingers that push."""
        getattr(self.arm, 'hold', lambda: None)()

    def on_the_way(self, now: float) -> bool:
        """Tell whether the servos may still be on their way to the last command."""
        return now - self._sent_at < SETTLE

    def freeze(self, measured: np.ndarray, now: float, dry_run: bool) -> None:
        """Make the goal where the arm is now, once: repeated, the arm would sink."""
        # Joint states that far off are not to be believed: then the last command stands.
        if self.arm.ready and np.abs(measured - self.sent).max() <= FAR:
            self.send(self.anchor(measured, force=True), now, dry_run, None)
