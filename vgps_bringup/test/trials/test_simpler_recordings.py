"""Demonstrations and trials in ManiSkill's tasks as recordings, on a stand-in; the real ones: test_simpler.py."""

import maniskill_stand_in
import numpy as np
import pytest

from vgps_bringup.simulation.collect import collect
from vgps_bringup.simulation.demonstrator import NO_ERRORS
from vgps_bringup.trials.plan import Condition, TaskItem, Trial
from vgps_bringup.trials.simpler.collect import CollectConfig
from vgps_bringup.trials.simpler.environments import ManiSkillTask, axis_angle
from vgps_bringup.trials.simpler.runner import SimplerRunner
from vgps_bringup.trials.simpler.scenes import LAYOUTS, Scene
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.robot_state import rotation_from_euler
from vgps_msgs_py.vocabulary import TaskFailure

SPOON = 'widowx_spoon_on_towel'


@pytest.fixture
def made(monkeypatch):
    return maniskill_stand_in.install(monkeypatch)


def test_demonstrations_are_bags_in_scenes_that_are_not_official(made, tmp_path):
    config = CollectConfig(tmp_path / 'made', (SPOON,), episodes=6, episodes_per_bag=3)
    outcomes = collect(config)[SPOON]
    assert outcomes.total() == 6 and 0 < outcomes['success'] < 6, 'of mixed quality'
    assert len(made) == 2 and all(env.closed for env in made)
    scenes = [Scene(*scene) for env in made for scene in env.scenes]
    assert len(scenes) == 6 and not any(LAYOUTS[SPOON].is_official(scene) for scene in scenes)
    bags = [Bag(config.output / f'{SPOON}_{number:04d}') for number in range(2)]
    episodes = [episode for bag in bags for episode in bag.episodes]
    assert [e.seed for e in episodes] == list(range(1_000_000, 1_000_006))
    assert sum(e.outcome == 'success' for e in episodes) == outcomes['success']
    assert all(bag.problems == [] for bag in bags)
    assert collect(config)[SPOON] == outcomes and len(made) == 2, 'what is there is not made again'


def test_the_script_without_errors_succeeds_and_its_recording_tells_what_happened(made, tmp_path):
    config = CollectConfig(tmp_path / 'made', (SPOON,), episodes=1, demonstrator=NO_ERRORS)
    assert collect(config)[SPOON] == {'success': 1}
    bag = Bag(config.output / f'{SPOON}_0000')
    episode, = bag.episodes
    assert episode.instruction == 'put the spoon on the towel'
    assert len(episode.task_states) == len(episode.steps) + 1
    assert {frame.image().shape for frame in bag.frames()} == {(256, 256, 3)}
    first, last = episode.task_states[0], episode.task_states[-1]
    assert (first.success, first.failure, last.success, last.ever_grasped) == (False, TaskFailure.NEVER_GRASPED, True,
                                                                                 True)
    placed = made[0].scenes[0][0]
    np.testing.assert_allclose(first.object_position, placed[0] - [0, 0, 0.85], atol=1e-6)
    moved = np.diff([np.reshape(step.states[0].measured_pose, (4, 4))[:3, 3] for step in episode.steps], axis=0)
    np.testing.assert_allclose(moved, [step.command.action[:3] for step in episode.steps[1:]], atol=1e-6)
    closed = [step.command.action[6] < 0.5 for step in episode.steps]
    executed = [action[6] < 0 for action in made[0].actions]
    assert executed[closed.index(True) + 2] and not executed[closed.index(True) + 1], 'the gripper flips at the third'


def test_a_trial_is_played_in_the_official_configuration_and_recorded(made, tmp_path):
    runner = SimplerRunner(80, load_critic=None)
    condition = Condition('scripted', 'scripted', selection='first', k=3)
    results = {seed: runner.run(Trial(f't{seed}', 0, TaskItem(SPOON), condition, seed), tmp_path / 'bags' / f't{seed}')
               for seed in (3, 27)}
    runner.close()
    for seed, result in results.items():
        assert result.success and result.bag == f'bags/t{seed}' and (tmp_path / f'bags/t{seed}/video.mp4').exists()
        episode, = Bag(tmp_path / 'bags' / f't{seed}').episodes
        assert (episode.seed, episode.outcome, len(episode.steps)) == (seed, 'success', result.steps)
        assert episode.steps[0].decision.num_candidates == 3
    official = LAYOUTS[SPOON].official(3)
    for scene in made[0].scenes:  # of 24: the 27th is the third again
        np.testing.assert_allclose(scene[0], official.positions, atol=1e-6)
        np.testing.assert_allclose(scene[1], official.quaternions, atol=1e-6)


def test_a_turn_about_several_axes_reaches_maniskill_as_the_angles_that_it_reads(made):
    task = ManiSkillTask('widowx_spoon_on_towel')
    task.reset(0)
    wanted = rotation_from_euler(0.2, -0.15, 0.25)
    task.step(np.array([0.01, 0.0, -0.01, *axis_angle(0.2, -0.15, 0.25), 1.0]))
    x, y, z = made[0].actions[-1][3:6].astype(float)
    # PDEEPoseController: euler_angles_to_matrix(angles, 'XYZ') = Rx(x) Ry(y) Rz(z)
    done = rotation_from_euler(x, 0, 0) @ rotation_from_euler(0, y, 0) @ rotation_from_euler(0, 0, z)
    np.testing.assert_allclose(done, wanted, atol=1e-6)
    assert np.abs(np.array([x, y, z]) - axis_angle(0.2, -0.15, 0.25)).max() > 0.01    # not the same numbers
