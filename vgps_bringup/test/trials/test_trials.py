"""Trials: fair order, nothing lost or doubled by kill -9, and tables that say what happened."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from evaluation_coin import STEERED, STUDY, CoinRunner, start

from vgps_bringup.trials.journal import Journal, JournalError, read_lines
from vgps_bringup.trials.plan import (
    Condition,
    Study,
    StudyError,
    TaskItem,
    Trial,
    load_study,
    named_conditions,
    plan,
    task_list,
    task_lists,
)
from vgps_bringup.trials.report import Results, _video_pairs, markdown, write_report
from vgps_bringup.trials.trials import InEachProcess, collect, run_study
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.jobs import Engine


def test_every_block_holds_one_seed_under_every_condition_in_random_order():
    trials = plan(STUDY)
    assert len(trials) == len({t.identity for t in trials}) == 40
    blocks = [trials[i:i + 2] for i in range(0, 40, 2)]
    assert all(a.seed == b.seed and a.task == b.task and a.condition != b.condition for a, b in blocks)
    first = [a.condition.name for a, _ in blocks]
    assert 4 < first.count('baseline') < 16, 'neither condition always goes first'
    assert [t.identity for t in plan(STUDY)] == [t.identity for t in trials], 'the order is seeded'
    assert all(t.condition.name not in t.identity for t in trials), 'the operator is blind'


def test_the_operator_is_not_told_the_condition(tmp_path):
    said = []
    run_study(STUDY, CoinRunner(), tmp_path, say=said.append)
    assert len(said) == 40 and not any('steered' in line or 'baseline' in line for line in said)


def test_a_finished_study_is_not_run_again(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None)
    before = (tmp_path / 'journal-0.jsonl').read_bytes()
    run_study(STUDY, None, tmp_path, say=lambda text: None)
    assert (tmp_path / 'journal-0.jsonl').read_bytes() == before


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_and_double_nothing(tmp_path):
    journal, rng, kills = tmp_path / 'journal-0.jsonl', np.random.default_rng(0), 0

    def finished():
        return journal.read_bytes().count(b'\n') - 1 if journal.exists() else 0

    while True:
        process = start(tmp_path, 0.02)
        if kills < 10:
            goal = min(finished() + int(rng.integers(1, 5)), 38)
            while process.is_alive() and finished() < goal:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.03))
        else:
            process.join(200)
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
    assert kills == 10 and process.exitcode == 0
    rows = collect(tmp_path)[1]
    assert sorted(r['trial'] for r in rows) == sorted(t.identity for t in plan(STUDY))
    assert sorted(p.name for p in (tmp_path / 'bags').iterdir()) == sorted(r['trial'] for r in rows)
    undisturbed = tmp_path / 'undisturbed'
    run_study(STUDY, CoinRunner(), undisturbed, say=lambda text: None)
    assert [(r['trial'], r['success']) for r in rows] == [(r['trial'], r['success']) for r in collect(undisturbed)[1]]


def test_a_torn_last_line_is_cut_off_and_its_trial_played_again(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None)
    path = tmp_path / 'journal-0.jsonl'
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None)
    assert path.read_bytes() == whole


def test_a_result_cannot_be_recorded_twice_and_a_journal_not_shared(tmp_path):
    with Journal(tmp_path / 'j', {'x': 1}) as journal:
        journal.record('t1', {'success': True})
        with pytest.raises(JournalError, match='already'):
            journal.record('t1', {'success': False})
        with pytest.raises(JournalError, match='in use by another process'):
            Journal(tmp_path / 'j', {'x': 1})
    with pytest.raises(JournalError, match=r'another study \(x differ\)'):
        Journal(tmp_path / 'j', {'x': 2})
    assert len(read_lines(tmp_path / 'j')) == 2


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_give_the_journal_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]))
    (tmp_path / 'two').mkdir()
    (tmp_path / 'two/kill').touch()
    run_study(STUDY, InEachProcess(CoinRunner, (0.0, tmp_path / 'two/kill')), tmp_path / 'two', engine=Engine(2),
              say=lambda text: None)
    run_study(STUDY, InEachProcess(CoinRunner, ()), tmp_path / 'one', say=lambda text: None)
    assert collect(tmp_path / 'two')[1] == collect(tmp_path / 'one')[1] and not (tmp_path / 'two/kill').exists()
    assert len(list((tmp_path / 'two/bags').iterdir())) == 40


def test_shards_share_a_study_without_overlap(tmp_path):
    for index in range(3):
        run_study(STUDY, CoinRunner(), tmp_path, engine=Engine(shard=f'{index}/3'), say=lambda text: None)
    rows = collect(tmp_path)[1]
    assert [r['number'] for r in rows] == list(range(40))


def test_another_number_of_shards_is_refused_before_a_trial_is_played_twice(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None)
    for index in range(2):
        with pytest.raises(JournalError, match='begun in 1 shards'):
            run_study(STUDY, CoinRunner(), tmp_path, engine=Engine(shard=f'{index}/2'), say=lambda text: None)
    assert len(collect(tmp_path)[1]) == 40
    lines = (tmp_path / 'journal-0.jsonl').read_text()
    (tmp_path / 'journal-1.jsonl').write_text(lines.replace('"shards": 1', '"shards": 2'))
    with pytest.raises(StudyError, match='different numbers of shards'):
        collect(tmp_path)


def test_results_of_another_runner_are_not_taken_for_this_one_s(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None, setting={'runner': 'lockstep'})
    with pytest.raises(JournalError, match=r'another study \(runner differ\)'):
        run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None, setting={'runner': 'ros-simulation'})
    run_study(STUDY, None, tmp_path, say=lambda text: None, setting={'runner': 'lockstep'})
    assert len(collect(tmp_path)[1]) == 40


def test_a_journal_that_an_older_version_began_is_resumed(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None)
    run_study(STUDY, None, tmp_path, say=lambda text: None, setting={'runner': 'lockstep'})


def test_a_worker_killed_before_its_first_line_does_not_spoil_the_tables(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, engine=Engine(shard='0/2'), say=lambda text: None)
    (tmp_path / 'journal-1.jsonl').touch()
    assert len(collect(tmp_path)[1]) == 20
    with pytest.raises(StudyError, match='no journal'):
        collect(tmp_path / 'elsewhere')


def test_tables_hold_rates_intervals_paired_differences_and_failures(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None)
    results = write_report(tmp_path)
    data = json.loads((tmp_path / 'results.json').read_text())
    assert data['finished'] == data['planned'] == 40
    total = next(x for x in data['table'] if x['task'] == 'all tasks' and x['condition'] == 'steered')
    rows = collect(tmp_path)[1]
    assert total['successes'] == sum(r['success'] for r in rows if r['condition'] == 'steered')
    assert total['paired']['losses'] == 0 and total['paired']['wins'] > 3  # the same coin with a higher bias
    assert total['against'] == 'baseline'
    text = markdown(results)
    assert 'early drop' in text and 'won' in text and '| **all tasks** |' in text
    html = (tmp_path / 'index.html').read_text()
    assert 'How trials failed' in html and '<script' not in html


def test_a_lost_seed_is_shown_beside_a_won_one(tmp_path):
    run_study(STUDY, CoinRunner(), tmp_path, say=lambda text: None)
    study, rows = collect(tmp_path)
    for row in rows:
        row['bag'] = 'bags/x'
    lost = next(r for r in rows if r['condition'] == 'steered' and r['success'])
    lost['success'] = False
    next(r for r in rows if r['condition'] == 'baseline' and (r['task'], r['seed']) == (lost['task'], lost['seed'])
         )['success'] = True
    (won, plain, steered), (beside, other, worse) = _video_pairs(Results(study, rows))
    assert won.startswith('won, ') and steered['success'] and not plain['success']
    assert beside == 'lost, 1 of 20 seeds' and other['success'] and not worse['success']
    assert plain['seed'] == steered['seed'] and other['seed'] == worse['seed'] == lost['seed']


def test_an_unfinished_study_is_reported_with_the_pairs_it_has(tmp_path):
    class Stopping(CoinRunner):
        left = 15

        def run(self, trial, bag):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().run(trial, bag)

    with pytest.raises(KeyboardInterrupt):
        run_study(STUDY, Stopping(), tmp_path, say=lambda text: None)
    results = Results(*collect(tmp_path))
    assert len(results.rows) == 15 and results.compare(STEERED).pairs == 7


def test_conditions_expand_over_policies_critics_k_and_beta():
    conditions = named_conditions(['baseline', 'steered', 'random-select', 'random-policy'], ['flow', 'binned'],
                                  ['runs/calql', 'runs/iql'], (10, 50), (0.0, 1.0))
    names = [c.name for c in conditions]
    assert len(names) == len(set(names)) == 2 + 2 * 2 * 2 * 2 + 2 * 2 + 1
    assert 'flow steered calql K=50 β=1' in names and 'random-policy' in names
    results = Results(Study((TaskItem('a'),), tuple(conditions)), [])
    steered = next(c for c in conditions if c.name == 'binned steered iql K=10 β=0')
    assert results.reference(steered).name == 'binned baseline', 'each policy is compared with itself'
    with pytest.raises(StudyError, match='needs --critic'):
        named_conditions(['steered'], ['flow'], [], (10,), (0.0,))
    runs = named_conditions(['steered'], ['flow'], ['runs/iql/critic', 'runs/calql/critic'], (10,), (0.0,))
    assert [c.name for c in runs] == ['steered runs/iql/critic K=10 β=0', 'steered runs/calql/critic K=10 β=0']
    with pytest.raises(StudyError, match="unknown condition 'magic'"):
        named_conditions(['magic'], ['flow'], [], (10,), (0.0,))


def test_each_policy_gets_its_own_options_and_the_paper_s_controls_get_none():
    names = ['baseline', 'steered', 'random-select', 'random-policy']
    conditions = named_conditions(names, ['flow', 'actor'], ['default'], (10,), (0.0,),
                                  ['{}', '{checkpoint: runs/iql/critic/actor.safetensors}'])
    assert {c.policy: dict(c.policy_options) for c in conditions} == {
        'flow': {}, 'actor': {'checkpoint': 'runs/iql/critic/actor.safetensors'}, 'random-policy': {}}
    for options, words in ((['{}'], 'give one for each'), (['{}', 'a file'], "not 'a file'"),
                           (['{}', '{'], 'not YAML')):
        with pytest.raises(StudyError, match=words):
            named_conditions(names, ['flow', 'actor'], ['default'], (10,), (0.0,), options)


def test_a_study_is_read_from_yaml():
    study = load_study('''
tasks: [put_carrot_on_plate, {name: robot, instruction: put the mushroom in the pot}]
trials: 3
conditions:
  - {name: plain, policy: flow, selection: first, k: 1}
  - {name: steered, policy: flow, critic: calql, k: 50, beta: 0.1, policy_options: {checkpoint: x}}
''')
    assert study.trials == 3 and study.conditions[1].policy_options == {'checkpoint': 'x'}
    assert len(plan(study)) == 12
    with pytest.raises(StudyError, match='cannot be read'):
        load_study('tasks: [a]\nconditions: [{name: x, polcy: flow}]')


def test_the_paper_s_task_lists_ship():
    real, simpler = task_lists()['paper_real'], task_lists()['paper_simpler']
    assert [t.group for t in real] == ['Scene A'] * 2 + ['Scene B'] * 2 + ['Scene C'] * 2
    assert real[0].instruction == 'put the green pepper in the pot'
    assert [t.group for t in simpler] == ['WidowX'] * 4 + ['Google Robot'] * 2
    from vgps_bringup.simulation.tasks import TASKS
    assert {t.name for t in task_list(['simulation'])} == set(TASKS)


@pytest.mark.slow
def test_a_lockstep_trial_is_the_live_composition_and_leaves_a_bag_that_can_be_judged_again(tmp_path):
    from vgps_bringup.rejudging.rejudge import Rejudge, agreement
    from vgps_bringup.trials.lockstep import LockstepRunner
    from vgps_critic.critic import Critic
    critic = Critic.untrained(num_filters=8, image_size=64)
    conditions = (Condition('baseline', 'random-policy', selection='first', k=1),
                  Condition('steered', 'random-policy', 'untrained', k=6, beta=0.5))
    study = Study((TaskItem('put_carrot_on_plate', 'serve the carrot'),), conditions, trials=1, max_steps=6)
    runner = LockstepRunner(study.max_steps, 64, load_critic=lambda name: critic)
    try:
        run_study(study, runner, tmp_path, say=lambda text: None)
    finally:
        runner.close()
    rows = {r['condition']: r for r in collect(tmp_path)[1]}
    assert rows['baseline']['steps'] == 6 and rows['baseline']['mean_value'] is None
    assert rows['steered']['mean_value'] is not None and rows['steered']['fallbacks'] == 0
    assert rows['steered']['failure'] == 'missed grasp'
    bag = Bag(tmp_path / rows['steered']['bag'])
    judged = [row for step in Rejudge({'a': critic}, betas=(0.5,)).run(bag, bag.episodes[0]) for row in step.judgements]
    assert agreement(judged) == (6, 6)
    assert {bag.episodes[0].instruction, *(s.instruction for s in bag.episodes[0].steps)} == {'serve the carrot'}
    assert bag.episodes[0].outcome == 'failure' and bag.episodes[0].seed == study.first_seed


@pytest.mark.slow
def test_an_actor_is_played_alone_and_steered_like_any_policy(tmp_path):
    from vgps_bringup.trials.lockstep import LockstepRunner
    from vgps_critic.critic import Critic
    from vgps_policy_bridge.policies.actor.checkpoint import ActorConfig, build_network, save
    critic = Critic.untrained(num_filters=8, image_size=64)
    bounds = critic.action_space
    config = ActorConfig('cal-ql', bounds.low, bounds.high, (1, 1), 8, 64, (32, 32))
    save(tmp_path / 'actor.safetensors', build_network(config).state_dict(), config)
    options = {'checkpoint': str(tmp_path / 'actor.safetensors')}
    runner = LockstepRunner(6, 64, load_critic=lambda name: critic)
    try:
        for name, condition in (
                ('alone', Condition('a', 'actor', selection='first', k=1, policy_options=options)),
                ('steered', Condition('s', 'actor', 'untrained', k=6, beta=0.5, policy_options=options))):
            runner.run(Trial(name, 0, TaskItem('put_carrot_on_plate'), condition, 7), tmp_path / name)
    finally:
        runner.close()
    alone, steered = (Bag(tmp_path / name).episodes[0].steps for name in ('alone', 'steered'))
    assert len(alone) == len(steered) == 6
    first = [step.candidates.actions[:7] for step in (alone[0], steered[0])]
    np.testing.assert_array_equal(*first)  # the mode, whatever K is
    assert {step.candidates.policy.split()[1] for step in steered} == {'cal-ql'}
    assert all(len(step.decision.q_values) == 12 for step in steered)
    np.testing.assert_allclose(alone[0].command.action[:6], first[0][:6], atol=1e-6)
