"""Recordings that this project did not make: steps of exactly 0.2 s whatever the rate, cut where they are not whole."""

from importlib.metadata import entry_points
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_bags import Messages, topic

from vgps_bringup.arm.kinematics import JOINT_NAMES, Kinematics
from vgps_bringup.rejudging.foreign import done_actions, proposal_curves, value_curve
from vgps_bringup.rejudging.rejudge import Rejudge
from vgps_bringup.rejudging.report import judge_bags, write
from vgps_msgs_py.bags import teleoperation
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.bags.writer import BagWriter
from vgps_policy_bridge.policies.random_policy import RandomPolicy
from vgps_policy_bridge.policy import Candidates

pytestmark = pytest.mark.slow

START, SECOND = 1_700_000_000_000_000_000, 1_000_000_000
NEUTRAL = np.array([0.0, -0.3, 0.3, 0.0, 1.5, 0.0])
FINGERS = 0.0225  # half open


class Cell:
    """A recording of an arm and a camera, whose frame n is grey level n."""

    def __init__(self, folder):
        self.messages, self.writer, self.frames = Messages(), BagWriter(folder), 0
        self.folder = folder

    def joints(self, stamp, positions, name='wx250s', received=None, finger=FINGERS):
        names = [*JOINT_NAMES, 'gripper'] + (['left_finger', 'right_finger'] if finger is not None else [])
        values = np.array([*positions, 0.0] + ([finger, -finger] if finger is not None else []), np.float64)
        self._send(f'{name}/joint_states', self.messages.make(
            'sensor_msgs/msg/JointState', header=self.messages.header(stamp), name=names, position=values),
            stamp if received is None else received)

    def frame(self, stamp, name='camera', received=None, level=None):
        pixels = np.full((16, 16, 3), self.frames % 256 if level is None else level, np.uint8)
        self.frames += 1
        self._send(f'{name}/image_raw', self.messages.make(
            'sensor_msgs/msg/Image', header=self.messages.header(stamp), height=16, width=16, encoding='rgb8', step=48,
            data=pixels.ravel()), stamp if received is None else received)

    def _send(self, name, message, received):
        self.writer.write(topic(name, message.__msgtype__), self.messages.serialize(message), received)

    def turn(self, seconds, rate, speed=0.15, camera_rate=10, begin=START):
        """Record the waist turning at a constant speed [rad/s]."""
        events = [(begin + round(i * SECOND / rate), i / rate) for i in range(round(seconds * rate))]
        pictures = [begin + round(i * SECOND / camera_rate) for i in range(round(seconds * camera_rate))]
        for stamp in pictures:
            self.frame(stamp)
        for stamp, time in events:
            self.joints(stamp, NEUTRAL + [speed * time, 0, 0, 0, 0, 0])

    def read(self):
        self.writer.close()
        return Bag(self.folder)


@pytest.fixture
def cell(tmp_path):
    return Cell(tmp_path / 'bag')


def summary(bag, **options):
    motions = done_actions(bag, **options)
    return (len(motions), np.array([m.action for m in motions]), np.diff([m.time for m in motions]) / SECOND)


@pytest.mark.parametrize('rate', [5, 7, 12.5, 30, 50, 100, 333])
def test_joint_states_at_any_rate_give_steps_of_exactly_a_fifth_of_a_second(cell, rate):
    cell.turn(8, rate)
    count, actions, periods = summary(cell.read())
    assert 38 <= count <= 39 and set(periods) == {0.2}
    np.testing.assert_allclose(actions[:, 5], 0.03, atol=1e-6)
    radius = np.linalg.norm(Kinematics().forward(NEUTRAL)[:2, 3])
    np.testing.assert_allclose(np.linalg.norm(actions[:, :2], axis=1), 2 * radius * np.sin(0.015), atol=1e-6)
    np.testing.assert_allclose(actions[:, 6], 0.5, atol=1e-6)


def test_steps_lead_from_the_first_pose_to_the_last(cell):
    cell.turn(4, 20)
    motions = done_actions(cell.read())
    pose, kinematics = Kinematics().forward(NEUTRAL), Kinematics()
    for motion in motions:
        np.testing.assert_allclose(motion.pose, pose, atol=1e-6)
        turn = np.eye(3)
        turn[:2, :2] = [[np.cos(motion.action[5]), -np.sin(motion.action[5])],
                        [np.sin(motion.action[5]), np.cos(motion.action[5])]]
        pose[:3, 3] += motion.action[:3]
        pose[:3, :3] = turn @ pose[:3, :3]
    np.testing.assert_allclose(pose, kinematics.forward(NEUTRAL + [0.15 * 3.8, 0, 0, 0, 0, 0]), atol=1e-5)


def test_readings_below_four_a_second_are_refused(cell):
    cell.turn(8, 2)
    with pytest.raises(BagError, match=r'every 0\.50 s'):
        done_actions(cell.read())


def test_several_arms_need_a_choice_and_get_the_one_that_was_named(cell):
    cell.turn(4, 20)
    for i in range(80):
        cell.joints(START + i * SECOND // 20, NEUTRAL + 0.5, 'leader')
    bag = cell.read()
    with pytest.raises(BagError, match=r'--joint-topic.*/vgps/leader/joint_states, /vgps/wx250s/joint_states'):
        done_actions(bag)
    np.testing.assert_allclose(summary(bag, joints='wx250s')[1][:, 5], 0.03, atol=1e-6)
    np.testing.assert_allclose(summary(bag, joints='/vgps/leader/joint_states')[1][:, :6], 0, atol=1e-6)
    with pytest.raises(BagError, match='no joint states middle'):
        done_actions(bag, joints='middle')


def test_an_arm_without_fingers_does_not_pass_for_an_open_gripper(cell):
    for i in range(40):
        cell.joints(START + i * SECOND // 20, NEUTRAL, finger=None)
        cell.frame(START + i * SECOND // 20)
    with pytest.raises(BagError, match='left_finger'):
        done_actions(cell.read())


@pytest.mark.parametrize('back', [0.7, 3.0])
def test_a_clock_that_is_set_back_cuts_and_each_action_keeps_the_frame_it_followed(cell, back):
    for i in range(120):  # 6 s; the clock goes back after 2.5 s
        real = START + i * SECOND // 20
        stamp = real if i < 50 else real - round(back * SECOND)
        cell.joints(stamp, NEUTRAL + [0.0075 * i, 0, 0, 0, 0, 0], received=real)
        cell.frame(stamp, received=real + 1, level=i)
    bag = cell.read()
    motions = done_actions(bag)
    assert any(problem.startswith('times the stamps went back, by') for problem in bag.problems)
    np.testing.assert_allclose([m.action[5] for m in motions], 0.03, atol=1e-6)
    assert len(motions) == 12 + 17
    level = {f.arrival: int(f.image()[0, 0, 0]) for f in bag.frames()}
    steps = [4 * i for i in range(12)] + [50 + 4 * i for i in range(17)]
    assert [level[m.arrival] for m in motions] == steps


def test_zero_readings_stamps_of_zero_and_jumps_are_left_out_and_counted(cell):
    for i in range(100):
        stamp = START + i * SECOND // 20
        where = NEUTRAL + [0.0075 * i + (2.5 if i >= 60 else 0), 0, 0, 0, 0, 0]
        cell.joints(0 if i in (20, 21) else stamp, np.full(6, -np.pi if i == 34 else 0) if i in (33, 34, 35) else where)
        cell.frame(0 if i == 50 else stamp)
    bag = cell.read()
    _, actions, _ = summary(bag)
    np.testing.assert_allclose(actions[:, 5], 0.03, atol=1e-6)
    text = '; '.join(bag.problems)
    for part in ('stamped 0: 2', 'all joints have the same value: 3', 'jumps of a joint: 1', 'frames stamped 0: 1'):
        assert part in text, text


def test_a_gap_is_not_filled_and_a_step_without_a_recent_frame_is_no_step(cell):
    cell.turn(3, 20)
    cell.turn(3, 20, begin=START + 5 * SECOND)
    for i in range(60):
        cell.joints(START + 10 * SECOND + i * SECOND // 20, NEUTRAL)  # the camera is off
    bag = cell.read()
    motions = done_actions(bag)
    assert {m.part for m in motions} == {0, 1} and len(motions) in (28, 29)
    assert any('gaps in the joint states: 2' in p for p in bag.problems)
    assert any('steps without a camera frame' in p for p in bag.problems)


def command(cell, stamp, action, kind=0):
    cell._send('command', cell.messages.make('vgps_msgs/msg/EndEffectorCommand', header=cell.messages.header(stamp),
                                             kind=kind, action=np.array(action, np.float64)), stamp)


def test_fast_commands_are_put_together_and_those_of_one_step_stay_as_they_are(cell, tmp_path):
    for i in range(100):  # 20 a second
        command(cell, START + i * SECOND // 20, [0.002, 0, -0.001, 0, 0, 0.01, i % 2])
        cell.frame(START + i * SECOND // 20)
    count, actions, periods = summary(cell.read())
    assert count == 25 and set(periods) == {0.2}
    np.testing.assert_allclose(actions, np.tile([0.008, 0, -0.004, 0, 0, 0.04, 1], (25, 1)), atol=1e-7)
    slow = Cell(tmp_path / 'slow')
    for i in range(9):
        command(slow, START + i * SECOND // 4, [0.01, 0, 0, 0, 0, 0, 1])
        slow.frame(START + i * SECOND // 4)
    assert summary(slow.read())[0] == 9


def test_rotations_of_fast_commands_are_composed_not_added():
    quarter = np.array([0, 0, 0, 0, np.pi / 2, 0, 1])
    turned = teleoperation._turns([quarter, np.array([0, 0, 0, 0, 0, np.pi / 2, 1])])
    np.testing.assert_allclose(turned @ [0, 0, 1], [0, 1, 0], atol=1e-12)  # to x, then to y


def test_the_arm_is_found_by_name_where_the_training_project_looks_for_it():
    found = {entry.name: entry.load() for entry in entry_points(group='vgps.arms')}
    assert found['wx250s'] is Kinematics and found['wx250s'].joint_names == JOINT_NAMES


def test_a_broken_frame_costs_its_point_of_the_value_curve(cell):
    class Critic:
        def encode(self, image, instruction):
            return image

        def score(self, encoded, actions):
            return np.full((2, len(actions)), float(encoded[0, 0, 0]))

    cell.turn(4, 20, camera_rate=5)
    bag = cell.read()
    data = bytearray(next(bag.path.glob('*.mcap')).read_bytes())
    assert data
    whole = value_curve(bag, Critic(), 'go')
    frames = type(bag).frames

    def spoiled(self, *arguments, **options):
        for number, frame in enumerate(frames(self, *arguments, **options)):
            yield frame if number != 5 else type(frame)(frame.stamp, frame.received, frame.type, frame.data[:60],
                                                        frame.types, frame.arrival)

    bag.frames = spoiled.__get__(bag)
    assert len(value_curve(bag, Critic(), 'go')) == len(whole) - 1
    assert any('1 camera frames cannot be decoded' in problem for problem in bag.problems)


def test_a_recording_of_images_alone_gets_a_curve_of_a_policy_s_best_proposals(tmp_path):
    from vgps_critic.critic import Critic
    critics, words = {'a': Critic.untrained(num_filters=8, image_size=64)}, 'put the eggplant in the basket'
    cell = Cell(tmp_path / 'images')
    for number in range(25):  # two seconds and a half at 10 Hz
        cell.frame(START + number * SECOND // 10)
    cell.writer.close()
    with pytest.raises(BagError, match='--policy NAME --k 10 to score'):
        judge_bags([tmp_path / 'images'], Rejudge(critics), words)
    found = judge_bags([tmp_path / 'images'], Rejudge(critics, (4,), policy=RandomPolicy()), words)
    points = found.curves['images, a, best of 4 proposals']
    assert [round(p.seconds, 1) for p in points] == [round(0.2 * i, 1) for i in range(13)]
    assert all(np.isfinite(p.value) for p in points)
    write(found, tmp_path / 'report')
    assert 'Value along recordings without candidates' in (tmp_path / 'report/index.html').read_text()
    google = SimpleNamespace(reset=lambda *_: None, propose=lambda observation, k: Candidates(
        np.zeros((k, 1, 7)), policy='p', statistics='fractal20220817_data'))
    with pytest.raises(BagError, match="proposals from images alone: policy 'p': its actions are the Google Robot's"):
        proposal_curves(Bag(tmp_path / 'images'), critics, google, 4, words)
