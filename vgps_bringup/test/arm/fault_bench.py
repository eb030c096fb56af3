"""widowx_node in a process of its own, with neighbours that can be killed, and everything it publishes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER
from vgps_msgs.msg import ControllerState, EndEffectorCommand, Episode
from vgps_msgs_py import qos
from vgps_msgs_py.stamps import seconds
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

STAND_INS = Path(__file__).parent / 'arm_stand_ins.py'
BASE = 'wx250s/base_link'
HOLDS_WITHIN = 0.5      # s
PARAMETERS = {'arm': 'simulated', 'dry_run': 'false', 'command_timeout': '1.5', 'image_timeout': '0.3',
              'move_speed': '1.5', 'recovery_time': '0.3', 'joint_states_timeout': '0.4'}
STARTS_WITHIN = 60.0    # s; a new process needs 2 s on an idle machine


class Bench:
    """widowx_node and its neighbours as processes, and what they publish."""

    def __init__(self, namespace, **parameters):
        self.namespace, self.processes = namespace, {}
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node('bench', namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.state, self.states, self.joint_commands, self.joint_states = None, [], [], []
        self.node.create_subscription(ControllerState, 'controller_state', self.on_state, 100)
        self.node.create_subscription(JointState, 'joint_command', self.on_joint_command, 1000)
        self.node.create_subscription(JointState, 'joint_states', self.on_joint_states, 1000)
        self.commands = None
        self.play_critic()
        self.episodes = self.node.create_publisher(Episode, 'episode', qos.LATCHED)
        self.clock = self.node.create_publisher(Clock, '/clock', 10)
        self.step, self.episode_id, self.counter, self.checked = 0, '', 0, 0
        self.parameters = PARAMETERS | parameters
        for part in ('driver', 'camera', 'widowx'):
            self.start(part)

    def on_state(self, message):
        self.state = message
        self.states.append((seconds(message.header.stamp), State(message.state), Reason(message.reason)))

    def on_joint_command(self, message):
        self.joint_commands.append((seconds(message.header.stamp), np.array(message.position[:6]), message.position[6]))

    def on_joint_states(self, message):
        self.joint_states.append((seconds(message.header.stamp), np.array(message.position[:6])))

    def frames_in_motion(self, since):
        """Return how many of the arm's own periods of 10 ms after `since` show it moving."""
        frames = np.array([positions for stamp, positions in self.joint_states if stamp >= since])
        return int((np.abs(np.diff(frames, axis=0)).max(axis=1, initial=0.0) > 1e-4).sum())

    def play_critic(self, play=True):
        """Be the one publisher of commands, or leave that to somebody else: two are not obeyed."""
        if play and self.commands is None:
            self.commands = self.node.create_publisher(EndEffectorCommand, 'command', qos.EVENT)
        elif not play and self.commands is not None:
            self.node.destroy_publisher(self.commands)
            self.commands = None

    def start(self, part):
        if part == 'critic':
            self.play_critic(False)
        arguments = ['--ros-args', '-r', f'__ns:={self.namespace}']
        if part == 'widowx':
            command = [sys.executable, '-m', 'vgps_bringup.arm.widowx_node', *arguments]
            for name, value in self.parameters.items():
                command += ['-p', f'{name}:={value}']
        elif part == 'heartbeat':
            command = [sys.executable, '-m', 'vgps_bringup.arm.heartbeat_node', *arguments, '-p', 'arm:=simulated',
                       '-p', 'heartbeat_timeout:=0.45']
        else:
            command = [sys.executable, str(STAND_INS), part, *arguments]
        self.processes[part] = subprocess.Popen(command)

    def kill(self, part):
        """Kill -9 and return the time of it, on the clock that stamps messages."""
        process = self.processes.pop(part)
        process.send_signal(signal.SIGKILL)
        killed = time.time()
        process.wait()
        return killed

    def end(self, part):
        """Let a part end in good order: the others know at once that it is gone."""
        process = self.processes.pop(part)
        process.send_signal(signal.SIGINT)
        process.wait()

    def starved(self, since):
        """Return how long the machine did not run the controller since then: it reports every 0.1 s."""
        stamps = [stamp for stamp, _, _ in self.states if stamp >= since - 0.2]
        return sum(max(0.0, gap - 0.12) for gap in np.diff(stamps))

    def assert_no_command_after(self, killed):
        self.spin(0.5)
        assert self.joint_commands[-1][0] - killed < HOLDS_WITHIN + self.starved(killed)

    def held(self, since, *reasons):
        """Wait until the controller holds for one of the reasons; return when that was, less what it was starved."""
        def first():
            return next((stamp for stamp, state, reason in self.states
                         if stamp >= since and state == State.HOLDING and reason in reasons), None)
        self.wait_for(lambda s: first() is not None, f'HOLDING for {reasons}')
        return first() - self.starved(since)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def wait_for(self, condition, what, timeout=15.0):
        """Spin until `condition(state)`; return the time it took."""
        start = time.monotonic()
        while time.monotonic() - start < timeout:
            dead = [part for part, process in self.processes.items() if process.poll() is not None]
            assert not dead, f'{dead} died'
            if self.state is not None and condition(self.state):
                return time.monotonic() - start
            self.executor.spin_once(timeout_sec=0.01)
        shown = self.state and (State(self.state.state).name, Reason(self.state.reason).name, self.state.message)
        raise AssertionError(f'{what} did not happen within {timeout} s; the controller shows {shown}')

    def wait_for_state(self, state, reason=None, timeout=15.0):
        return self.wait_for(lambda s: s.state == state and (reason is None or s.reason == reason),
                             f'{state.name} {reason.name if reason is not None else ""}', timeout)

    def call(self, name, node='widowx_node'):
        """Call ~/stop, ~/home or ~/reset; return (time it took, response)."""
        client = self.node.create_client(Trigger, f'{node}/{name}')
        assert client.wait_for_service(timeout_sec=10.0)
        start = time.monotonic()
        future = client.call_async(Trigger.Request())
        self.executor.spin_until_future_complete(future, timeout_sec=5.0)
        self.node.destroy_client(client)
        assert future.done(), f'~/{name} did not answer'
        return time.monotonic() - start, future.result()

    def reset(self):
        """Bring the arm to its start pose with nothing running."""
        for _ in range(5):      # a busy machine may silence the stand-in driver for longer than the watchdog bears
            self.call('reset')
            self.spin(0.3)
            self.wait_for(lambda s: s.state != State.HOMING, 'the end of the move', timeout=STARTS_WITHIN)
            if self.state.state == State.READY:
                return
        raise AssertionError(f'no start pose: {self.state.message}')

    def alone(self):
        """Wait until nobody else publishes what moves the arm; DDS remembers a killed process for some 20 s."""
        self.wait_for(lambda s: all(self.node.count_publishers(topic) <= 1 for topic in (
            'command', 'candidates', 'episode')), 'one publisher each', timeout=STARTS_WITHIN)
        self.wait_for(lambda s: self.commands.get_subscription_count() > 0, 'discovery', timeout=STARTS_WITHIN)
        self.wait_for(lambda s: s.reason != Reason.TWO_PUBLISHERS, 'the controller to see one publisher')

    def is_away(self):
        return np.linalg.norm(np.subtract(np.reshape(self.state.target_pose, (4, 4))[:3, 3], [0.3, 0, 0.15])) > 0.03

    def announce(self, running=True):
        """Begin a new episode, or end the present one."""
        if running:
            self.counter += 1
            self.episode_id, self.step = f'episode-{self.counter}', -1
        outcome = Episode.RUNNING if running else Episode.FAILURE
        self.episodes.publish(Episode(episode_id=self.episode_id, outcome=outcome))

    def message(self, action=None, *, step=None, stamp=None, frame=BASE, kind=EndEffectorCommand.ACTION):
        self.step = self.step + 1 if step is None else step
        action = [0.01, 0, 0, 0, 0, 0, 1] if action is None else action
        message = EndEffectorCommand(episode_id=self.episode_id, step=self.step % 2**32, kind=kind,
                                     action=np.array(action, np.float64))
        stamp = time.time() if stamp is None else stamp
        message.header.stamp = Time(sec=int(stamp), nanosec=int(stamp % 1 * 1e9))
        message.header.frame_id = frame
        return message

    def send(self, *arguments, **names):
        """Send one command and return the verdict that came of it."""
        before = self.state.accepted + self.state.refused
        self.commands.publish(self.message(*arguments, **names))
        self.wait_for(lambda s: s.accepted + s.refused > before, 'a verdict')
        verdict = Reason(self.state.reason)
        self.wait_for(lambda s: s.state != State.MOVING, 'the end of the step')
        return verdict

    def assert_safe(self):
        """Every joint command since the last look: finite, within limits, no step above the limit.

        What one test finds is not found again in all that follow.
        """
        commands, self.checked = self.joint_commands[max(0, self.checked - 1):], len(self.joint_commands)
        joints = np.array([positions for _, positions, _ in commands]).reshape(-1, 6)
        assert np.isfinite(joints).all()
        assert (joints >= JOINT_LOWER).all()
        assert (joints <= JOINT_UPPER).all()
        assert np.abs(np.diff(joints, axis=0)).max(initial=0.0) <= 0.6 + 1e-9
        assert all(0.0 <= openness <= 1.0 for _, _, openness in commands)

    def forget(self):
        """What comes next follows nothing that was sent before."""
        self.joint_commands.clear()
        self.checked = 0

    def close(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()


@pytest.fixture(scope='module')
def running():
    bench = Bench(f'/faults_{os.getpid()}')
    try:
        bench.wait_for_state(State.READY, timeout=STARTS_WITHIN)
        bench.wait_for(lambda s: bench.commands.get_subscription_count() > 0, 'discovery')
        yield bench
    finally:
        bench.close()


@pytest.fixture
def bench(running):
    """A controller that is ready in its start pose, alone with its driver."""
    running.spin(0.2)
    running.alone()
    if running.state.state != State.READY or running.is_away():
        running.reset()
    running.announce()
    running.spin(0.1)
    yield running
    running.announce(running=False)
    for part in set(running.processes) - {'driver', 'camera', 'widowx'}:
        running.end(part)
    running.play_critic()
    running.alone()
    running.assert_safe()
