"""Episodes out of recordings: frames by stamp, outcomes, several episodes per bag, damage reported."""
from types import SimpleNamespace

import numpy as np
import pytest
from bag_factory import BagFactory
from rosbags.rosbag2 import StoragePlugin

from vgps_msgs_py.bags.reader import Bag
from vgps_training.data.bags import read
from vgps_training.data.episode import Episode, Malformed
from vgps_training.data.sources import read_episodes


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize('late', [False, True])
def test_two_episodes_of_one_bag_come_back_frame_by_frame(tmp_path, storage, late):
    bag = BagFactory(tmp_path / 'bag', storage)
    written = [bag.whole_episode('a', 'put the carrot on the plate', 1, seed=1, late_images=late),
               bag.whole_episode('b', 'put the eggplant in the basket', 3, seed=2, late_images=late)]
    bag.close()
    episodes = list(read_episodes(tmp_path))
    assert [e.success for e in episodes] == [True, False]
    assert [e.instruction for e in episodes] == ['put the carrot on the plate', 'put the eggplant in the basket']
    for episode, (images, actions) in zip(episodes, written):
        np.testing.assert_array_equal(np.stack(episode.frames), images)
        np.testing.assert_allclose(episode.actions, actions)


def test_outcome_nobody_judged_is_unknown(tmp_path):
    bag = BagFactory(tmp_path / 'bag')
    bag.whole_episode('cancelled', 'x', 4)
    bag.whole_episode('cut off', 'x', 0)
    bag.close()
    assert [e.success for e in read_episodes(tmp_path)] == [None, None]


def test_states_of_several_arms_or_of_long_ago_are_left_out(tmp_path, monkeypatch):
    bag = BagFactory(tmp_path / 'bag')
    bag.whole_episode('e', 'x', 1)
    bag.close()
    message = SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=1)),
                              measured_pose=np.eye(4).ravel(), gripper_position=0.5,
                              episode_id='', step=0, state=0, reason=0, refused=0)
    for topics, second, known in ((['/a/controller_state'], 1, True), (['/a/controller_state'], 0, False),
                                  (['/a/controller_state', '/b/controller_state'], 1, False)):
        message.header.stamp.sec = second
        monkeypatch.setattr(Bag, 'of_type', lambda self, name, topics=topics, whole=Bag.of_type: (
            [(0, message, topic) for topic in topics] if name == 'ControllerState' else whole(self, name)))
        (episode,) = read(tmp_path / 'bag')
        monkeypatch.undo()
        assert (episode.states is not None) == known
        assert any('no state of the second before' in note for note in episode.notes) == (second == 0)


def test_hold_is_no_action(tmp_path):
    bag = BagFactory(tmp_path / 'bag')
    bag.whole_episode('a', 'x', 1, steps=4)
    bag.command(123, 'a', 9, np.zeros(7), kind=1)
    bag.close()
    (episode,) = read_episodes(tmp_path)
    assert len(episode.actions) == 4


def test_missing_frame_is_reported_not_guessed(tmp_path):
    bag = BagFactory(tmp_path / 'bag')
    bag.whole_episode('a', 'x', 1)
    bag.command(5, 'a', 99, np.zeros(7))
    bag.whole_episode('b', 'x', 1)
    bag.close()
    first, second = read_episodes(tmp_path)
    assert isinstance(first, Malformed) and 'frame of a command' in first.reason
    assert isinstance(second, Episode)


def test_damaged_recording_does_not_stop_the_others(tmp_path):
    for name in ('a', 'b'):
        bag = BagFactory(tmp_path / name)
        bag.whole_episode(name, 'x', 1)
        bag.close()
    (broken,) = (tmp_path / 'a').glob('*.mcap')
    broken.write_bytes(broken.read_bytes()[:300])
    first, second = read_episodes(tmp_path)
    assert isinstance(first, Malformed) and isinstance(second, Episode)


@pytest.mark.parametrize('steps, kept, note', [
    ((0, 1, 5, 6, 7), (5, 6, 7), 'from step 2 to 4: the 2 steps before are left out'),
    ((0, 2, 3, 6, 7), (6, 7), 'from step 4 to 5: the 3 steps before are left out'), ((3, 4, 5), (3, 4, 5), None)])
def test_nothing_leads_across_commands_that_the_recording_lost(tmp_path, steps, kept, note):
    bag = BagFactory(tmp_path / 'bag')
    bag.episode('a', 'x', 0)
    for step in steps:
        stamp = bag.now + 10**9
        bag.image(stamp, np.full((8, 8, 3), step, np.uint8))
        bag.command(stamp, 'a', step, [0.001 * step, 0, 0, 0, 0, 0, 1])
    bag.episode('a', 'x', 1)
    bag.close()
    (episode,) = read_episodes(tmp_path)
    np.testing.assert_allclose(episode.actions[:, 0], 0.001 * np.array(kept), rtol=1e-6)
    assert [int(frame[0, 0, 0]) for frame in episode.frames] == list(kept)
    assert (note in episode.notes[-1]) if note else not episode.notes


def test_a_step_in_which_the_arm_was_held_is_no_gap(tmp_path):
    bag = BagFactory(tmp_path / 'bag')
    bag.episode('a', 'x', 0)
    for step in range(5):
        stamp = bag.now + 10**9
        bag.image(stamp, np.full((8, 8, 3), step, np.uint8))
        bag.command(stamp, 'a', step, [0.01, 0, 0, 0, 0, 0, 1], kind=int(step == 2))
    bag.episode('a', 'x', 1)
    bag.close()
    (episode,) = read_episodes(tmp_path)
    assert [int(frame[0, 0, 0]) for frame in episode.frames] == [0, 1, 3, 4] and not episode.notes


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_recording_that_lost_its_metadata_is_found_and_one_beside_folders_hides_none(tmp_path, storage):
    for name in ('a', 'b'):
        bag = BagFactory(tmp_path / 'all' / name, storage)
        bag.whole_episode(name, 'x', 1, steps=4)
        bag.close()
    (tmp_path / 'all/a/metadata.yaml').unlink()
    (tmp_path / 'all/stray.mcap').write_bytes(b'')
    found = list(read_episodes(tmp_path / 'all'))
    assert [len(e.actions) for e in found] == [4, 4] and 'metadata.yaml is missing' in found[0].notes[0]
