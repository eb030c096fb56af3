"""Every node killed and stopped, in mid-motion and on the way to the start pose, beside the simulated arm.

Minutes: ``pytest -m long test/system/test_killed_and_hung.py -s`` prints the table. One system lives through all of
it, as a robot's does: what is killed is started again and rejoins, what is stopped goes on. The time until the arm
holds is the arm's own: from the signal to the stamp of the last joint state in which a joint still turns.
"""

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy')
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vgps_bringup.system.episode_client import EpisodeClient, EpisodeError
from vgps_bringup.system.supervisor import Runner
from vgps_msgs.msg import ControllerState
from vgps_msgs_py import qos, stamps
from vgps_msgs_py.bags import Bag
from vgps_msgs_py.bags.writer import is_complete
from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason, Outcome

pytestmark = [pytest.mark.ros, pytest.mark.long, pytest.mark.timeout(3000)]

TURNS = 0.05        # rad/s: a joint that turns faster is on its way
HOLDS_WITHIN = 0.5  # s
PAUSED = 0.15       # s between two joint states: the machine itself stood still, and the figure says nothing
ATTEMPTS = 6
REJOINS_WITHIN = 240.0    # s: a critic that loads again on a busy machine
# What the arm says, by the node that is gone; None: nothing, it goes on
NAMED = {'policy_node': {Reason.POLICY_LOST, Reason.HOLD_REQUESTED}, 'critic_node': {Reason.CRITIC_LOST},
         'widowx_node': {Reason.CONTROLLER_LOST},
         'simulation_node': {Reason.STALE_JOINT_STATES, Reason.DRIVER_LOST, Reason.STALE_IMAGE},
         'heartbeat_node': None, 'recorder_node': None, 'decision_image_node': None}
ON_THE_WAY = {**NAMED, 'critic_node': None}    # no critic is needed to reach the start pose


class World:
    """The running system, and what the arm and its controller say."""

    def __init__(self, folder):
        arguments = {'namespace': f'killed_{os.getpid()}', 'output': str(folder), 'policy': 'random-policy',
                     'critic': 'untrained', 'k': '3', 'max_steps': '40'}
        self.lines, self.folder = [], folder
        self.runner = Runner('simulation', arguments, log=self.lines.append, quiet=True)
        self.runner.parts = [replace(part, required=False, must_start=False) for part in self.runner.parts]
        self.state, self.reasons, self.joints, self.result = None, [], [], None

    def __enter__(self):
        self.runner.__enter__()
        self.client = EpisodeClient(self.runner.arguments['namespace'])
        self.watcher = EpisodeClient(self.runner.arguments['namespace'])    # this thread's own node
        node, self.executor = self.watcher.node, self.watcher.executor
        node.create_subscription(ControllerState, 'controller_state', self.on_state, qos.EVENT)
        node.create_subscription(JointState, 'joint_states', self.on_joints, 100)
        self.reset_service = node.create_client(Trigger, 'widowx_node/reset')
        self.client.wait_until_ready(300.0, self.runner.why_not_ready)
        return self

    def __exit__(self, *_):
        self.runner.stop()
        self.client.close()
        self.watcher.close()

    def on_state(self, message):
        self.state = message
        self.reasons.append((time.time(), Reason(message.reason)))

    def on_joints(self, message):
        self.joints.append((stamps.seconds(message.header.stamp), np.abs(message.velocity[:6]).max()))
        del self.joints[:-2000]

    def until(self, condition, timeout, what):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f'{what} did not come\n' + '\n'.join(self.lines[-30:])
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, seconds + 10.0, 'the time')

    def episode(self, new_scene=True):
        """Ask for an episode in a thread; what came of it is `result`.

        A new scene puts the arm into its start pose; without one it goes there from where the last episode left it.
        """
        self.result = None

        def run():
            try:
                answer = self.client.run(instruction='put eggplant in basket',
                                         task='put_eggplant_in_basket' if new_scene else '', seed=1)
                self.result = f'{Outcome(answer.outcome).name}: {answer.message}'
            except EpisodeError as error:
                self.result = str(error)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def moving(self):
        return bool(self.joints) and time.time() - self.joints[-1][0] < 0.1 and self.joints[-1][1] > 4 * TURNS

    def in_phase(self, phase):
        wanted = State.HOMING if phase == 'homing' else State.MOVING
        return self.state is not None and self.state.state == wanted and self.moving() \
            and (phase == 'homing' or self.state.step >= 2)

    def recover(self):
        """Reset a stop as the operator would."""
        if self.state.state in (State.STOPPED, State.HOLDING) and self.reset_service.service_is_ready():
            self.reset_service.call_async(Trigger.Request())
            self.spin(2.0)
            self.until(lambda: self.state.state != State.HOMING, 30.0, 'the start pose')

    def works(self):
        """Return whether steps of a new episode are carried out."""
        self.recover()
        self.client.wait_until_ready(60.0)
        thread = self.episode()
        before = self.state.accepted
        self.until(lambda: not thread.is_alive() or self.state.accepted > before + 1
                   or (self.state.accepted < before and self.state.accepted > 1), 60.0, 'a step or a reason')
        worked = thread.is_alive() and self.state.state in (State.READY, State.MOVING)
        self.until(lambda: not thread.is_alive(), 120.0, "the episode's end")
        return worked or self.result.startswith('TIMEOUT')


def one(world, node, number, phase):
    """Do it once; return (s until the arm held, s between joint states at worst, reasons, what the client was told)."""
    thread = world.episode(new_scene=phase == 'motion')
    world.until(lambda: world.in_phase(phase) or not thread.is_alive(), 60.0, phase)
    if not thread.is_alive():    # a starved machine may disturb the reset: be the operator
        world.recover()
        return None
    child, began = world.runner.children[node], time.time()
    os.killpg(child.pid, number)
    world.spin(3.5)
    after = [(stamp - began, speed) for stamp, speed in world.joints if stamp >= began]
    gap = max(np.diff([0.0, *(stamp for stamp, _ in after)]), default=0.0)
    held = max((stamp for stamp, speed in after if speed > TURNS), default=0.0)
    said = {reason for at, reason in world.reasons if at >= began} - {Reason.ACCEPTED}
    if number == signal.SIGSTOP:
        os.killpg(child.pid, signal.SIGCONT)
    else:
        part = next(part for part in world.runner.parts if part.name == node)
        world.spin(1.0)
        if not part.respawn:
            world.runner._start(part)    # as the line in the log does
    world.until(lambda: not thread.is_alive(), 120.0, "the client's answer")
    answer = world.result
    end = time.monotonic() + REJOINS_WITHIN
    while not world.works():
        assert time.monotonic() < end, f'{node} does not rejoin: {world.result}\n' + '\n'.join(world.lines[-40:])
        world.spin(2.0)
    return held, gap, said, answer


def test_whatever_node_is_killed_or_hangs_the_arm_holds_by_name_and_the_node_rejoins(tmp_path):
    rows, wrong = [], []
    with World(tmp_path) as world:
        for node in os.environ.get('NODES', ' '.join(NAMED)).split():
            for phase in ('motion', 'homing'):
                for number in (signal.SIGKILL, signal.SIGSTOP):
                    expected = (ON_THE_WAY if phase == 'homing' else NAMED)[node]
                    for _ in range(ATTEMPTS):
                        found = one(world, node, number, phase)
                        if found is not None and (expected is None or found[1] < PAUSED or node == 'simulation_node'):
                            break
                    assert found is not None, f'no {phase} came: {world.result}'
                    held, gap, said, told = found
                    name = f'{node} {number.name} {phase}'
                    rows.append(f'| {node} | {number.name} | {phase} | '
                                f'{"goes on" if expected is None else f"{held:.2f} s"} | {gap:.2f} s | '
                                f'{", ".join(sorted(r.name for r in said)) or "-"} | {told} |')
                    print(rows[-1], flush=True)
                    if expected is not None and held > HOLDS_WITHIN and gap < PAUSED:
                        wrong.append(f'{name}: held after {held:.2f} s')
                    if expected is not None and not said & expected:
                        wrong.append(f'{name}: named {said}')
    bags = [Bag(path.parent) for path in sorted(tmp_path.glob('*/*.mcap'))]
    print(f'{len(bags)} bags, {sum(is_complete(bag.path) for bag in bags)} closed, '
          f'{sum(len(bag.episodes) for bag in bags)} episodes')
    assert bags and all(bag.counts for bag in bags)
    assert not wrong, '\n'.join(wrong)
