"""Which policies and critics act on which robot of SIMPLER's tasks, and how those of the Google Robot are executed."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import simpler_stand_in

from vgps_bringup.commands import evaluate
from vgps_bringup.system.steered_server import Conversation, ServedPolicy
from vgps_bringup.trials import lockstep
from vgps_bringup.trials.plan import Condition, Study, TaskItem, Trial
from vgps_bringup.trials.simpler.environments import IMAGE_SIZE, SimplerError
from vgps_bringup.trials.simpler.fit import check_study, check_units, critic_for_robot, for_robot
from vgps_bringup.trials.simpler.runner import SimplerRunner
from vgps_critic.action_space import ActionSpace
from vgps_critic.critic import Critic
from vgps_msgs_py.lanczos import resize
from vgps_policy_bridge.errors import CandidatesError
from vgps_policy_bridge.policy import FRACTAL, Candidates

PICK = 'google_robot_pick_coke_can'
INSTALLED = ('flow', 'binned', 'lerobot', 'openpi', 'octo-small', 'octo-base', 'octo-small-1.5', 'octo-base-1.5',
             'octo-checkpoint', 'openvla', 'rt-1-x', 'random-policy', 'server', 'actor')


def condition(policy, **options):
    return Condition(policy, policy, selection='first', k=1, policy_options=options)


def candidates(statistics, policy='server x'):
    return Candidates(np.zeros((2, 1, 7)), policy=policy, statistics=statistics)


def critic(data, space, algorithm='cal-ql'):
    return SimpleNamespace(config=SimpleNamespace(data=data, algorithm=algorithm), action_space=space)


@pytest.mark.parametrize('policy', ['octo-small', 'octo-base-1.5', 'octo-checkpoint', 'openvla', 'rt-1-x'])
def test_a_policy_of_many_robots_takes_the_google_robot_s_statistics_there(policy):
    plain = condition(policy, checkpoint='x')
    assert for_robot(plain, 'widowx') is plain
    assert for_robot(plain, 'google').policy_options == {'checkpoint': 'x', 'statistics': FRACTAL}
    assert for_robot(condition(policy, statistics=''), 'google').policy_options == {'statistics': FRACTAL}
    assert for_robot(condition(policy, statistics='mine'), 'google').policy_options == {'statistics': 'mine'}
    for bridge in ('bridge_dataset', 'bridge_orig'):
        with pytest.raises(SimplerError, match=f"{policy}: the statistics {bridge} are the WidowX's"):
            for_robot(condition(policy, statistics=bridge), 'google')
        for_robot(condition(policy, statistics=bridge), 'widowx')
    with pytest.raises(SimplerError, match=f"{policy}: the statistics {FRACTAL} are the Google Robot's"):
        for_robot(condition(policy, statistics=FRACTAL), 'widowx')


@pytest.mark.parametrize('policy, reason', [
    ('flow', 'trained on a WidowX'), ('binned', 'trained on a WidowX'), ('openpi', 'as BridgeData has them'),
    ('lerobot', 'as BridgeData has them')])
def test_a_policy_of_the_widowx_only_is_refused_on_the_google_robot_with_the_reason(policy, reason):
    with pytest.raises(SimplerError, match=f'{policy} cannot act on the Google Robot: .*{reason}'):
        for_robot(condition(policy), 'google')
    assert for_robot(condition(policy), 'widowx').policy == policy


def test_every_installed_policy_has_been_thought_of():
    from vgps_policy_bridge.policy import available_policies
    ours = {name for name, entry in available_policies().items() if entry.value.startswith('vgps_policy_bridge')}
    assert ours == set(INSTALLED)


def test_a_study_is_refused_before_anything_is_played(monkeypatch, tmp_path):
    made = simpler_stand_in.install(monkeypatch, tmp_path / 'assets')
    for conditions in ((condition('flow'),), (condition('random-policy'), condition('openpi'))):
        with pytest.raises(SimplerError, match='cannot act on the Google Robot'):
            check_study(Study((TaskItem('widowx_stack_cube'), TaskItem(PICK)), conditions))
    with pytest.raises(SimplerError, match='s: on_alarm: retry is not played in SIMPLER'):
        check_study(Study((TaskItem('widowx_stack_cube'),), (
            Condition('s', 'flow', 'mine', steering={'on_alarm': 'retry'}),)))
    check_study(Study((TaskItem(PICK),), (condition('random-policy'), condition('rt-1-x'), condition('server'))))
    monkeypatch.setattr(sys, 'argv', ['vgps-evaluate', 'simpler', '--tasks', PICK, '--policy', 'random-policy',
                                      '--policy', 'flow', '--conditions', 'baseline', '--output', str(tmp_path / 'x')])
    with pytest.raises(SystemExit, match=r'vgps-evaluate simpler: flow cannot act on the Google Robot: it was trained'):
        evaluate.main()
    assert made == []


def test_the_command_plays_the_script_in_simpler_and_refuses_its_name_elsewhere(monkeypatch, tmp_path, capsys):
    made = simpler_stand_in.install(monkeypatch, tmp_path / 'assets')
    words = ['--tasks', PICK, '--policy', 'scripted', '--conditions', 'baseline', '--trials', '1']
    monkeypatch.setattr(sys, 'argv', ['vgps-evaluate', 'simpler', *words, '--output', str(tmp_path / 'x')])
    evaluate.main()
    told = capsys.readouterr().out
    assert '1 of 1' in told and len(made) == 1
    assert list((tmp_path / 'x').rglob('video.mp4')) and 'vgps-evaluate bag' not in told, 'there is no bag to score'
    monkeypatch.setattr(sys, 'argv', ['vgps-evaluate', 'trials', *words, '--output', str(tmp_path / 'y')])
    with pytest.raises(SystemExit, match="no policy is called 'scripted'"):
        evaluate.main()


@pytest.mark.parametrize('statistics, policy, reason', [
    ('bridge_dataset', 'server', "units of bridge_dataset, not the Google Robot's .* 'statistics: fractal"),
    ('bridge_orig', 'server', 'acts in the units of bridge_orig'),
    ('demonstrations', 'actor', 'acts in the units of demonstrations'),
    ('', 'server', "does not say in which data set's units it acts"), ('', 'our-lab', 'does not say')])
def test_candidates_that_are_not_known_to_be_the_google_robot_s_are_refused_there(statistics, policy, reason):
    with pytest.raises(SimplerError, match=reason):
        check_units(candidates(statistics), condition(policy), 'google')
    check_units(candidates(statistics), condition(policy), 'widowx')


def test_candidates_that_are_known_pass_and_the_google_robot_s_are_refused_on_a_widowx():
    for statistics, acting in (
            (FRACTAL, condition('server')), ('ours', condition('octo-checkpoint', statistics='ours')),
            (f'bridge_dataset/1.0.0, {FRACTAL}/0.1.0', condition('actor', checkpoint='x')), ('', condition('scripted')),
            ('', condition('random-policy'))):
        check_units(candidates(statistics), acting, 'google')
    with pytest.raises(CandidatesError, match="Google Robot's"):
        check_units(candidates(FRACTAL), condition('server'), 'widowx')


def test_no_other_runner_of_a_widowx_executes_the_google_robot_s_candidates():
    with pytest.raises(CandidatesError, match="Google Robot's"):
        lockstep._Simulated(None, None).step(candidates(FRACTAL), SimpleNamespace(action=np.zeros(7)))
    policy = SimpleNamespace(reset=lambda *_: None, propose=lambda observation, k: candidates(FRACTAL))
    request = {'observation/image': np.zeros((8, 8, 3), np.uint8), 'prompt': 'pick coke can'}
    with pytest.raises(CandidatesError, match="Google Robot's"):
        Conversation(ServedPolicy(policy, SimpleNamespace(reset=lambda: None), 2)).answer(request)


def test_the_published_critic_normalises_the_google_robot_s_actions_with_that_robot_s_bounds():
    bridge, fractal = ActionSpace.named('bridge'), ActionSpace.named('fractal')
    published = critic('bridge + fractal', bridge)
    assert critic_for_robot(published, 'x', 'google').action_space == fractal
    assert published.action_space == bridge, 'the loaded critic goes on to serve the WidowX'
    assert critic_for_robot(published, 'x', 'widowx') is published
    own = critic('1.0.0, fractal20220817_data/0.1.0', ActionSpace(bridge.low, bridge.high, 'quantiles'))
    for robot in ('google', 'widowx'):
        assert critic_for_robot(own, 'x', robot) is own
    # far apart for the robot, one and the same number within BridgeData's bounds
    actions = np.array([[0.08, 0, 0, 0, 0, 0, 1], [0.14, 0, 0, 0, 0, 0, 1]])
    assert np.ptp(bridge.normalize(actions)[:, 0]) == 0 < np.ptp(fractal.normalize(actions)[:, 0])


def test_a_critic_that_never_saw_the_robot_is_refused_by_name_and_reason():
    bridge, fractal = ActionSpace.named('bridge'), ActionSpace.named('fractal')
    for space in (bridge, ActionSpace(bridge.low, bridge.high, 'quantiles')):
        with pytest.raises(SimplerError, match="critic mine was trained on bridge: not on the Google Robot's"):
            critic_for_robot(critic('bridge', space), 'mine', 'google')
    with pytest.raises(SimplerError, match='trained on data that it does not name'):
        critic_for_robot(critic('', bridge), 'mine', 'google')
    with pytest.raises(SimplerError, match="critic mine: its bounds of the actions are the Google Robot's"):
        critic_for_robot(critic('fractal', fractal), 'mine', 'widowx')
    untrained = critic_for_robot(critic('', bridge, 'untrained'), 'untrained', 'google')
    assert untrained.action_space == fractal, 'called what it is: only its time is of interest'


def test_the_shipped_critic_is_refused_in_a_trial_on_the_google_robot(monkeypatch, tmp_path):
    simpler_stand_in.install(monkeypatch, tmp_path)
    runner = SimplerRunner(3, load_critic=Critic.load)
    with pytest.raises(SimplerError, match='critic default was trained on 1,800 simulated demonstrations'):
        runner.run(Trial('t', 0, TaskItem(PICK), Condition('s', 'random-policy', 'default', k=2), 0), None)
    runner.close()


class Told:
    """A policy that tells the gripper changes, and ends the episode in its fifth step."""

    def __init__(self, **options):
        self.options, self.seen, self.chosen = options, [], []

    def reset(self, instruction, seed=0):
        pass

    def committed(self, index):
        self.chosen.append(index)

    def propose(self, observation, k):
        self.seen.append(observation.image)
        step = len(self.seen)
        actions = np.zeros((k, 1, 7))
        actions[:, 0, :3] = 0.01 * step
        actions[:, 0, 3:6] = 0.3, -0.2, 0.1
        actions[:, 0, 6] = np.arange(k) % 2
        closing = np.where(np.arange(k) % 2, -0.25, 0.75) * (step > 1)
        return Candidates(actions, policy='rt-1-x', statistics=self.options.get('statistics', ''), closing=closing,
                          finished=step == 5)


def test_what_a_policy_tells_the_gripper_is_passed_on_as_it_is_and_it_may_end_the_episode(monkeypatch, tmp_path):
    from scipy.spatial.transform import Rotation
    made, policies = simpler_stand_in.install(monkeypatch, tmp_path / 'assets'), []

    def load(name, **options):
        policies.append(Told(**options))
        return policies[-1]
    monkeypatch.setattr('vgps_bringup.trials.actors.load_policy', load)
    scored = []
    shown = SimpleNamespace(
        config=SimpleNamespace(data='bridge + fractal', algorithm=''), action_space=ActionSpace.named('bridge'))
    steerer = SimpleNamespace(
        critic=shown, reset=lambda steps: None, sent=lambda decision: None,
        encode=lambda image, instruction: scored.append(image),
        decide=lambda encoded, actions, seed: SimpleNamespace(chosen=1 if len(scored) < 4 else -1, value=np.nan,
                                                              reason=None))
    runner = SimplerRunner(80, load_critic=None)
    monkeypatch.setattr(runner._actors, 'steerer', lambda condition: steerer)
    result = runner.run(Trial('t', 0, TaskItem(PICK), Condition('s', 'rt-1-x', 'mine', k=4), 0), None)
    policy, = policies
    assert policy.options == {'statistics': FRACTAL} and steerer.critic.action_space == ActionSpace.named('fractal')
    assert (result.steps, result.success, result.failure) == (5, False, 'missed grasp')
    assert result.details == {'ended by': 'the policy'}
    actions = np.stack(made[0].actions)
    # chosen: candidate 1, opening by a quarter from the second step on, not held for 15 steps; the last two hold still
    np.testing.assert_allclose(actions[:, 6], [0, -0.25, -0.25, 0, 0])
    np.testing.assert_allclose(actions[:3, :3], 0.01 * np.arange(1, 4)[:, None] * np.ones(3), atol=1e-7)
    np.testing.assert_allclose(actions[:3, 3:6], [Rotation.from_euler('xyz', (0.3, -0.2, 0.1)).as_rotvec()] * 3,
                               atol=1e-6)
    assert not actions[3:, :6].any() and policy.chosen == [1, 1, 1, -1, -1]
    for step, (whole, small) in enumerate(zip(policy.seen, scored)):
        assert whole.shape == (512, 640, 3) and (whole == step).all(), "the camera's own picture"
        np.testing.assert_array_equal(small, resize(whole, IMAGE_SIZE))
    runner.close()


def test_a_success_is_no_end_by_the_policy(monkeypatch, tmp_path):
    simpler_stand_in.install(monkeypatch, tmp_path)
    monkeypatch.setattr('vgps_bringup.trials.actors.load_policy', lambda name, **options: Told(**options))
    monkeypatch.setattr(simpler_stand_in.Env, 'step', lambda self, action: (
        self._observation(), 1.0, np.bool_(True), False, {}))
    runner = SimplerRunner(80, load_critic=None)
    result = runner.run(Trial('t', 0, TaskItem(PICK), condition('rt-1-x'), 0), None)
    assert result.success and result.steps == 1 and result.details == {}
    runner.close()
