"""The simulated WidowX over real ROS 2: what it publishes, what it obeys, how it ends."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402

from vgps_bringup.simulation.interbotix import STATE_NAMES  # noqa: E402
from vgps_bringup.simulation.model import JOINT_NAMES, START_JOINTS  # noqa: E402
from vgps_bringup.simulation.simulation_node import SimulationNode  # noqa: E402
from vgps_msgs.msg import Episode, TaskState  # noqa: E402
from vgps_msgs.srv import JudgeEpisode, ResetScene  # noqa: E402
from vgps_msgs_py import images, qos, stamps  # noqa: E402

pytestmark = pytest.mark.ros

PATIENCE = 60.0  # s; the machine may be busy


class Simulation:
    """A simulation_node in a process of its own and a node that talks to it."""

    def __init__(self, name, *parameters):
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'vgps_bringup.simulation.simulation_node', '--ros-args', '-r', f'__ns:=/{name}',
             *(word for parameter in parameters for word in ('-p', parameter))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.node = rclpy.create_node('listener', namespace=f'/{name}')
        self.received = {}
        for topic, kind, profile in (('image_raw', Image, qos.IMAGE), ('camera_info', CameraInfo, 1),
                                     ('joint_states', JointState, 10), ('task_state', TaskState, 10),
                                     ('/clock', Clock, 10)):
            self.received[topic] = []
            self.node.create_subscription(kind, topic, self.received[topic].append, profile)
        self.commands = self.node.create_publisher(JointState, 'joint_command', 10)
        self.resets = self.node.create_client(ResetScene, 'reset_scene')

    def wait(self, condition, what):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f'waited {PATIENCE} s for {what}'
            assert self.process.poll() is None, self.process.stdout.read()
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def next(self, topic):
        self.received[topic].clear()
        self.wait(lambda: self.received[topic], topic)
        return self.received[topic][-1]

    def reset(self, task, seed):
        self.wait(self.resets.service_is_ready, 'reset_scene')
        future = self.resets.call_async(ResetScene.Request(task=task, seed=seed))
        self.wait(future.done, 'reset_scene to answer')
        return future.result()

    def command(self, joints, openness):
        message = JointState(name=[*JOINT_NAMES, 'gripper'], position=[*map(float, joints), openness])
        message.header.stamp = self.node.get_clock().now().to_msg()
        self.commands.publish(message)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=PATIENCE)
        self.node.destroy_node()
        return self.process.returncode, output


@pytest.fixture(scope='module', autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture(scope='module')
def simulation(ros):
    simulation = Simulation('simulated', 'task:=put_carrot_on_plate', 'image_width:=96', 'image_height:=64')
    yield simulation
    simulation.stop()


def test_camera_publishes_pictures_with_their_calibration(simulation):
    simulation.wait(lambda: simulation.received['image_raw'] and simulation.received['camera_info'], 'a picture')
    image, info = simulation.next('image_raw'), simulation.next('camera_info')
    pixels = images.to_array(image)
    assert pixels.shape == (64, 96, 3) and pixels.std() > 10
    assert image.header.frame_id == info.header.frame_id != ''
    assert (info.height, info.width) == (64, 96)
    assert info.k[0] == info.k[4] == pytest.approx(32 / np.tan(np.radians(43 / 2)))
    assert (info.k[2], info.k[5]) == (48, 32)


def test_every_picture_has_a_stamp_of_its_own_in_order(simulation):
    simulation.received['image_raw'].clear()
    simulation.wait(lambda: len(simulation.received['image_raw']) >= 8, 'eight pictures')
    times = [stamps.nanoseconds(m.header.stamp) for m in simulation.received['image_raw']]
    assert times == sorted(set(times))


def test_joint_states_have_the_drivers_names_and_order(simulation):
    message = simulation.next('joint_states')
    assert tuple(message.name) == STATE_NAMES
    assert len(message.position) == len(message.velocity) == len(message.effort) == 9
    assert message.position[8] == -message.position[7]


def test_reset_scene_is_seeded_and_brings_the_arm_to_its_start(simulation):
    seen = []
    for seed in (3, 4, 3):
        answer = simulation.reset('', seed)
        assert answer.success and answer.instruction == 'put carrot on plate'
        simulation.next('task_state')
        state = simulation.next('task_state')
        assert state.seed == seed and state.failure == TaskState.NEVER_GRASPED and not state.success
        seen.append(tuple(np.round(state.object_position, 4)))
    assert seen[0] == seen[2] != seen[1]
    np.testing.assert_allclose(simulation.next('joint_states').position[:6], START_JOINTS, atol=0.01)


def test_reset_scene_changes_the_task_and_refuses_an_unknown_one(simulation):
    assert simulation.reset('stack_green_on_yellow', 1).instruction == 'stack green block on yellow block'
    refused = simulation.reset('fold_towel', 1)
    assert not refused.success and 'put_carrot_on_plate' in refused.message
    simulation.next('task_state')
    assert simulation.next('task_state').task == 'stack_green_on_yellow'
    assert simulation.next('image_raw').width == 96  # the camera draws the new scene


def test_joint_commands_move_arm_and_gripper(simulation):
    simulation.reset('put_carrot_on_plate', 3)
    target = np.array(START_JOINTS) + [0.3, 0, 0, 0, 0, 0]
    simulation.command(target, 0.0)
    simulation.wait(lambda: abs(simulation.next('joint_states').position[0] - 0.3) < 0.01, 'the waist to turn')
    assert simulation.next('joint_states').position[7] < 0.012


def test_commands_that_lack_a_joint_or_are_not_finite_move_nothing(simulation):
    simulation.reset('put_carrot_on_plate', 3)
    simulation.commands.publish(JointState(name=['waist'], position=[1.0]))
    simulation.command([np.nan] * 6, 1.0)
    for _ in range(20):
        position = simulation.next('joint_states').position
    np.testing.assert_allclose(position[:6], START_JOINTS, atol=0.02)


def test_faster_than_real_time_publishes_its_clock_and_stops_cleanly(ros):
    simulation = Simulation('fast', 'image_width:=32', 'image_height:=32', 'real_time_factor:=4.0')
    simulation.wait(lambda: simulation.received['/clock'] and simulation.received['joint_states'], '/clock')
    first, started = stamps.seconds(simulation.next('/clock').clock), time.monotonic()
    simulation.wait(lambda: stamps.seconds(simulation.received['/clock'][-1].clock) > first + 1.0, 'a second to pass')
    assert time.monotonic() - started > 0.5 / 4.0  # not at once: a late look at the first shortens what is measured
    clock, joints = (stamps.seconds(m) for m in (simulation.next('/clock').clock,
                                                 simulation.next('joint_states').header.stamp))
    assert -1.0 < joints - clock < 4 * PATIENCE  # stamped by that clock, not by the machine's
    code, output = simulation.stop()
    assert code == 0 and 'Traceback' not in output, output


def test_a_success_is_judged_once_and_only_while_an_episode_runs(ros):
    simulation, listener = SimulationNode(), rclpy.create_node('judge_listener')
    verdicts, executor = [], rclpy.executors.SingleThreadedExecutor()
    listener.create_service(JudgeEpisode, 'judge_episode',
                            lambda request, response: verdicts.append(request) or response)
    episodes = listener.create_publisher(Episode, 'episode', qos.LATCHED)
    executor.add_node(simulation)
    executor.add_node(listener)

    def spin(seconds, condition=lambda: False):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
    try:
        spin(PATIENCE, simulation.judge.service_is_ready)
        robot = simulation.robot
        joint = robot.data.joint('object')
        joint.qpos[:3], joint.qvel[:] = robot.oracle.goal_position + (0.0, 0.0, 0.024), 0.0
        spin(PATIENCE, lambda: robot.task_state().success)
        spin(0.5)
        assert verdicts == []
        episodes.publish(Episode(episode_id='first', outcome=Episode.RUNNING))
        spin(PATIENCE, lambda: verdicts)
        spin(0.5)
        assert [(v.episode_id, v.success) for v in verdicts] == [('first', True)]
    finally:
        simulation.close()
        for node in (simulation, listener):
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()


def test_an_impossible_parameter_is_explained_in_one_line():
    done = subprocess.run([sys.executable, '-m', 'vgps_bringup.simulation.simulation_node', '--ros-args', '-p',
                           'task:=fold'], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert 'fold' in done.stderr and 'Traceback' not in done.stderr
