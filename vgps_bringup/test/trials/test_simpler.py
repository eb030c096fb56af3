"""The paper's SIMPLER protocol piece by piece, and the tasks themselves where ManiSkill 3 is installed."""

import importlib.util
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import simpler_stand_in

from vgps_bringup.benchmarks.overhead import PAPER, OverheadRow, Times, doubts, markdown, measure
from vgps_bringup.commands import evaluate
from vgps_bringup.trials.plan import Condition, TaskItem, Trial, task_lists
from vgps_bringup.trials.simpler.environments import (
    MANISKILL,
    GoogleGripper,
    ManiSkillTask,
    SimplerError,
    TemporalAverage,
    WidowXGripper,
    axis_angle,
    make_task,
)
from vgps_bringup.trials.simpler.runner import SimplerRunner
from vgps_bringup.trials.simpler.scripted import attitude

pytestmark = pytest.mark.slow

PICK, NEAR = 'google_robot_pick_coke_can', 'google_robot_move_near'


def test_the_widowx_gripper_flips_only_after_three_disagreeing_steps():
    gripper = WidowXGripper()
    said = [gripper(x) for x in (1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1)]
    assert said == [1, 1, 1, 1, 1, 1, -1, -1, -1, -1, 1]


def test_the_google_gripper_repeats_a_change_for_fifteen_steps():
    gripper = GoogleGripper()
    said = [gripper(x) for x in [1.0, 1.0, 0.0] + [0.0] * 20]
    assert said[:2] == [0.0, 0.0] and said[2:17] == [1.0] * 15 and said[17:] == [0.0] * 6


def test_the_executed_action_is_the_plain_mean_of_what_the_last_four_chunks_say_of_now():
    average, rng = TemporalAverage(), np.random.default_rng(0)
    chunks = rng.normal(size=(6, 4, 7))
    for t, chunk in enumerate(chunks):
        done = average(chunk)
        assert np.allclose(done, np.mean([chunks[t - age][age] for age in range(min(t + 1, 4))], axis=0))
    average = TemporalAverage()
    assert np.allclose([average(c[:1]) for c in chunks], chunks[:, 0]), 'chunks of one action are executed as they are'


def test_euler_angles_become_a_rotation_vector():
    from scipy.spatial.transform import Rotation
    angles = (0.1, -0.2, 0.25)
    assert np.allclose(axis_angle(*angles), Rotation.from_euler('xyz', angles).as_rotvec(), atol=1e-9)


def test_the_shipped_list_names_the_tasks_that_can_be_made():
    names = [task.name for task in task_lists()['paper_simpler'] if task.group == 'WidowX']
    assert sorted(names) == sorted(MANISKILL)


@pytest.mark.skipif(importlib.util.find_spec('mani_skill') is not None, reason='ManiSkill 3 is installed here')
def test_without_maniskill_the_message_says_what_to_install():
    with pytest.raises(SimplerError, match='pip install mani-skill'):
        make_task('widowx_carrot_on_plate')


@pytest.mark.skipif(importlib.util.find_spec('simpler_env') is not None, reason='SimplerEnv is installed here')
@pytest.mark.parametrize('gpu, works, tried', [(True, 'gpu', ['gpu']), (True, 'cpu', ['gpu', 'cpu']),
                                               (False, 'cpu', ['cpu']), (True, '', ['gpu', 'cpu'])])
def test_a_gpu_renders_where_there_is_one_and_else_the_cpu(gpu, works, tried, monkeypatch):
    asked = []

    def make(name, render_backend, **options):
        asked.append(render_backend)
        if render_backend != works:
            raise RuntimeError(f'no device for {render_backend}')
        return name

    monkeypatch.setitem(sys.modules, 'gymnasium', SimpleNamespace(make=make))
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpu)
    if works:
        assert ManiSkillTask._rendered('world') == 'world'
    else:
        with pytest.raises(SimplerError, match='on the GPU: no device for gpu; on the CPU: no device for cpu'):
            ManiSkillTask._rendered('world')
    assert asked == tried


def test_the_google_robot_s_tasks_name_simplerenv():
    with pytest.raises(SimplerError, match='needs SimplerEnv: git clone'):
        make_task('google_robot_pick_coke_can')


def play(name: str, policy: str, max_steps: int = 80, seed: int = 5, bag=None):
    runner = SimplerRunner(max_steps, load_critic=None)
    condition = Condition(policy, policy, selection='first', k=1)
    return runner, runner.run(Trial('t0', 0, TaskItem(name), condition, seed), bag)


@pytest.mark.parametrize('name', [PICK, NEAR])
def test_the_google_robot_s_tasks_are_played_scored_and_recorded(name, monkeypatch, tmp_path):
    made = simpler_stand_in.install(monkeypatch, tmp_path / 'assets')
    runner, result = play(name, 'scripted', bag=tmp_path / 'bag')
    assert result.success and not result.failure and result.steps == len(made[0].actions) < 60
    assert made[0].seed == 5 and (tmp_path / 'bag' / 'video.mp4').stat().st_size > 0
    closing = [action[6] for action in made[0].actions]
    assert set(closing) == {0.0, 1.0} and sorted(closing) == closing, 'from open to closing, which is held'
    runner.close()
    assert made[0].closed
    runner, result = play(name, 'random-policy', max_steps=100)
    assert not result.success and result.failure == 'missed grasp'
    assert result.steps == simpler_stand_in.Env.limit, "the task's own limit ends the episode"
    runner.close()


def test_a_step_of_the_google_robot_is_a_third_of_a_second(monkeypatch, tmp_path):
    simpler_stand_in.install(monkeypatch, tmp_path)
    times = []
    monkeypatch.setattr('vgps_bringup.trials.simpler.runner.Observation',
                        lambda image, stamp, state: times.append(stamp) or SimpleNamespace(image=image, stamp=stamp))
    runner, _ = play(PICK, 'random-policy', max_steps=4)
    runner.close()
    assert np.allclose(times, np.arange(5) / 3), 'of every frame, the one after the last step too'


def test_what_ended_an_episode_of_the_google_robot_comes_from_the_grasp_of_the_right_object(monkeypatch, tmp_path):
    made = simpler_stand_in.install(monkeypatch, tmp_path)
    for name, held in ((NEAR, 'late drop'), (PICK, 'other')):
        task = make_task(name)
        task.reset(0)
        still = np.zeros(7)
        assert task.step(still).failure == 'missed grasp'
        made[-1].closedness, made[-1].held = 1.0, True
        assert task.step(still).failure == held
        made[-1].closedness = 0.0
        assert task.step(still).failure == 'early drop'
        task.reset(1)
        assert task.step(still).failure == 'missed grasp', 'a grasp of the episode before does not count'


def test_what_simplerenv_cannot_do_is_said_in_one_line(monkeypatch, tmp_path):
    made = simpler_stand_in.install(monkeypatch, tmp_path / 'whole')
    with pytest.raises(SimplerError, match=f'google_robot_wave is not in SimplerEnv; there are: {PICK}'):
        make_task('google_robot_wave')
    (tmp_path / 'whole' / 'stages' / f'{simpler_stand_in.TABLE}.glb').unlink()
    with pytest.raises(SimplerError, match=r'glb is missing, and SAPIEN would go on without the table'):
        make_task(PICK)
    assert made[0].closed

    def no_device(name):
        raise RuntimeError('vk::PhysicalDevice::createDeviceUnique: ErrorExtensionNotPresent')
    simpler_stand_in.install(monkeypatch, tmp_path / 'cpu', make=no_device)
    with pytest.raises(SimplerError, match=r'ErrorExtensionNotPresent. SAPIEN 2 needs a GPU'):
        make_task(PICK)


def test_the_script_lays_its_fingers_across_the_short_side_pointing_down():
    now = np.diag([1.0, -1.0, -1.0])
    for angle in (0.0, 0.4, 1.2, 2.5):
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        corners = np.array([[x, y, 0] for x in (-0.06, 0.06) for y in (-0.03, 0.03)]) @ turn.T
        hand = attitude(corners, now)
        assert np.allclose(hand @ hand.T, np.eye(3), atol=1e-6) and np.linalg.det(hand) > 0
        assert np.allclose(hand[:, 2], [0, 0, -1]) and abs(hand[:, 1] @ turn[:, 1]) > 0.999
        assert hand[:, 1] @ now[:, 1] >= 0, 'the nearer of the two'


@pytest.mark.skipif(importlib.util.find_spec('mani_skill') is None or 'MS_ASSET_DIR' not in os.environ,
                    reason='needs ManiSkill 3 (pip install mani-skill) and MS_ASSET_DIR with its assets')
@pytest.mark.parametrize('name', sorted(MANISKILL))
def test_each_widowx_task_resets_steps_renders_and_scores(name):
    task = make_task(name)
    try:
        seen, instruction = task.reset(0)
        assert seen.image.shape == (480, 640, 3) and seen.image.std() > 20 and instruction
        after = task.step(np.array([0.0, 0, 0.02, 0, 0, 0, 1]))
        assert not after.success and after.failure == 'missed grasp'
        assert np.abs(after.image.astype(int) - seen.image.astype(int)).max() > 30
        for _ in range(4):
            task.step(np.array([0.0, 0, 0, 0, 0, 0, -1]))
        assert task.world.agent.robot.get_qpos()[0, -2:].max() < 0.02, 'the gripper does not close'
    finally:
        task.close()


def test_the_overhead_table_has_the_paper_s_rows():
    from vgps_critic.critic import Critic
    from vgps_policy_bridge.policies.random_policy import RandomPolicy
    rows = measure(RandomPolicy(), Critic.untrained(num_filters=8, image_size=64), (10, 30), repetitions=3)
    assert [r.method for r in rows] == ['policy alone', 'steered, K = 10', 'steered, K = 30']
    assert rows[0].overhead == 1.0 and rows[1].paper == PAPER[10] == 1.28
    assert rows[1].overhead == rows[1].times.median / rows[0].times.median
    assert rows[1].times.quartiles[0] <= rows[1].times.median <= rows[1].times.quartiles[1]
    assert 'with overlap' in markdown(rows, 'x')


def test_a_busy_machine_is_noticed_and_an_impossible_overhead_is_not_printed():
    def table(alone, steered):
        return [OverheadRow('policy alone', alone, 1.0, alone, 1.0, 1.0),
                OverheadRow('steered, K = 30', steered, steered.median / alone.median, steered,
                            steered.median / alone.median, 1.46)]

    calm = table(Times(0.1, (0.09, 0.11)), Times(0.2, (0.19, 0.21)))
    assert doubts(calm, 0.2, 4) == '' and '| 2.00 |' in markdown(calm, 'x')
    assert 'load was 3.5 on 4 cores' in doubts(calm, 3.5, 4)
    assert 'lie far apart' in doubts(table(Times(0.1, (0.05, 0.2)), Times(0.2, (0.19, 0.21))), 0.2, 4)
    absurd = table(Times(0.1, (0.09, 0.11)), Times(0.015, (0.01, 0.02)))
    assert 'less time with than without the critic (steered, K = 30)' in doubts(absurd, 0.2, 4)
    text = markdown(absurd, 'x', doubts(absurd, 0.2, 4))
    assert 'not measurable' in text and '0.15' not in text and 'The machine was busy' in text


def test_a_wrong_call_ends_with_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['vgps-evaluate', 'trials', '--conditions', 'steered', '--output', str(tmp_path)])
    with pytest.raises(SystemExit, match='needs --critic CHECKPOINT'):
        evaluate.main()
    monkeypatch.setattr(sys, 'argv', ['vgps-evaluate', 'trials', '--report-only', '--output', str(tmp_path)])
    with pytest.raises(SystemExit, match='holds no journal'):
        evaluate.main()


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec('mani_skill') is None or 'MS_ASSET_DIR' not in os.environ,
                    reason='needs ManiSkill 3 (pip install mani-skill) and MS_ASSET_DIR with its assets')
def test_a_real_demonstration_and_a_real_trial_are_recorded_as_bags_that_training_reads(tmp_path):
    from vgps_bringup.simulation.collect import collect
    from vgps_bringup.simulation.demonstrator import NO_ERRORS
    from vgps_bringup.trials.simpler.collect import CollectConfig
    from vgps_bringup.trials.simpler.scenes import LAYOUTS
    from vgps_msgs_py.bags.reader import Bag
    name, seed = 'widowx_spoon_on_towel', 1_000_000
    totals = collect(CollectConfig(tmp_path / 'demonstrations', (name,), episodes=1, demonstrator=NO_ERRORS))
    assert totals[name] == {'success': 1}
    runner, result = play(name, 'scripted', seed=3, bag=tmp_path / 'bags' / 't0')
    task, layout = runner._task, LAYOUTS[name]
    scene, other = (np.concatenate([x.positions.ravel(), x.quaternions.ravel()])
                    for x in (layout.official(3), layout.draw(seed)))
    runner.close()
    assert result.bag == 'bags/t0' and (tmp_path / 'bags/t0/video.mp4').exists()
    played = np.concatenate([task.world.xyz_configs.numpy().ravel(), task.world.quat_configs.numpy().ravel()])
    np.testing.assert_allclose(played, scene, atol=1e-6)
    assert np.abs(scene - other).max() > 0.01
    for folder, identity, success in ((tmp_path / 'demonstrations' / f'{name}_0000', f'{name}_{seed}', True),
                                      (tmp_path / 'bags' / 't0', 't0', result.success)):
        bag = Bag(folder)
        episode, = bag.episodes
        outcome = 'success' if success else 'failure'
        assert (bag.problems, episode.episode_id, episode.outcome) == ([], identity, outcome)
        assert episode.instruction == 'put the spoon on the towel'
        assert len(episode.task_states) == len(episode.steps) + 1
        assert {frame.image().shape for frame in bag.frames()} == {(256, 256, 3)}
        first, last = episode.task_states[0], episode.task_states[-1]
        assert not first.success and last.success == success and last.ever_grasped


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec('mani_skill') is None or 'MS_ASSET_DIR' not in os.environ,
                    reason='needs ManiSkill 3 (pip install mani-skill) and MS_ASSET_DIR with its assets')
@pytest.mark.parametrize('name', sorted(MANISKILL))
def test_the_configurations_are_those_of_maniskill(name):
    import gymnasium
    import mani_skill.envs  # noqa: F401  registers them

    from vgps_bringup.trials.simpler.scenes import LAYOUTS
    world = gymnasium.make(MANISKILL[name], obs_mode='rgb+segmentation', num_envs=1, sim_backend='physx_cpu',
                           render_backend='cpu').unwrapped
    np.testing.assert_allclose(LAYOUTS[name].positions, world.xyz_configs.cpu().numpy(), atol=1e-6)
    turns, theirs = LAYOUTS[name].quaternions, world.quat_configs.cpu().numpy()
    alike = np.abs((turns * theirs).sum(-1)) / np.linalg.norm(turns, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert alike.shape == theirs.shape[:2] and alike.min() > 1 - 1e-6
    world.close()
