"""The scripted expert succeeds unless told to err; its recordings are what the readers of live recordings read."""

import dataclasses
import shutil
import threading

import numpy as np
import pytest
import yaml

from vgps_bringup.simulation import TASKS, collect
from vgps_bringup.simulation.collect import CollectConfig, run_episode
from vgps_bringup.simulation.demonstrator import NO_ERRORS, Demonstrator, DemonstratorConfig
from vgps_bringup.simulation.environment import LockstepEnvironment
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.vocabulary import ControllerReason as Reason

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('task', TASKS)
def test_expert_without_errors_always_succeeds(task):
    environment = LockstepEnvironment(task, None)
    outcomes = [run_episode(environment, Demonstrator(NO_ERRORS), seed, 40) for seed in range(4)]
    assert all(success for success, _, _ in outcomes)
    assert 24 <= np.mean([steps for _, _, steps in outcomes]) <= 29


@pytest.mark.parametrize('task', TASKS)
def test_about_half_of_the_demonstrations_with_errors_succeed_and_fail_in_several_ways(task):
    environment = LockstepEnvironment(task, None)
    outcomes = [run_episode(environment, Demonstrator(), seed, 40) for seed in range(20)]
    assert 0.15 < np.mean([success for success, _, _ in outcomes]) < 0.85
    assert len({failure for _, failure, _ in outcomes} - {''}) >= 2


def test_same_seed_gives_the_same_demonstration():
    environment = LockstepEnvironment('put_carrot_on_plate', None)
    actions = []
    for _ in range(2):
        environment.reset(7)
        demonstrator = Demonstrator(DemonstratorConfig())
        demonstrator.reset(environment.robot, 7)
        played = []
        for _ in range(12):
            played.append(demonstrator.act(environment.robot, environment.controller.target_pose))
            environment.step(played[-1])
        actions.append(np.array(played))
    np.testing.assert_array_equal(*actions)


def test_a_refused_action_lets_time_pass_and_nothing_move():
    environment = LockstepEnvironment('put_carrot_on_plate', None)
    before = environment.reset(0)
    after, result, _ = environment.step(np.array([np.nan, 0, 0, 0, 0, 0, 1]))
    assert not result.accepted and result.reason is Reason.NOT_FINITE
    assert after.stamp == pytest.approx(before.stamp + 0.2, abs=0.005)
    np.testing.assert_allclose(after.state, before.state, atol=0.002)


def test_an_action_moves_the_gripper_by_what_it_says():
    environment = LockstepEnvironment('put_carrot_on_plate', None)
    before = environment.reset(0)
    environment.step(np.array([0.02, -0.03, 0.01, 0.0, 0.0, 0.1, 1.0]))
    after, *_ = environment.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]))
    np.testing.assert_allclose(after.state[:6] - before.state[:6], [0.02, -0.03, 0.01, 0.0, 0.0, 0.1], atol=0.003)


@pytest.fixture
def made(monkeypatch):
    """Recordings that are only said to be made, in order."""
    made = []

    def record(config, name, task, seeds):
        made.append((name, seeds))
        (config.output / name).mkdir()
        (config.output / name / 'collection.yaml').write_text(yaml.safe_dump({'outcomes': {'success': len(seeds)}}))

    monkeypatch.setattr(collect, 'record_bag', record)
    return made


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    config = CollectConfig(output=tmp_path_factory.mktemp('demonstrations'), tasks=('put_carrot_on_plate',),
                           episodes=4, episodes_per_bag=2, image_size=32, renderer='rays')
    return config, collect.collect(config)


def test_recordings_read_like_live_ones(recorded):
    config, totals = recorded
    assert sum(totals['put_carrot_on_plate'].values()) == 4
    bags = [Bag(config.output / f'put_carrot_on_plate_{n:04d}') for n in range(2)]
    episodes = [episode for bag in bags for episode in bag.episodes]
    assert [e.seed for e in episodes] == [1_000_000, 1_000_001, 1_000_002, 1_000_003]
    assert sum(e.outcome == 'success' for e in episodes) == totals['put_carrot_on_plate']['success']
    assert all(bag.problems == [] for bag in bags)
    environment = LockstepEnvironment('put_carrot_on_plate', (32, 32), 'rays',
                                      looks=collect.LOOKS[config.looks])
    episode, demonstrator = episodes[0], Demonstrator(config.demonstrator)
    frames = {frame.stamp: frame for frame in bags[0].frames()}
    observation = environment.reset(episode.seed)
    demonstrator.reset(environment.robot, episode.seed)
    for step in episode.steps:  # every frame and every action is the one that this seed means
        np.testing.assert_array_equal(frames[step.stamp].image(), observation.image)
        action = demonstrator.act(environment.robot, environment.controller.target_pose)
        np.testing.assert_array_equal(step.command.action, action)
        assert step.started.instruction == 'put carrot on plate'
        observation, result, _ = environment.step(action)
        np.testing.assert_allclose(step.states[0].target_pose, result.target_pose.ravel())
    assert len(episode.task_states) == len(episode.steps) + 1


def test_an_interrupted_collection_goes_on_where_it_stopped(recorded, monkeypatch):
    config, totals = recorded
    kept = (config.output / 'put_carrot_on_plate_0000' / 'collection.yaml').stat().st_mtime_ns
    gone = config.output / 'put_carrot_on_plate_0001'
    outcomes = yaml.safe_load((gone / 'collection.yaml').read_text())['outcomes']
    gone.rename(gone.with_name('.away'))
    made = []
    original = collect.record_bag
    monkeypatch.setattr(collect, 'record_bag', lambda c, *bag: (made.append(bag[0]), original(c, *bag)))
    assert collect.collect(config) == totals
    assert made == ['put_carrot_on_plate_0001']
    assert yaml.safe_load((gone / 'collection.yaml').read_text())['outcomes'] == outcomes
    assert (config.output / 'put_carrot_on_plate_0000' / 'collection.yaml').stat().st_mtime_ns == kept


def test_shards_of_a_job_array_share_a_folder(tmp_path, made):
    whole = CollectConfig(output=tmp_path / 'shared', episodes=7, episodes_per_bag=2)
    totals = [collect.collect(dataclasses.replace(whole, shard=f'{i}/3')) for i in range(3)]
    assert sorted(name for name, _ in made) == sorted(bag[0] for bag in whole.bags()) and len(made) == 8
    assert sum(total[task]['success'] for total in totals for task in whole.tasks) == 14
    assert collect.collect(whole)['put_carrot_on_plate'] == {'success': 7} and len(made) == 8
    with pytest.raises(ValueError, match='i/n'):
        dataclasses.replace(whole, shard='3/3')


@pytest.mark.parametrize('change, told', [
    ({'max_steps': 50}, 'max_steps is 40 there and 50 here '), ({'episodes': 2}, 'episodes is 4 there and 2 here '),
    ({'episodes': 6, 'looks': 'plain'}, 'episodes is 4 there and 6 here; looks is varied there and plain here '),
    ({'tasks': tuple(TASKS), 'episodes': 6}, "tasks is .'put_carrot_on_plate'. there and "),
    ({'episodes': 6, 'episodes_per_bag': 3}, 'episodes_per_bag is 2 there and 3 here '),
    ({'first_seed': 5}, 'first_seed is 1000000 there and 5 here '),
    ({'demonstrator': NO_ERRORS}, 'demonstrator[.]')])
def test_recordings_of_another_configuration_are_not_mixed_and_the_difference_is_named(recorded, made, change, told):
    config, _ = recorded
    before = (config.output / 'collection.yaml').read_text()
    with pytest.raises(ValueError, match=f'another configuration: .*{told}'):
        collect.collect(dataclasses.replace(config, **change))
    assert (config.output / 'collection.yaml').read_text() == before and not made


def test_more_episodes_are_the_missing_recordings_of_the_larger_collection(tmp_path, made):
    small = CollectConfig(output=tmp_path / 'grown', episodes=4, episodes_per_bag=2)
    large = dataclasses.replace(small, episodes=7)
    collect.collect(small)
    before = len(made)
    assert collect.collect(large)['put_carrot_on_plate'] == {'success': 7}
    assert made[before:] == [(name, seeds) for name, _, seeds in large.bags() if name[-1] in '23']
    collect.collect(dataclasses.replace(large, output=tmp_path / 'at once'))
    assert sorted(made[:8]) == sorted(made[8:]), 'as if it had been the larger one from the beginning'
    assert [(tmp_path / folder / 'collection.yaml').read_bytes() for folder in ('grown', 'at once')] == 2 * [
        (tmp_path / 'grown' / 'collection.yaml').read_bytes()]
    with pytest.raises(ValueError, match='episodes is 7 there and 4 here'):
        collect.collect(small)


def test_a_recording_that_would_have_to_be_longer_is_named_and_nothing_changes(tmp_path, made):
    small = CollectConfig(output=tmp_path, tasks=('put_carrot_on_plate',), episodes=3, episodes_per_bag=2)
    large = dataclasses.replace(small, episodes=6)
    collect.collect(small)
    before, last = (tmp_path / 'collection.yaml').read_text(), tmp_path / 'put_carrot_on_plate_0001'
    with pytest.raises(ValueError, match='put_carrot_on_plate_0001 holds 1 of 2 episodes: remove it'):
        collect.collect(large)
    assert (tmp_path / 'collection.yaml').read_text() == before and len(made) == 2
    last.rename(tmp_path / 'away')
    assert collect.collect(large)['put_carrot_on_plate'] == {'success': 6} and len(made) == 4


def test_a_shorter_recording_that_another_shard_finishes_late_is_named(tmp_path, made, monkeypatch):
    config = CollectConfig(output=tmp_path, tasks=('put_carrot_on_plate',), episodes=6, episodes_per_bag=2)
    record, (_, second, third) = collect.record_bag, config.bags()

    def slowly(config, name, task, seeds):
        record(config, name, task, seeds)
        if name.endswith('0000'):  # meanwhile a shard that was begun for three episodes
            record(config, second[0], task, second[2][:1])

    monkeypatch.setattr(collect, 'record_bag', slowly)
    with pytest.raises(ValueError, match='put_carrot_on_plate_0001 holds 1 of 2'):
        collect.collect(config)
    shutil.rmtree(tmp_path / third[0])
    before = len(made)
    with pytest.raises(ValueError, match='put_carrot_on_plate_0001 holds 1 of 2'):
        collect.collect(config)
    assert len(made) == before, 'the next time it is named at once'


def test_shards_that_grow_a_folder_side_by_side_leave_the_largest_number(tmp_path, made, monkeypatch):
    small = CollectConfig(output=tmp_path, tasks=('put_carrot_on_plate',), episodes=2, episodes_per_bag=2)
    collect.collect(small)
    original, between = collect._check_whole, []

    def late(config):  # the other shard comes when this one has read what was there and not yet written
        original(config)
        if not between:
            between.append(threading.Thread(target=other))
            between[0].start()
            between[0].join(0.5)

    refused = []

    def other():
        try:
            collect.collect(dataclasses.replace(small, episodes=4, shard='0/9'))
        except ValueError as error:
            refused.append(str(error))

    monkeypatch.setattr(collect, '_check_whole', late)
    collect.collect(dataclasses.replace(small, episodes=8, shard='1/9'))
    between[0].join()
    assert len(refused) == 1 and 'episodes is 8 there and 4 here' in refused[0]
    assert yaml.safe_load((tmp_path / 'collection.yaml').read_text())['episodes'] == 8
    assert not list(tmp_path.glob('.collection*'))


def test_a_damaged_description_of_a_collection_is_refused(tmp_path, made):
    config = CollectConfig(output=tmp_path, episodes=2)
    for text in ('episodes: [', '5', 'demonstrator: 3', 'demonstrator: {}\nepisodes: many'):
        (tmp_path / 'collection.yaml').write_text(text)
        with pytest.raises(ValueError, match='is damaged'):
            collect.collect(config)
    assert not made


@pytest.mark.parametrize('wrong', [{'tasks': ('fold_towel',)}, {'looks': 'pretty'}, {'episodes': 0}])
def test_impossible_collections_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        CollectConfig(output=tmp_path, **wrong)
