"""InterbotixArm against Interbotix's own InterbotixManipulatorXS and driver simulation, where they are installed."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
# ruff: noqa: E402
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from vgps_bringup.arm.gripper import GripperConfig
from vgps_bringup.arm.interbotix_arm import PROFILE, InterbotixArm
from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_msgs.msg import ControllerState, EndEffectorCommand

pytestmark = pytest.mark.ros

MISSING = ("Interbotix's packages are not installed (interbotix_xs_modules, interbotix_xs_sdk, "
           'interbotix_xsarm_control, interbotix_xsarm_descriptions, xacro): InterbotixArm is NOT tested against the '
           'real API')
NEUTRAL = np.array([-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401])
SLEEP = np.array([0.0, -1.80, 1.55, 0.0, 0.8, 0.0])


def find(*path):
    """Return a file of an installed package, or None."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if os.path.exists(os.path.join(prefix, *path)):
            return os.path.join(prefix, *path)
    return None


def driver_command():
    """Return how to start xs_sdk_sim for a wx250s, or None."""
    pytest.importorskip('interbotix_xs_modules', reason=MISSING)
    xacro = pytest.importorskip('xacro', reason=MISSING)
    script = find('lib', 'interbotix_xs_sdk', 'xs_sdk_sim.py')
    motors = find('share', 'interbotix_xsarm_control', 'config', 'wx250s.yaml')
    modes = find('share', 'interbotix_xsarm_control', 'config', 'modes.yaml')
    urdf = find('share', 'interbotix_xsarm_descriptions', 'urdf', 'wx250s.urdf.xacro')
    if None in (script, motors, modes, urdf):
        pytest.skip(MISSING)
    description = xacro.process_file(urdf, mappings={'robot_name': 'wx250s', 'base_link_frame': 'base_link'}).toxml()
    return [sys.executable, script, '--ros-args', '-r', '__ns:=/wx250s', '-p', f'motor_configs:={motors}',
            '-p', f'mode_configs:={modes}', '-p', 'robot_description:=' + repr(' '.join(description.split()))]


class Bench:
    """The driver's simulation as a process and an InterbotixArm on a node here."""

    def __init__(self, command, log):
        self.command, self.log = command, log
        self.driver = None
        rclpy.init()
        self.node = rclpy.create_node('bench')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.reading, self.health = None, []
        self.arm = InterbotixArm(self.node, 'wx250s', GripperConfig(bus_watchdog=False),
                                 lambda reading: setattr(self, 'reading', reading), self.health.append)

    def start_driver(self):
        self.driver = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT)

    def kill_driver(self):
        self.driver.kill()
        self.driver.wait()

    def spin_until(self, condition, what, timeout=60.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f'{what}: {self.arm.message}'
            self.executor.spin_once(timeout_sec=0.01)
            self.arm.tick(time.monotonic())

    def close(self):
        self.arm.close()
        if self.driver is not None:
            self.kill_driver()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown()


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
    command = driver_command()
    path = tmp_path_factory.mktemp('driver') / 'log'
    with path.open('w') as log:
        bench = Bench(command, log)
        try:
            yield bench
        finally:
            bench.close()
            shutil.copyfileobj(path.open(), sys.stdout)


def registers(bench, register):
    """Read a register past InterbotixArm, through the driver's own service."""
    from interbotix_xs_msgs.srv import RegisterValues
    client = bench.node.create_client(RegisterValues, '/wx250s/get_motor_registers')
    assert client.wait_for_service(timeout_sec=10.0)
    future = client.call_async(RegisterValues.Request(cmd_type='group', name='arm', reg=register))
    bench.executor.spin_until_future_complete(future, timeout_sec=10.0)
    bench.node.destroy_client(client)
    return list(future.result().values)


def test_it_waits_for_the_driver_without_blocking_and_says_so(bench):
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        bench.executor.spin_once(timeout_sec=0.01)
    assert not bench.arm.ready
    assert '/wx250s' in bench.arm.message
    with pytest.raises(RuntimeError, match='waiting'):
        bench.arm.command(NEUTRAL, 1.0)


def test_it_comes_up_writes_the_time_profile_and_moves_nothing(bench):
    bench.start_driver()
    bench.spin_until(lambda: bench.arm.ready and bench.reading is not None, 'ready')
    assert registers(bench, 'Profile_Velocity') == [PROFILE['Profile_Velocity']] * 6
    assert registers(bench, 'Profile_Acceleration') == [PROFILE['Profile_Acceleration']] * 6
    np.testing.assert_allclose(bench.reading.positions, SLEEP, atol=1e-6)


def test_a_joint_command_gets_there(bench):
    bench.arm.command(NEUTRAL, 1.0)
    bench.spin_until(lambda: np.allclose(bench.reading.positions, NEUTRAL, atol=1e-5), 'neutral')


@pytest.mark.parametrize('bad', [np.full(6, np.nan), NEUTRAL * np.inf, NEUTRAL + 4.0, NEUTRAL[:5], np.zeros(7)])
def test_what_would_harm_the_driver_is_never_sent(bench, bad):
    with pytest.raises(ValueError, match='outside the limits'):
        bench.arm.command(bad, 1.0)
    end = time.monotonic() + 0.2
    bench.spin_until(lambda: time.monotonic() > end, 'time')
    np.testing.assert_allclose(bench.reading.positions, NEUTRAL, atol=1e-5)
    assert bench.driver.poll() is None


def test_the_controllers_own_node_keeps_its_executor(bench):
    ticks = []
    timer = bench.node.create_timer(0.02, lambda: ticks.append(1))
    bench.spin_until(lambda: len(ticks) >= 20, 'ticks of a timer')
    bench.node.destroy_timer(timer)
    assert bench.node.executor is bench.executor


def test_the_finger_loop_pushes_towards_its_goal_through_the_driver(bench):
    from interbotix_xs_msgs.msg import JointSingleCommand
    pushes = []
    topic = '/wx250s/commands/joint_single'
    subscription = bench.node.create_subscription(JointSingleCommand, topic, pushes.append, 10)
    bench.arm.command(NEUTRAL, 0.0)
    # xs_sdk_sim's finger turns on through its closed position and out again, so it is closed again and again.
    bench.spin_until(lambda: any(push.cmd < -100 for push in pushes), 'a push to close')
    assert {push.name for push in pushes} == {'gripper'}
    assert max(abs(push.cmd) for push in pushes) <= 350.0
    bench.node.destroy_subscription(subscription)


def test_health_is_polled_and_unknown_registers_are_no_error(bench):
    bench.spin_until(lambda: bench.health, 'a poll')
    assert bench.health[-1].errors == ()        # xs_sdk_sim knows no such register


def test_recovery_sets_modes_and_profile_again(bench):
    bench.arm.recover()
    assert not bench.arm.ready
    bench.spin_until(lambda: bench.arm.ready, 'ready again')
    assert registers(bench, 'Profile_Velocity') == [PROFILE['Profile_Velocity']] * 6


def test_a_driver_killed_and_started_again_gets_its_profile_without_our_restart(bench):
    bench.kill_driver()
    bench.spin_until(lambda: not bench.arm.ready, 'the loss')
    bench.reading = None
    bench.start_driver()
    bench.spin_until(lambda: bench.arm.ready and bench.reading is not None, 'ready again')
    assert registers(bench, 'Profile_Velocity') == [PROFILE['Profile_Velocity']] * 6
    bench.arm.command(SLEEP + [0.1, 0, 0, 0, 0, 0], 1.0)
    bench.spin_until(lambda: abs(bench.reading.positions[0] - 0.1) < 1e-5, 'the command')


def test_joint_names_are_those_of_the_driver(bench):
    assert len(JOINT_NAMES) == len(bench.reading.positions) == 6


def wait(bench, condition, what, timeout=60.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f'{what}: {bench.state and bench.state.message}'
        bench.executor.spin_once(timeout_sec=0.05)


def call(bench, service, name, request):
    client = bench.node.create_client(service, f'/vgps/widowx_node/{name}')
    assert client.wait_for_service(timeout_sec=20.0)
    future = client.call_async(request)
    bench.executor.spin_until_future_complete(future, timeout_sec=20.0)
    bench.node.destroy_client(client)
    return future.result()


def test_the_whole_node_is_dry_by_default_and_moves_the_driver_once_told(bench):
    bench.state = None
    bench.node.create_subscription(ControllerState, '/vgps/controller_state', lambda m: setattr(bench, 'state', m), 10)
    commands = bench.node.create_publisher(EndEffectorCommand, '/vgps/command', 10)
    node = subprocess.Popen([sys.executable, '-m', 'vgps_bringup.arm.widowx_node', '--ros-args', '-r', '__ns:=/vgps',
                             '-p', 'bus_watchdog:=false'])
    try:
        wait(bench, lambda: bench.state is not None and bench.state.state == ControllerState.READY, 'ready')
        wait(bench, lambda: commands.get_subscription_count() == 1, 'discovery')
        assert bench.state.dry_run
        before = bench.reading.positions

        def step(number, dz):
            command = EndEffectorCommand(episode_id='a', step=number, action=[0.0, 0, dz, 0, 0, 0, 1])
            command.header.frame_id = 'wx250s/base_link'
            command.header.stamp = bench.node.get_clock().now().to_msg()
            taken = bench.state.accepted + bench.state.refused
            commands.publish(command)
            wait(bench, lambda: bench.state.accepted + bench.state.refused > taken
                 and bench.state.state != ControllerState.MOVING, 'a step')
            return bench.state

        assert step(0, 0.03).reason == ControllerState.ACCEPTED
        assert np.abs(np.subtract(bench.state.joint_command, before)).max() > 0.02     # what it would do
        np.testing.assert_allclose(bench.reading.positions, before, atol=1e-6)           # and does not
        told = call(bench, SetParameters, 'set_parameters', SetParameters.Request(
            parameters=[Parameter('dry_run', value=False).to_parameter_msg()]))
        assert told.results[0].successful, told.results[0].reason
        assert call(bench, Trigger, 'reset', Trigger.Request()).success
        wait(bench, lambda: bench.state.state == ControllerState.HOMING, 'homing')
        wait(bench, lambda: bench.state.state == ControllerState.READY, 'the start pose')
        measured = np.reshape(bench.state.measured_pose, (4, 4))
        np.testing.assert_allclose(measured[:3, 3], [0.3, 0.0, 0.15], atol=1e-3)
        for number in range(1, 6):
            assert step(number, -0.01).reason == ControllerState.ACCEPTED
        wait(bench, lambda: np.allclose(bench.reading.positions, bench.state.joint_command, atol=1e-4), 'arrival')
        assert np.reshape(bench.state.measured_pose, (4, 4))[2, 3] == pytest.approx(0.10, abs=2e-3)
    finally:
        node.terminate()
        assert node.wait(timeout=20.0) == 0      # a clean end, no "terminate called"
