"""Simulated episodes as messages of a recording: the topics and types that the recorder writes on a live run.

For step n, all in namespace ``/vgps`` and stamped with simulated time:

===================  ==============================================================================================
``image_raw``        the frame that the step's action was chosen for (one more after the last step)
``joint_states``     measured joints and fingers at that frame, same stamp
``task_state``       the truth at that frame, same stamp; judges only, no policy or critic may train on it unnamed
``step_started``     header of that frame
``candidates``       what the policy proposed for that frame, where one did
``decision``         what the critic thought of them and which was sent, likewise
``command``          the action executed, header of that frame
``controller_state`` what the guards made of it, and the arm's measured pose after the step; once before the first
``episode``          RUNNING before the first step, SUCCESS or FAILURE (message: how it failed) after the last
===================  ==============================================================================================
"""

import numpy as np

from vgps_bringup.arm.kinematics import Kinematics
from vgps_bringup.arm.step_controller import StepResult
from vgps_bringup.simulation.environment import Observation
from vgps_bringup.simulation.interbotix import STATE_NAMES, state_positions
from vgps_bringup.simulation.model import JOINT_NAMES
from vgps_bringup.simulation.oracle import TaskState
from vgps_bringup.simulation.widowx import SimulatedWidowX
from vgps_msgs_py.bags.writer import BagWriter, Topic
from vgps_msgs_py.vocabulary import ArmState as State

RUNNING, SUCCESS, FAILURE = 0, 1, 2  # vgps_msgs/Episode.outcome
CAMERA_FRAME, BASE_FRAME = 'camera_color_optical_frame', 'wx250s/base_link'
_TOPICS = {
    'image_raw': Topic('/vgps/image_raw', 'sensor_msgs/msg/Image'),
    'joint_states': Topic('/vgps/joint_states', 'sensor_msgs/msg/JointState'),
    'task_state': Topic('/vgps/task_state', 'vgps_msgs/msg/TaskState'),
    'step_started': Topic('/vgps/step_started', 'vgps_msgs/msg/StepStarted'),
    'candidates': Topic('/vgps/candidates', 'vgps_msgs/msg/ActionCandidates'),
    'decision': Topic('/vgps/decision', 'vgps_msgs/msg/SteeringDecision'),
    'command': Topic('/vgps/command', 'vgps_msgs/msg/EndEffectorCommand'),
    'controller_state': Topic('/vgps/controller_state', 'vgps_msgs/msg/ControllerState'),
    'episode': Topic('/vgps/episode', 'vgps_msgs/msg/Episode', latched=True, depth=1),
}


class EpisodeWriter:
    """Writes the episodes of one bag, one after the other on one clock."""

    def __init__(self, writer: BagWriter, max_steps: int):
        self._writer, self._max_steps = writer, max_steps
        self._start, self._now = 1_000_000_000, 1_000_000_000  # ns of simulated time
        self._classes = {}

    def begin(self, episode_id: str, robot: SimulatedWidowX, instruction: str = '') -> None:
        """Announce an episode of the scene that `robot` was just reset to; `instruction`: if not the task's own."""
        self._id, self._robot, self._step = episode_id, robot, 0
        self._instruction = instruction or robot.task.instruction
        self._start = self._now + 1_000_000_000
        # Where the arm starts: a policy trained on the recording sees the robot's state at every frame, the first too.
        joints = robot.joint_positions()
        self._controller_state(
            episode_id='', reason=0, message='', action_clipped=False, workspace_clipped=False, joint_command=joints,
            gripper_target=robot.gripper_openness(), accepted=0, refused=0, inverse_kinematics_ms=0.0,
            **dict.fromkeys(('target_pose', 'measured_pose'), Kinematics().forward(joints).ravel()))
        self._announce(RUNNING, '')

    def frame(self, observation: Observation, truth: TaskState) -> None:
        """Write what was seen and what was true at this moment."""
        header = self._header(CAMERA_FRAME)
        height, width = observation.image.shape[:2]
        self._write('image_raw', header=header, height=height, width=width, encoding='rgb8', is_bigendian=0,
                    step=3 * width, data=observation.image.ravel())
        positions = np.array(state_positions(self._robot.joint_positions(), self._robot.finger_position()))
        self._write('joint_states', header=self._header(''), name=list(STATE_NAMES), position=positions,
                    velocity=np.array([*self._robot.joint_velocities(), 0.0, 0.0, 0.0]), effort=np.zeros(9))
        self._write('task_state', header=header, task=truth.task, instruction=truth.instruction, seed=truth.seed,
                    success=truth.success, grasped=truth.grasped, ever_grasped=truth.ever_grasped,
                    failure=int(truth.failure), object_position=np.array(truth.object_position),
                    goal_position=np.array(truth.goal_position))

    def start_step(self, action: np.ndarray) -> None:
        """Write the (7,) action chosen for the last frame; call before the robot moves."""
        self._write('step_started', header=self._header(CAMERA_FRAME), episode_id=self._id, step=self._step,
                    instruction=self._instruction)
        self._write('command', header=self._header(BASE_FRAME), episode_id=self._id, step=self._step, kind=0,
                    action=np.asarray(action, float), message='')

    def decide(self, candidates, decision, critic_hash: str) -> None:
        """Write a policy's Candidates for the last frame and the Steerer's Decision about them; after `start_step`."""
        k, horizon = candidates.actions.shape[:2]
        common = dict(header=self._header(CAMERA_FRAME), episode_id=self._id, step=self._step,
                      instruction=self._instruction, policy=candidates.policy, num_candidates=k)
        self._write('candidates', **common, horizon=horizon, actions=candidates.actions.ravel(),
                    log_probabilities=_array(candidates.log_probabilities, np.float32),
                    counts=_array(candidates.counts, np.uint32), temperature=candidates.temperature,
                    seed=candidates.seed, **_stages(candidates.stages))
        self._write('decision', **common, num_members=decision.num_members, q_values=decision.q_values.ravel(),
                    probabilities=decision.probabilities, chosen=decision.chosen, action=decision.action,
                    beta=decision.beta, seed=decision.seed, critic_hash=critic_hash, verdict=int(decision.verdict),
                    reason=int(decision.reason), message=decision.message, spread=decision.spread,
                    disagreement=decision.disagreement, effective_sample_size=decision.effective_sample_size,
                    value=decision.value, value_trend=decision.value_trend, success_chance=decision.success_chance,
                    chance_threshold=decision.chance_threshold, alarm=decision.alarm,
                    feature_distance=decision.feature_distance, retries=decision.retries, **_stages(decision.stages))

    def end_step(self, result: StepResult, measured_pose: np.ndarray, accepted: int, refused: int) -> None:
        """Write what the guards made of the action and where the arm is after it."""
        self._controller_state(
            episode_id=self._id, reason=int(result.reason), message=result.message,
            action_clipped=result.action_clipped, workspace_clipped=result.workspace_clipped,
            target_pose=result.target_pose.ravel(), measured_pose=measured_pose.ravel(),
            joint_command=result.joint_command, gripper_target=result.gripper, accepted=accepted, refused=refused,
            inverse_kinematics_ms=result.inverse_kinematics_ms)
        self._step += 1

    def end(self, success: bool, failure: str) -> None:
        """Announce the outcome, with a name for a failure."""
        self._announce(SUCCESS if success else FAILURE, failure)

    def _controller_state(self, **fields) -> None:
        self._write('controller_state', header=self._header(BASE_FRAME), step=self._step, state=int(State.READY),
                    dry_run=False, joint_names=list(JOINT_NAMES), joint_positions=self._robot.joint_positions(),
                    gripper_position=self._robot.gripper_openness(), image_to_command_ms=0.0, **fields)

    def _announce(self, outcome: int, message: str) -> None:
        robot = self._robot
        self._write('episode', header=self._header(''), episode_id=self._id, instruction=self._instruction,
                    task=robot.task_name, seed=robot.seed, max_steps=self._max_steps, outcome=outcome, message=message)

    def _header(self, frame: str):
        self._now = self._start + round(self._robot.time * 1e9)
        seconds, nanoseconds = divmod(self._now, 1_000_000_000)
        return self._class('std_msgs/msg/Header')(
            stamp=self._class('builtin_interfaces/msg/Time')(sec=seconds, nanosec=nanoseconds), frame_id=frame)

    def _class(self, name: str):
        if name not in self._classes:
            self._classes[name] = self._writer.types.message_class(name)
        return self._classes[name]

    def _write(self, name: str, /, **fields) -> None:
        topic = _TOPICS[name]
        message = self._class(topic.type)(**fields)
        self._writer.write(topic, self._writer.types.serialize(message, topic.type), self._now)


def _array(values, dtype) -> np.ndarray:
    return np.zeros(0, dtype) if values is None else np.asarray(values, dtype)


def _stages(stages: dict[str, float]) -> dict:
    return {'stages': list(stages), 'stage_milliseconds': np.array(list(stages.values()), np.float32)}
