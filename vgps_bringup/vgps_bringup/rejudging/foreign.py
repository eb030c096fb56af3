"""Recordings made by other software (teleoperation, other policies): value of what was done, step by step."""

from dataclasses import dataclass

import numpy as np

from vgps_bringup.arm.kinematics import Kinematics
from vgps_bringup.rejudging.rejudge import ahead
from vgps_msgs_py.bags import teleoperation
from vgps_msgs_py.bags.reader import JOINT_STATE, Bag, Frame
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.bags.teleoperation import Motion
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import Observation, check_widowx

STEP, TOLERANCE = 200_000_000, 10_000_000  # ns: a control step, and how much earlier a frame may come


@dataclass(frozen=True)
class ValuePoint:
    """Value of what was done."""

    stamp: int
    seconds: float       # since the first
    value: float         # ensemble minimum
    disagreement: float


def done_actions(bag: Bag, camera: str | None = None, joints: str | None = None) -> list[Motion]:
    """Return what was done in steps of 0.2 s: the recorded commands, or motions between reached joint positions.

    What had to be left out is added to the bag's ``problems``.

    Raises:
        BagError: neither commands nor joint states of this arm, or several arms or cameras and no choice.

    """
    if any(message.kind == 0 for _, message, _ in bag.of_type('EndEffectorCommand')):
        motions, left_out = teleoperation.from_commands(bag, camera)
    else:
        motions, left_out = teleoperation.from_joint_states(bag, Kinematics(), camera, joints)
    bag.problems += [text for text in left_out if text not in bag.problems]
    return motions


def proposal_curves(bag: Bag, critics: dict[str, object], policy, k: int, instruction: str,
                    camera: str | None = None) -> dict[str, list[ValuePoint]]:
    """Return by critic the value of the best of k proposals of a policy along a recording, every 0.2 s.

    Needs images and an instruction alone: what recordings without actions can still be asked.

    Raises:
        BagError: no images or instruction, not one frame that can be decoded, or a policy that needs more.

    """
    if not instruction:
        raise BagError(f'{bag.path} names no instruction: give --instruction')
    policy.reset(instruction, 0)
    curves: dict[str, list[ValuePoint]] = {name: [] for name in critics}
    first, due = None, None
    for frame in bag.frames(camera):
        if due is not None and frame.stamp < due:
            continue
        try:
            image = frame.image()
        except ValueError:
            continue  # the next one will do
        first = frame.stamp if first is None else first
        due = frame.stamp + STEP - TOLERANCE
        try:
            actions = check_widowx(policy.propose(Observation(image, frame.stamp * 1e-9, None), k)).actions[:, 0]
        except PolicyError as error:
            raise BagError(f'{bag.path}: proposals from images alone: {error}') from error
        for name, critic in critics.items():
            q_values = critic.score(critic.encode(image, instruction), actions)
            curves[name].append(ValuePoint(frame.stamp, (frame.stamp - first) * 1e-9, float(q_values.min(0).max()),
                                           float(np.ptp(q_values, axis=0).mean())))
    if first is None:
        raise BagError(f'{bag.path}: no frame can be decoded')
    return curves


def value_curve(bag: Bag, critic, instruction: str, camera: str | None = None,
                joints: str | None = None) -> list[ValuePoint]:
    """Return the value of what was done over the recording; a frame that cannot be decoded costs its step.

    Raises:
        BagError: no images, actions or instruction, or not one frame that can be decoded.

    """
    if not instruction:
        raise BagError(f'{bag.path} names no instruction: give --instruction')
    if not bag.messages.get(JOINT_STATE) and not bag.of_type('EndEffectorCommand'):
        raise BagError(f'{bag.path} holds images but neither joint states nor commands: give --policy NAME --k 10 to '
                       'score what a policy proposes')
    motions = {motion.arrival: motion for motion in reversed(done_actions(bag, camera, joints))}

    def judge(frame: Frame) -> tuple[int, np.ndarray | str]:
        try:
            image = frame.image()
        except ValueError as error:
            return frame.arrival, str(error)
        encoded = critic.encode(image, instruction)
        return frame.arrival, critic.score(encoded, motions[frame.arrival].action[None])[:, 0]

    first = min(motion.time for motion in motions.values())
    wanted = (f for f in bag.frames(camera, wanted={m.stamp for m in motions.values()}) if f.arrival in motions)
    points, broken = [], []
    for arrival, q_values in ahead(judge, wanted):
        if isinstance(q_values, str):
            broken.append(q_values)
            continue
        motion = motions[arrival]
        points.append(ValuePoint(motion.stamp, (motion.time - first) * 1e-9, float(q_values.min()),
                                 float(np.ptp(q_values))))
    if broken:
        bag.problems.append(f'{len(broken)} camera frames cannot be decoded ({broken[0]})')
    if not points:
        raise BagError(f'{bag.path}: no frame can be decoded: {broken[0] if broken else "none was found"}')
    return points
