"""Simulate the WidowX: its joints, its camera, and the true state of the task.

``reset_scene`` instantly puts arm and objects into the start state of a seed. The frame_id of ``joint_states`` names
the scene, so that the controller can tell a scene that was reset from joints that jumped.
"""

import threading
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image, JointState

from vgps_bringup.simulation import TASKS, SimulatedWidowX
from vgps_bringup.simulation.appearance import CAMERA_FOV, LOOKS
from vgps_bringup.simulation.camera import CameraThread
from vgps_bringup.simulation.interbotix import STATE_NAMES, state_positions
from vgps_bringup.simulation.model import JOINT_NAMES
from vgps_bringup.simulation.tasks import DEFAULT_TASK
from vgps_msgs.msg import Episode, TaskState
from vgps_msgs.srv import JudgeEpisode, ResetScene
from vgps_msgs_py import images, node_main, parameters, qos
from vgps_msgs_py.configuration import ConfigurationPublisher

PHYSICS_PERIOD = 0.01  # s of the wall clock between two looks at how much time has passed
LONGEST_CATCH_UP = 0.2  # s; after a longer pause of the process simulated time is lost instead of rushed through
COMMAND_DURATION = 0.2  # s, one control step
CAMERA_FRAME = 'camera_color_optical_frame'


@dataclass(frozen=True)
class SimulationConfig:
    """Parameters of the simulation."""

    task: str = field(default=DEFAULT_TASK, metadata={
        'description': 'first task, until reset_scene names another', 'choices': tuple(TASKS)})
    seed: int = field(default=0, metadata={'description': 'seed of the first scene', 'range': (0, 2**31)})
    image_width: int = field(default=256, metadata={'description': 'width of the camera image [pixels]',
                                                    'range': (32, 1280)})
    image_height: int = field(default=256, metadata={'description': 'height of the camera image [pixels]',
                                                     'range': (32, 1280)})
    renderer: str = field(default='auto', metadata={
        'description': "what renders the camera image; 'auto' uses the first that works",
        'choices': ('auto', 'egl', 'osmesa', 'rays')})
    looks: str = field(default='plain', metadata={
        'description': 'appearance (light, camera pose, colours, table): plain is always the same, the others vary '
                       'with the seed',
        'choices': tuple(LOOKS)})
    camera_rate: float = field(default=30.0, metadata={
        'description': 'camera images per simulated second [Hz]', 'range': (1.0, 60.0)})
    joint_state_rate: float = field(default=50.0, metadata={
        'description': 'joint states per simulated second [Hz]', 'range': (5.0, 100.0)})
    real_time_factor: float = field(default=1.0, metadata={
        'description': 'simulated seconds per second; unless 1, /clock is published for nodes with use_sim_time',
        'range': (0.1, 20.0)})


class SimulationNode(Node):
    """Keeps the simulated robot in step with the clock and converts messages."""

    def __init__(self) -> None:
        super().__init__('simulation_node')
        self.config = c = parameters.declare(self, SimulationConfig)
        self.robot = SimulatedWidowX(c.task, (c.image_height, c.image_width), c.renderer, LOOKS[c.looks])
        self.robot.reset(c.seed)
        self.scene = 0  # counts reset_scene
        self.elapsed = 0.0  # simulated seconds since the start of the node
        self.seen = time.monotonic()  # the last look at the wall clock
        self.due = {'camera': 0.0, 'joints': 0.0, 'task': 0.0}
        self.episode: Episode | None = None    # the last that was announced
        self.judged = ''
        self.finished = False
        self.closing = threading.Event()

        self.images = self.create_publisher(Image, 'image_raw', 1)
        self.camera_infos = self.create_publisher(CameraInfo, 'camera_info', 1)
        self.joint_states = self.create_publisher(JointState, 'joint_states', qos.EVENT)
        self.task_states = self.create_publisher(TaskState, 'task_state', qos.EVENT)
        self.clocks = self.create_publisher(ClockMessage, '/clock', 1) if c.real_time_factor != 1.0 else None
        self.create_subscription(JointState, 'joint_command', self.on_joint_command, qos.EVENT)
        self.create_subscription(Episode, 'episode', self.on_episode, qos.LATCHED)
        self.create_service(ResetScene, 'reset_scene', self.on_reset_scene)
        self.judge = self.create_client(JudgeEpisode, 'judge_episode')
        ConfigurationPublisher(self, 'vgps_bringup').publish()
        self.camera = CameraThread(self.robot, self.publish_image, self.on_camera_failure)
        # The wall clock drives the simulation, whatever clock the other nodes are told to use.
        self.create_timer(PHYSICS_PERIOD, self.on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"task {c.task}, seed {c.seed}: '{self.robot.task.instruction}'")

    def stamp(self) -> TimeMessage:
        """Return the time of this moment as the other nodes see it."""
        if self.clocks is None:
            return self.get_clock().now().to_msg()
        return Time(nanoseconds=round(self.elapsed * 1e9)).to_msg()

    def on_tick(self) -> None:
        """Let the simulated time pass that has passed outside, and publish what is due."""
        now = time.monotonic()
        seconds = min(now - self.seen, LONGEST_CATCH_UP) * self.config.real_time_factor
        self.seen = now
        self.robot.advance(seconds)
        self.elapsed += seconds
        stamp = self.stamp()
        if self.clocks is not None:
            self.clocks.publish(ClockMessage(clock=stamp))
        for name, rate, publish in (('camera', self.config.camera_rate, self.camera.shoot),
                                    ('joints', self.config.joint_state_rate, self.publish_joints),
                                    ('task', 10.0, self.publish_task)):
            if self.elapsed >= self.due[name]:
                self.due[name] = max(self.due[name] + 1.0 / rate, self.elapsed - 1.0 / rate)
                publish(stamp)

    def publish_joints(self, stamp: TimeMessage) -> None:
        """Publish the joints as Interbotix's driver does."""
        message = JointState(name=list(STATE_NAMES))
        message.header.stamp, message.header.frame_id = stamp, f'scene {self.scene}'
        message.position = state_positions(self.robot.joint_positions(), self.robot.finger_position())
        message.velocity = [*self.robot.joint_velocities().tolist(), 0.0, 0.0, 0.0]
        message.effort = [0.0] * len(STATE_NAMES)
        self.joint_states.publish(message)

    def publish_task(self, stamp: TimeMessage) -> None:
        """Publish the truth, and be the operator who calls a finished episode a success."""
        state = self.robot.task_state()
        message = TaskState(task=state.task, instruction=state.instruction, seed=state.seed, success=state.success,
                            grasped=state.grasped, ever_grasped=state.ever_grasped, failure=int(state.failure),
                            object_position=state.object_position, goal_position=state.goal_position)
        message.header.stamp = stamp
        self.task_states.publish(message)
        episode = self.episode
        if episode is None or episode.outcome != Episode.RUNNING:
            return
        if state.success and episode.episode_id != self.judged and self.judge.service_is_ready():
            self.judged = episode.episode_id
            future = self.judge.call_async(JudgeEpisode.Request(episode_id=self.judged, success=True))
            future.add_done_callback(partial(self.on_judged, self.judged))

    def on_judged(self, episode_id: str, future: Future) -> None:
        """Say what became of the verdict."""
        answer = future.result()
        self.get_logger().info(f"{episode_id}: success{'' if answer.accepted else f', not taken: {answer.message}'}")

    def publish_image(self, image: np.ndarray, stamp: TimeMessage) -> None:
        """Publish a drawn picture with its camera's calibration; runs in the camera's thread."""
        if self.closing.is_set():
            return
        height, width = image.shape[:2]
        # The field of view that belongs to the plain looks: a real calibration does not know of a nudged camera either.
        focal = 0.5 * height / np.tan(np.radians(CAMERA_FOV) / 2)
        info = CameraInfo(height=height, width=width, distortion_model='plumb_bob', d=[0.0] * 5,
                          k=[focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0],
                          r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                          p=[focal, 0.0, width / 2, 0.0, 0.0, focal, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0])
        info.header.stamp, info.header.frame_id = stamp, CAMERA_FRAME
        self.images.publish(images.to_message(image, info.header))  # first: the policy waits for it
        self.camera_infos.publish(info)

    def on_camera_failure(self, error: Exception) -> None:
        """End the node: a robot without eyes is of no use."""
        if not self.closing.is_set():
            self.get_logger().fatal(f'no camera images: {error}')
            self.finished = True

    def on_joint_command(self, message: JointState) -> None:
        """Take joint targets [rad] and the gripper's openness."""
        targets = dict(zip(message.name, message.position))
        missing = [name for name in (*JOINT_NAMES, 'gripper') if name not in targets]
        if missing:
            self.get_logger().warning(f"joint_command refused: {', '.join(missing)} missing",
                                      throttle_duration_sec=5.0)
            return
        try:
            self.robot.command(np.array([targets[name] for name in JOINT_NAMES]), targets['gripper'], COMMAND_DURATION)
        except ValueError as error:
            self.get_logger().warning(f'joint_command refused: {error}', throttle_duration_sec=5.0)

    def on_episode(self, message: Episode) -> None:
        """Remember which episode runs."""
        self.episode = message

    def on_reset_scene(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        """Put arm, object and goal into a seeded start state."""
        self.camera.settle()
        try:
            response.instruction = self.robot.reset(request.seed, request.task or None)
            response.success, self.scene = True, self.scene + 1
        except ValueError as error:
            response.message = str(error)
            response.instruction = self.robot.task.instruction
        # The first picture of a task not seen before takes up to a second, in which no joint states go out either. It
        # is drawn before the answer: the arm's way to its start pose would begin in that silence.
        self.elapsed += PHYSICS_PERIOD  # no two pictures share a stamp
        self.camera.shoot(self.stamp())
        self.camera.settle()
        self.publish_joints(self.stamp())
        self.seen = time.monotonic()  # the time the reset took is not simulated
        return response

    def close(self) -> None:
        """Stop drawing before the publishers go."""
        self.closing.set()
        self.camera.close()


def main(args: list[str] | None = None) -> None:
    """Run the node."""
    node_main.run(SimulationNode, args, events=True)


if __name__ == '__main__':
    main()
