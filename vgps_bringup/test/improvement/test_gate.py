"""The gate: good candidates pass, and each bad one is refused by the name of what is wrong with it."""

from dataclasses import replace

import numpy as np
import pytest
from small_world import STEPS, flipped, learn, outlook_of, record

from vgps_bringup.improvement import calibration, gate
from vgps_bringup.improvement.gate import check_data

pytestmark = pytest.mark.slow


def judged(episodes, features, in_use=None, **options):
    """Return the gate's verdict on a candidate learnt from these episodes."""
    fold = np.arange(len(episodes)) % 4
    scored = learn(episodes, features, fold, **options)
    base = outlook_of(features)
    tracks = [calibration.follow(base, e, s) for e, s in zip(episodes, scored)]
    _, facts = calibration.calibrated(base, tracks, fold, 0.05)
    return gate.judge(episodes, scored, in_use, facts['calibration_error'])


def names(verdict):
    return {reason.split(':')[0] for reason in verdict.reasons}


def test_at_least_nine_of_ten_good_candidates_are_accepted():
    accepted = 0
    for seed in range(10):
        episodes, features = record(seed)
        accepted += check_data(episodes).accepted and judged(episodes, features).accepted
    assert accepted >= 9


@pytest.mark.parametrize('seed', range(5))
def test_labels_of_which_30_percent_are_flipped_are_refused(seed):
    episodes, features = record(seed)
    assert 'LABELS' in names(judged(flipped(episodes, 0.3), features))


def test_frames_of_another_camera_are_refused_as_another_scene():
    _, known = record(0)
    episodes, features = record(1, camera=6.0)
    seen = learn(episodes, features, np.arange(len(episodes)) % 4)
    assert names(check_data(episodes, known=outlook_of(known), seen=seen)) == {'OTHER_SCENE'}


def test_frames_of_which_a_third_show_another_table_are_refused_as_another_scene():
    _, known = record(0)
    (mine, ours), (other, theirs) = record(1, count=70), record(2, count=30, camera=4.0)
    episodes, features = mine + other, ours + theirs
    seen = learn(episodes, features, np.arange(len(episodes)) % 4)
    assert names(check_data(episodes, known=outlook_of(known), seen=seen)) == {'OTHER_SCENE'}


def test_new_episodes_of_the_same_scene_are_not_called_another():
    _, known = record(0)
    episodes, features = record(1)
    seen = learn(episodes, features, np.arange(len(episodes)) % 4)
    assert check_data(episodes, known=outlook_of(known), seen=seen).accepted


def test_a_gripper_that_was_recorded_the_wrong_way_round_is_refused():
    episodes, _ = record(0)
    turned = [replace(e, actions=np.concatenate([e.actions[:, :6], 1 - e.actions[:, 6:]], 1)) for e in episodes]
    assert names(check_data(turned)) == {'GRIPPER'}


def test_three_episodes_are_too_few_and_a_hundred_of_one_outcome_tell_nothing_apart():
    episodes, _ = record(0, count=3)
    assert 'TOO_FEW_EPISODES' in names(check_data(episodes))
    successes = [replace(e, success=True) for e in record(0)[0]]
    assert 'ONE_OUTCOME' in names(check_data(successes))


def test_a_candidate_with_its_taste_in_actions_turned_round_is_refused():
    verdict = judged(*record(0), taste=-1.0)
    assert 'ACTIONS' in names(verdict)
    assert verdict.metrics['labels'].low > 0.75  # its values are right: only the choice among candidates is harmful


def test_a_taste_in_actions_that_does_not_look_at_the_scene_is_refused_though_it_likes_good_draws():
    verdict = judged(*record(0), looks=False)
    assert names(verdict) == {'ACTION_AUC'}
    assert verdict.metrics['actions'].low > 0.5


def test_a_candidate_without_opinion_on_actions_is_refused_as_flat():
    assert 'FLAT' in names(judged(*record(0), taste=0.0))


def test_a_candidate_that_is_worse_than_the_critic_in_use_is_refused_with_both_numbers():
    episodes, features = record(0)
    good = learn(episodes, features, np.arange(len(episodes)) % 4)
    blurred = [f + np.random.default_rng(i).normal(0, 8, f.shape).astype(np.float32) for i, f in enumerate(features)]
    verdict = judged(episodes, blurred, in_use=good)
    assert any(reason.startswith('WORSE_OUTCOMES') and 'of the critic in use' in reason for reason in verdict.reasons)


def test_a_candidate_whose_taste_in_actions_is_worse_than_that_of_the_critic_in_use_is_refused():
    episodes, features = record(0)
    good = learn(episodes, features, np.arange(len(episodes)) % 4)
    assert 'WORSE_ACTION_AUC' in names(judged(episodes, features, looks=False, in_use=good))
    assert 'WORSE_ACTION_AUC' not in names(judged(episodes, features, in_use=good))


def test_recordings_with_one_candidate_per_step_leave_the_question_about_actions_open():
    episodes, features = record(0)
    plain = [replace(e, candidates=e.candidates[:, :1], chances=np.ones((STEPS, 1), np.float32),
                     chosen=np.zeros(STEPS, int)) for e in episodes]
    verdict = judged(plain, features)
    assert any('one candidate per step' in remark for remark in verdict.remarks)
    assert 'ACTIONS' not in names(verdict)


def test_the_luck_of_the_draw_is_not_confounded_by_how_hard_the_scene_is():
    # the scene alone decides: whoever likes any action at all must not look good by it
    rng = np.random.default_rng(3)
    episodes, features = record(0, count=400)
    episodes = [replace(e, success=bool(rng.random() < 0.5)) for e in episodes]
    verdict = gate.judge(episodes, learn(episodes, features, np.arange(400) % 4), None, 0.0)
    assert verdict.metrics['actions'].low < 0.5 < verdict.metrics['actions'].high
