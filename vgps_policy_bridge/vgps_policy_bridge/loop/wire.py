"""Between the core's values and the fields of messages. Takes message objects, imports no ROS."""

from __future__ import annotations

from array import array

import numpy as np

from vgps_msgs_py import robot_state
from vgps_msgs_py.stamps import nanoseconds
from vgps_msgs_py.vocabulary import ArmState, ControllerReason, SteeringReason, name
from vgps_policy_bridge.loop.events import ArmReport, DecisionReport
from vgps_policy_bridge.policy import Candidates


def arm_report(message) -> ArmReport:
    """Return what the episode needs of a ControllerState.

    A state this version does not know counts as not ready: the episode waits, and its limits end it if that lasts.
    """
    known = message.state in ArmState.__members__.values()
    return ArmReport(nanoseconds(message.header.stamp), message.episode_id, message.step,
                     ArmState(message.state) if known else ArmState.STARTING, name(ControllerReason, message.reason),
                     message.message if known else f'unknown state {message.state} of the controller',
                     message.accepted, message.refused, message.reason)


def decision_report(message) -> DecisionReport:
    """Return what the episode needs of a SteeringDecision."""
    reason = name(SteeringReason, message.reason)
    words = f'{reason}: {message.message}' if message.message else reason
    return DecisionReport(message.episode_id, message.step, message.chosen, message.value, words, message.reason)


def fill_candidates(message, candidates: Candidates):
    """Write candidates into an ActionCandidates and return it; absent side information stays empty."""
    message.num_candidates, message.horizon = candidates.actions.shape[:2]
    # Humble refuses numpy arrays here, and looks at every number of a list
    message.actions = array('f', candidates.actions.tobytes())
    message.policy, message.seed = candidates.policy, int(candidates.seed)
    message.temperature = float(candidates.temperature)
    message.stages = list(candidates.stages)
    message.stage_milliseconds = [float(milliseconds) for milliseconds in candidates.stages.values()]
    if candidates.log_probabilities is not None:
        message.log_probabilities = array('f', candidates.log_probabilities.tobytes())
    if candidates.counts is not None:
        message.counts = array('I', candidates.counts.tobytes())
    return message


def measured(arm) -> np.ndarray | None:
    """Return the (7,) robot state of a ControllerState, see Observation; None without one."""
    return None if arm is None else robot_state.measured_state(arm.measured_pose, arm.gripper_position)


def age_ms(frame, now: int) -> float:
    """Return what an image message is old [ms] at now [ns] of the clock it was stamped by."""
    return (now - nanoseconds(frame.header.stamp)) * 1e-6


def health_facts(session, machine, config, frame, now: int) -> dict:
    """Return the values of the node's diagnostics; frame is the newest image message or None, now [ns] of its clock."""
    age = 'no frame yet' if frame is None else f'{1e-3 * age_ms(frame, now):.3f}'
    facts = {'policy': session.identity or config.policy, 'waiting for': machine.phase.value, 'step': machine.step,
             'num_candidates': config.num_candidates, 'temperature': config.temperature, 'busy': session.busy,
             'newest frame age [s]': age}
    return facts | {f'{stage} [ms]': f'{milliseconds:.1f}' for stage, milliseconds in session.stages.items()}
