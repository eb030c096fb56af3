"""Hostile messages on every topic of the running nodes: what moves, what dies, what recovers.

    python -m vgps_bringup.benchmarks.fuzz --messages 100000

Two systems, one after the other. `arm`: widowx_node and heartbeat_node, and the fuzzer in the place of policy and
critic, so that its commands are obeyed where they may be. `system`: policy, critic, recorder and decision image as
well, and the fuzzer is the second publisher. A stand-in plays camera and driver. The phases are those of a day: idle,
an episode running, homing on the operator's call, stopped. Half of each has two hostile publishers per topic. The
driver's own `joint_command` is what is watched, nothing is thrown at it. Exit status 1 if anything was found.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Literal

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_UPPER
from vgps_bringup.arm.step_controller import StepControllerConfig
from vgps_bringup.benchmarks import hostile
from vgps_bringup.benchmarks.fuzz_findings import Findings, table
from vgps_bringup.system.episode_client import EpisodeClient, EpisodeError
from vgps_bringup.system.supervisor import Runner
from vgps_msgs.msg import ControllerState, EndEffectorCommand, Episode
from vgps_msgs.srv import JudgeEpisode, ResetForEpisode
from vgps_msgs_py import command_line, discovery
from vgps_msgs_py.node_main import CALLBACK_ERROR
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason

SYSTEMS = {'arm': ('widowx_node', 'heartbeat_node'),
           'system': ('recorder_node', 'widowx_node', 'heartbeat_node', 'critic_node', 'policy_node',
                      'decision_image_node')}
PHASES = ('idle', 'episode', 'homing', 'stopped')
BURST = 200             # messages on a few topics, then a few others
MOVED = 0.01            # rad between two commands that count as a motion where nothing may move
JOINT_STEP = StepControllerConfig().max_joint_step
RECOVERS_WITHIN = 90.0  # s, on a busy machine


class Fuzzer:
    """One system under fire; a context manager."""

    def __init__(self, name, seed):
        self.name, self.rng, self.namespace = name, np.random.default_rng(seed), f'fuzz_{name}_{os.getpid()}'
        self.folder = tempfile.TemporaryDirectory(prefix='vgps-fuzz-')
        arguments = {'namespace': self.namespace, 'policy': 'random-policy', 'critic': 'untrained', 'k': '3',
                     'max_steps': '8', 'output': self.folder.name}
        self.found = Findings()
        self.runner = Runner('simulation', arguments, log=self.hear, quiet=True)
        self.runner.parts = [part for part in self.runner.parts if part.name in SYSTEMS[name]]
        self.context = rclpy.Context()
        discovery.limit(os.environ)
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node('fuzzer', namespace=self.namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.state, self.last, self.watching = None, None, False
        self.episode_id, self.step, self.count = '', -1, 0
        # On a node and a thread of their own: between two commands that the judge missed there may be any distance.
        self.watcher = rclpy.create_node('fuzz_watcher', namespace=self.namespace, context=self.context)
        self.watcher.create_subscription(JointState, 'joint_command', self.on_joint_command, 10_000)
        self.watcher.create_subscription(ControllerState, 'controller_state', self.on_state, 100)
        self.watching_executor = SingleThreadedExecutor(context=self.context)
        self.watching_executor.add_node(self.watcher)
        self.watching_thread = threading.Thread(target=self.watching_executor.spin, daemon=True)
        self.clients, self.publishers = {}, {topic: [] for _, topic, _ in hostile.TOPICS}

    def __enter__(self):
        self.watching_thread.start()
        self.runner.__enter__()
        self.pids = {name: child.pid for name, child in self.runner.children.items()}
        self.stand_in = subprocess.Popen([sys.executable, '-m', 'vgps_bringup.benchmarks.command_latency', '--stand-in',
                                          '--ros-args', '-r', f'__ns:=/{self.namespace}'])
        self.until(lambda: self.state is not None and self.state.state == State.READY, 240.0, 'a controller that is '
                   'ready')
        return self

    def __exit__(self, *_):
        self.stand_in.terminate()
        self.stand_in.wait()
        self.runner.__exit__()
        for executor in (self.watching_executor, self.executor):
            executor.shutdown()
        self.watching_thread.join()
        for node in (self.watcher, self.node):
            node.destroy_node()
        rclpy.shutdown(context=self.context)
        self.folder.cleanup()

    # ---- what is watched ---------------------------------------------------------------------------------------

    def on_joint_command(self, message):
        """Hold every command against limits and step, and note motions where none may be."""
        values, self.found.commands = np.array(message.position), self.found.commands + 1
        joints, openness = values[:6], values[6:]
        good = len(values) == 7 and np.isfinite(values).all() and (joints >= JOINT_LOWER - 1e-9).all() \
            and (joints <= JOINT_UPPER + 1e-9).all() and 0.0 <= openness[0] <= 1.0
        step = 0.0 if self.last is None or not good else np.abs(joints - self.last).max()
        if not good or step > JOINT_STEP + 1e-9:
            self.found.outside += 1
            print(f'{self.name}: outside: {values} after {self.last}', file=sys.stderr)
        # by when it was sent: on a busy machine commands of before the stop are still waiting here
        sent = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        if self.watching and step > MOVED and sent >= self.watching_since:
            self.found.uncalled += 1
            print(f'{self.name}: motion of {step:.3f} rad that nobody called for', file=sys.stderr)
        self.last = joints if good else self.last

    def on_state(self, message):
        """Keep the controller's own state; the fuzzer throws others under this topic."""
        if message.header.frame_id == hostile.BASE:
            self.found.taken += 0 if self.state is None else max(0, message.accepted - self.state.accepted)
            self.state = message

    def hear(self, line):
        """Count errors in callbacks, and show ends; the system has a lot to say about each bad message."""
        self.found.errors += CALLBACK_ERROR in line
        if any(word in line for word in ('FATAL', 'Traceback', ' ended with ', ' was killed ', CALLBACK_ERROR)):
            print(line, file=sys.stderr)

    def look_for_deaths(self):
        """Note processes that ended, also those that were started again by themselves."""
        for name, child in self.runner.children.items():
            if child.pid != self.pids[name] or child.poll() is not None:
                self.found.deaths.append(f'{name} ({child.poll()})')
                self.pids[name] = child.pid
        if self.stand_in.poll() is not None or not self.watching_thread.is_alive():
            raise RuntimeError('the stand-in for camera and driver, or the watcher, died: this run proves nothing')

    def spin(self, seconds):
        """Let messages come in for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def until(self, condition, timeout, what):
        """Wait for a condition; raise TimeoutError."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f'{self.name}: {what} did not come within {timeout:.0f} s')
            self.spin(0.05)

    # ---- what is thrown ----------------------------------------------------------------------------------------

    def call(self, service, kind=Trigger, request=None, wait=True):
        """Call a service of the namespace as the operator would; return the answer or None."""
        if service not in self.clients:    # kept: to find a service takes longer than a hundred messages
            self.clients[service] = self.node.create_client(kind, service)
        client = self.clients[service]
        if not client.wait_for_service(timeout_sec=20.0):
            return None
        future = client.call_async(request or kind.Request())
        self.executor.spin_until_future_complete(future, timeout_sec=20.0 if wait else 0.05)
        return future.result() if future.done() else None

    def publish_from(self, count):
        """Have so many publishers on every topic; the arm's system needs one for its normal steps."""
        for kind, topic, profile in hostile.TOPICS:
            while len(self.publishers[topic]) > count:
                self.node.destroy_publisher(self.publishers[topic].pop())
            while len(self.publishers[topic]) < count:
                self.publishers[topic].append(self.node.create_publisher(kind, topic, profile))

    def announce(self, running=True):
        """Begin or end the fuzzer's own episode, in the place of policy_node."""
        if running:
            self.count, self.step = self.count + 1, -1
            self.episode_id = f'fuzz-{self.count}'
        self.publishers['episode'][0].publish(Episode(episode_id=self.episode_id, outcome=0 if running else 2))

    def good_command(self):
        """Return the next small step of the fuzzer's own episode."""
        self.step += 1
        now = time.time()
        command = EndEffectorCommand(episode_id=self.episode_id, step=self.step,
                                     action=np.array([self.rng.uniform(-0.01, 0.01), 0, 0, 0, 0, 0, 1.0]))
        command.header.stamp = Time(sec=int(now), nanosec=int(now % 1 * 1e9))
        command.header.frame_id = hostile.BASE
        return command

    def make(self, kind, topic, phase):
        """Return one hostile message, or bytes."""
        if self.rng.random() < 0.15:
            return hostile.garbage(kind, self.rng)
        message = hostile.message(kind, self.rng)
        if topic == 'controller_state':
            message.header.frame_id = 'fuzz'
        if kind is EndEffectorCommand and self.rng.random() < 0.5:    # all is right but what it asks for
            good, action = self.good_command(), message.action
            message = good
            message.action = action if self.rng.random() < 0.7 else good.action
            if self.rng.random() < 0.2:
                message.step = 2**32 - 1
        if topic == 'episode':
            if phase != 'episode' or self.rng.random() < 0.9:
                message.outcome = max(1, message.outcome)    # announced is what the fuzzer announces itself
            if self.rng.random() < 0.3:
                message.episode_id = self.episode_id
        return message

    def throw(self, phase, count):
        """Throw `count` messages at a few topics at a time."""
        for thrown in range(0, count, BURST):
            topics = [hostile.TOPICS[i] for i in self.rng.choice(len(hostile.TOPICS), 3, replace=False)]
            if phase == 'episode' and self.name == 'arm':
                self.announce()
            if phase == 'homing' and thrown % (5 * BURST) == 0:    # to and fro, or there would be no way to go
                self.call(f'widowx_node/{"home" if thrown % (10 * BURST) else "reset"}', wait=False)
            self.ask()
            for i in range(min(BURST, count - thrown)):
                kind, topic, _ = topics[self.rng.integers(len(topics))]
                publishers = self.publishers[topic]
                publishers[self.rng.integers(len(publishers))].publish(self.make(kind, topic, phase))
                self.found.thrown += 1
                if i % 10 == 0:
                    self.executor.spin_once(timeout_sec=0.002)
            self.look_for_deaths()

    def ask(self):
        """Ask for motion and for a verdict in the name of nobody's or an old goal."""
        request = ResetForEpisode.Request(stamp=hostile.stamp(self.rng), episode_id='')
        self.call('widowx_node/reset_for_episode', ResetForEpisode, request, wait=False)
        if self.name == 'system':
            request = JudgeEpisode.Request(episode_id=str(self.rng.choice(hostile.STRINGS)), failure='x' * 3000)
            self.call('judge_episode', JudgeEpisode, request, wait=False)

    # ---- a phase -----------------------------------------------------------------------------------------------

    def play(self, phase, count):
        """Bring the system into a phase, throw, and see whether it works afterwards; return Findings."""
        self.found = Findings()
        self.watching = False
        episodes, over = None, threading.Event()
        if phase == 'stopped':
            self.call('widowx_node/reset', wait=False)
            self.spin(0.5)
            self.call('widowx_node/stop')
        if phase == 'episode' and self.name == 'system':
            episodes = threading.Thread(target=self.run_episodes, args=(over,))
            episodes.start()
        self.spin(1.0)
        self.watching, self.watching_since = phase in ('idle', 'stopped'), time.time()
        for publishers in (1, 2):
            self.publish_from(publishers)
            self.throw(phase, count // 2)
        self.spin(1.0)
        if phase == 'stopped':
            self.publish_from(0)
            self.until(lambda: self.state.state == State.STOPPED, 20.0, 'the stop, still')
        self.watching = False
        if episodes is not None:
            over.set()
            episodes.join()
        self.recover()
        self.look_for_deaths()
        return self.found

    def run_episodes(self, over):
        """Ask for one episode after the other, in a thread: what comes of them under fire is not judged."""
        with EpisodeClient(self.namespace) as client:
            while not over.is_set():
                try:
                    client.run('put the object on the plate', max_steps=20)
                except EpisodeError:
                    over.wait(1.0)

    def recover(self):
        """Take the hostile publishers away and do something normal."""
        began = time.monotonic()
        self.publish_from(1 if self.name == 'arm' else 0)
        work = self.step_again if self.name == 'arm' else self.episode_again
        while time.monotonic() - began < RECOVERS_WITHIN:
            if self.state.state in (State.STOPPED, State.HOLDING):
                self.call('widowx_node/reset')
                self.spin(0.5)
            if self.state.state != State.HOMING and work():
                self.found.recovered = time.monotonic() - began
                return
            self.spin(1.0)

    def step_again(self):
        """Return whether a small step of a new episode is accepted."""
        self.spin(0.5)
        if self.state.state != State.READY:
            return False
        self.announce()
        self.spin(0.3)
        before = self.state.accepted
        self.publishers['command'][0].publish(self.good_command())
        self.spin(1.5)
        done = self.state.accepted > before
        self.announce(running=False)
        return done

    def episode_again(self):
        """Return whether an episode takes its steps."""
        try:
            with EpisodeClient(self.namespace) as client:
                client.wait_until_ready(30.0)
                result = client.run('put the object on the plate', max_steps=3)
        except EpisodeError as error:
            print(f'{self.name}: {error}', file=sys.stderr)
            return False
        if result.steps < 3:
            print(f'{self.name}: {result.steps} steps, {result.message}; arm: {Reason(self.state.reason).name} '
                  f'{self.state.message}', file=sys.stderr)
        return result.steps >= 3


def fuzz(messages, seed, systems=tuple(SYSTEMS)):
    """Return {(system, phase): Findings} of `messages` in all."""
    found = {}
    for name in systems:
        with Fuzzer(name, seed) as fuzzer:
            for phase in PHASES:
                found[name, phase] = fuzzer.play(phase, messages // len(systems) // len(PHASES))
    return found


def main(*, messages: int = 100_000, seed: int = 0, systems: tuple[Literal[tuple(SYSTEMS)], ...] = tuple(SYSTEMS)):
    """Print the table.

    Args:
        messages: how many in all, at least 1
        seed: of every choice; the timing is not repeated
        systems: what they are thrown at

    """
    began = time.monotonic()
    found = fuzz(messages, seed, systems)
    print(f'{sum(f.thrown for f in found.values())} messages in {(time.monotonic() - began) / 60:.0f} min, '
          f'load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n\n{table(found)}')
    sys.exit(0 if all(f.clean for f in found.values()) else 1)


if __name__ == '__main__':
    command_line.read(main, 'fuzz', description=__doc__)
