"""Recordings as labelled episodes: what counts, what is left out, and what an operator's takeover means."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_bags import K, Messages, episode_messages, write_bag
from small_world import record

from vgps_bringup.improvement import episodes
from vgps_bringup.improvement.episodes import find_bags, learnable, read, save_table
from vgps_bringup.improvement.pipeline import Recipe, improve
from vgps_bringup.improvement.registry import Registry
from vgps_critic import Critic
from vgps_msgs_py.bags.storage import BagError
from vgps_msgs_py.bags.writer import BagWriter

pytestmark = pytest.mark.slow

SUCCESS, FAILURE, TIMEOUT, CANCELLED = 1, 2, 3, 4


def test_judged_episodes_are_read_with_what_was_proposed_and_done(tmp_path):
    write_bag(tmp_path / 'runs' / 'a', outcome=SUCCESS)
    write_bag(tmp_path / 'runs' / 'b', outcome=TIMEOUT, episode_id='episode-2', seed=4)
    found = read(find_bags([tmp_path / 'runs']), 32, tmp_path / 'cache')
    assert [e.success for e in found.episodes] == [True, False]
    episode = found.episodes[0]
    assert episode.frames.shape == (8, 32, 32, 3) and episode.candidates.shape == (8, K, 7)
    assert episode.max_steps == 60 and found.judged_by == {'the operator'}
    rows = np.arange(8)
    np.testing.assert_allclose(episode.candidates[rows, episode.chosen][:5], episode.actions[:5])
    assert episode.chosen[5] == 0 and np.allclose(episode.chances[5], 1 / K)  # a fallback: the policy's own draw
    assert [bag['successes'] for bag in found.bags] == [1, 0]


def test_unjudged_episodes_and_recordings_given_twice_are_left_out_and_counted(tmp_path):
    bag = write_bag(tmp_path / 'runs' / 'a', outcome=CANCELLED)
    write_bag(tmp_path / 'runs' / 'cut', outcome=0, episode_id='cut')
    found = read(find_bags([bag, tmp_path / 'runs']), 32, tmp_path / 'cache')
    assert not found.episodes and not found.bags
    assert found.skipped == {'never judged: cancelled': 1, 'never judged: running': 1,
                             'the same recording was given twice': 1}


def test_an_episode_of_two_robots_or_of_a_camera_that_stood_still_teaches_nothing(tmp_path, monkeypatch):
    messages = Messages()
    writer = BagWriter(tmp_path / 'two', messages.types)
    for seed in (3, 4):  # other commands for the same steps of the same episode
        for topic, message, received in episode_messages(messages, seed=seed):
            writer.write(topic, messages.serialize(message), received)
    writer.close()
    found = read([tmp_path / 'two'], 32, tmp_path / 'cache')
    assert not found.episodes and any('two different' in reason for reason in found.skipped)
    one = write_bag(tmp_path / 'one')
    assert len(read([one], 32, tmp_path / 'cache').episodes) == 1
    monkeypatch.setattr(episodes, 'resize', lambda image, size: np.zeros((size, size, 3), np.uint8))
    moving = iter(np.linspace(0, 20, 1000))
    monkeypatch.setattr(episodes, 'measured_state', lambda pose, openness: np.full(7, next(moving), np.float32))
    still = read([one], 16, tmp_path / 'cache')  # of another size: not what was kept
    assert not still.episodes and any('the camera stood still' in reason for reason in still.skipped)


def test_what_was_read_once_is_not_read_again_and_a_changed_recording_is(tmp_path):
    write_bag(tmp_path / 'runs' / 'a')
    first = read(find_bags([tmp_path / 'runs']), 32, tmp_path / 'cache')
    kept = list((tmp_path / 'cache').iterdir())
    again = read(find_bags([tmp_path / 'runs']), 32, tmp_path / 'cache')
    assert list((tmp_path / 'cache').iterdir()) == kept
    np.testing.assert_array_equal(first.episodes[0].frames, again.episodes[0].frames)
    write_bag(tmp_path / 'other' / 'a', seed=9)
    read(find_bags([tmp_path / 'other']), 32, tmp_path / 'cache')
    assert len(list((tmp_path / 'cache').iterdir())) == 2


def test_a_folder_without_recordings_is_refused_by_name(tmp_path):
    with pytest.raises(BagError, match='holds no recording'):
        find_bags([tmp_path])


def test_what_came_before_a_takeover_counts_as_a_failure_of_the_policy_and_the_rest_by_the_outcome():
    episode = replace(record(0, count=1)[0][0], success=True)
    corrected = np.zeros(len(episode), bool)
    corrected[25:28] = True
    before, after = learnable([replace(episode, corrected=corrected)])
    assert (len(before), before.success) == (25, False)
    assert (len(after), after.success) == (15, True)
    np.testing.assert_array_equal(after.actions, episode.actions[25:])
    assert learnable([episode])[0].name == episode.name


def test_a_takeover_in_the_first_step_leaves_one_piece():
    episode = record(0, count=1)[0][0]
    corrected = np.zeros(len(episode), bool)
    corrected[0] = True
    piece, = learnable([replace(episode, corrected=corrected)])
    assert len(piece) == len(episode)


def test_the_table_is_what_training_reads(tmp_path):
    data = pytest.importorskip('vgps_training.data.table')
    episodes = record(0, count=3)[0]
    save_table(tmp_path / 'table', episodes)
    table, report = data.read_table([tmp_path / 'table'], 4)
    assert report.episodes == 3 and table.states.shape == (len(table), 7)
    np.testing.assert_array_equal(table.actions, np.concatenate([e.actions for e in episodes]))
    assert table.success.tolist() == [e.success for e in episodes]


def test_three_episodes_are_refused_before_anything_is_trained(tmp_path):
    Critic.untrained(num_filters=4, image_size=64).save(tmp_path / 'start')
    for number in range(3):
        write_bag(tmp_path / 'runs' / str(number), episode_id=f'e{number}', outcome=SUCCESS if number else FAILURE,
                  seed=number)
    outcome = improve([tmp_path / 'runs'], Registry(tmp_path / 'critics'), Recipe(str(tmp_path / 'start')),
                      tmp_path / 'work', say=lambda _: None)
    assert any(reason.startswith('TOO_FEW_EPISODES: 3 judged') for reason in outcome.verdict.reasons)
    assert outcome.critic is None and not list(outcome.folder.iterdir())
