"""Actions that no arm can have made are refused, and the reason says what they look like and what converts them."""
import numpy as np
import pytest

from vgps_training.data.checks import check, suspicious, unverified
from vgps_training.data.episode import PLAIN, Episode, Malformed, Reading

FRAME = np.full((8, 8, 3), 9, np.uint8)
NAMES = ('dx', 'dy', 'dz', 'droll', 'dpitch', 'dyaw', 'gripper')


def motions(count=30, size=0.01, seed=0):
    actions = np.random.default_rng(seed).normal(0, size, (count, 7)).astype(np.float32)
    actions[:, 6] = np.arange(count) % 8 > 3
    return actions


def episode(actions, rate=5.0, **more):
    return Episode([FRAME] * len(actions), actions, 'x', True, 'here', rate=rate, **more)


def reason(actions, rate=5.0, reading=PLAIN, **more):
    checked = check(episode(actions, rate, **more), reading)
    return checked.reason if isinstance(checked, Malformed) else None


def with_columns(actions, **columns):
    actions = actions.copy()
    for name, values in columns.items():
        actions[:, NAMES.index(name)] = values
    return actions


def libero(count=30):
    actions = np.random.default_rng(1).uniform(-0.8, 0.8, (count, 7)).astype(np.float32)
    actions[:, 3:6] *= 0.3  # its people hardly turn the hand
    return with_columns(actions, gripper=np.where(np.arange(count) < 12, -1, 1))


@pytest.mark.parametrize('rate', [3, 5, 10, 30, None])
def test_motions_of_an_arm_pass_at_every_rate(rate):
    assert reason(motions(size=0.05 / (rate or 5)), rate) is None


@pytest.mark.parametrize('actions, words', [
    (libero(), ('-1 to 1 are not an openness', 'LIBERO', '-1 is open', '--gripper minus-one-open')),
    (with_columns(motions(), gripper=np.where(np.arange(30) < 9, -1, 1)), ('LIBERO', 'minus-one-closed')),
    (np.cumsum(np.random.default_rng(2).normal(0, 2, (30, 7)), 0) + [40, -80, 60, 5, 20, -9, 55], ('degrees',)),
    (np.cumsum(np.random.default_rng(3).normal(0, .01, (30, 7)), 0) + [.4, -1.2, .9, .1, .6, -.2, .5],
     ('absolute positions',)),
    (with_columns(motions(), dx=7.5, dy=-4), ('not metres', 'millimetres', '--translation-unit 0.001')),
    (with_columns(motions(), dyaw=np.resize([12, -9, 15], 30)), ('not radians', 'degrees', '--rotation-unit')),
    (with_columns(motions(), droll=np.resize([1.3, -1.1], 30)), ('usually 1.', 'not radians', 'degrees')),
    (with_columns(motions(), gripper=np.arange(30) % 2 * 100), ('0 to 100 are not an openness', 'per cent')),
    (with_columns(motions(), dx=0.1), ('add up to 3 m', 'reach')),
    (with_columns(motions(7, 0.003), dx=0.14, dz=0.09, dpitch=0.3), ('the same way', 'absolute positions'))])
def test_what_cannot_be_a_motion_is_named_for_what_it_looks_like(actions, words):
    text = reason(actions.astype(np.float32))
    assert text is not None and all(word in text for word in words), text


def test_a_size_that_is_a_motion_at_three_steps_a_second_is_none_at_thirty():
    actions = with_columns(motions(), dx=np.resize([0.09, -0.09], 30))
    assert reason(actions, 3) is None and 'not metres at 30' in reason(actions, 30)


def test_the_named_options_convert_libero_and_its_kind():
    checked = check(episode(libero(), 20), Reading(gripper='minus-one-open', translation_unit=0.05, rotation_unit=0.5))
    np.testing.assert_allclose(checked.actions[:, :3], libero()[:, :3] * 0.05, rtol=1e-6)
    assert checked.actions[:12, 6].tolist() == [1] * 12 and checked.actions[12:, 6].tolist() == [0] * 18
    assert check(episode(libero(), 20), Reading(gripper='minus-one-closed', translation_unit=0.05,
                                                rotation_unit=0.5)).actions[:12, 6].tolist() == [0] * 12
    with pytest.raises(ValueError, match='minus-one-open'):
        Reading(gripper='open')


def test_a_gripper_that_runs_against_the_fingers_is_refused():
    actions = motions()
    fingers = np.append(actions[0, 6], actions[:-1, 6]) * 0.03  # metres, one step behind
    states = np.zeros((30, 7), np.float32)
    states[:, 6] = fingers
    assert reason(actions, states=states) is None
    inverted = with_columns(actions, gripper=1 - actions[:, 6])
    assert '--gripper closedness' in reason(inverted, states=states)
    assert reason(inverted, reading=Reading(gripper='closedness'), states=states) is None
    assert isinstance(check(episode(inverted), fingers=fingers), Malformed)


def test_a_first_step_of_zeros_is_dropped_with_its_frame_and_state_or_kept_on_request():
    actions = motions()
    actions[0] = 0
    frames = [np.full((8, 8, 3), i, np.uint8) for i in range(30)]
    states = np.arange(210, dtype=np.float32).reshape(30, 7) / 500
    whole = Episode(frames, actions, 'x', True, 'here', states)
    dropped, kept = check(whole), check(whole, Reading(first_zero_step='keep'))
    assert len(dropped.actions) == 29 and dropped.frames[0][0, 0, 0] == 1 and dropped.states[0, 0] == states[1, 0]
    assert 'first step dropped' in dropped.notes[0] and len(kept.actions) == 30
    actions[0, 6] = 1  # an arm that holds still with an open hand did that
    assert len(check(whole).actions) == 30


@pytest.mark.parametrize('column, factor, kept', [(0, 1, True), (0, 1000, False), (4, 57.3, False), (6, 100, False),
                                                  (6, -1, False), (3, 6, True)])
def test_states_in_other_units_are_left_out_by_name_and_cost_nothing_else(column, factor, kept):
    states = np.full((30, 7), 0.4, np.float32)
    states[:, column] *= factor
    checked = check(episode(motions(), states=states))
    assert (checked.states is not None) == kept and len(checked.actions) == 30
    assert kept or 'not metres, radians and openness' in checked.notes[0]


@pytest.mark.parametrize('factor, refused', [(1, False), (0.5, False), (0.1, True), (8, True)])
def test_actions_that_the_hand_followed_by_another_measure_are_refused(factor, refused):
    actions = with_columns(motions(size=0.004), dx=0.03, dz=np.resize([-0.03] * 9 + [0.03] * 6, 30))
    actions[:, :3] /= max(factor, 1)
    states = np.full((30, 7), 0.3, np.float32)
    states[2:, :3] += np.cumsum(factor * actions[:-2, :3], 0)  # one step late
    states[:, :3] += np.random.default_rng(5).normal(0, 1e-3, (30, 3))
    text = reason(actions, states=states)
    assert (text is not None) == refused, text
    if refused:
        scale = float(text.rpartition(' ')[2].rstrip(')'))
        assert scale == pytest.approx(factor, rel=0.15)
        assert reason(actions, reading=Reading(translation_unit=scale), states=states) is None


@pytest.mark.parametrize('factor, words', [(1, None), (np.radians(1), 'they look like degrees'),
                                           (0.1, 'another unit (--rotation-unit 0.1')])
def test_turns_that_the_hand_followed_by_another_measure_are_refused(factor, words):
    actions = with_columns(motions(size=0.004), dyaw=np.resize([0.35] * 9 + [-0.3] * 8, 30), droll=0.05)
    states = np.full((30, 7), 0.3, np.float32)
    states[1:, 3:6] += np.cumsum(factor * actions[:-1, 3:6], 0)
    states[:, 5] = (states[:, 5] + np.pi) % (2 * np.pi) - np.pi
    text = reason(actions, states=states)
    assert words in text if words else text is None, text


def test_an_arm_that_did_not_follow_is_no_other_measure():
    actions = with_columns(motions(), dx=0.02)
    states = np.full((30, 7), 0.3, np.float32)
    states[:, 0] += np.minimum(np.arange(30) * 0.02, 0.06)  # held up by something in its way
    assert reason(actions, states=states) is None
    assert reason(with_columns(motions(), dx=-0.02), states=states) is None  # another frame of axes, perhaps


@pytest.mark.parametrize('spoil, words', [
    (lambda states: states[9].fill(0), 'zero throughout at step 9'), (lambda states: states[0].fill(0), None),
    (lambda states: states[:].__setitem__(slice(None), states[0].copy()), 'never change while motions were commanded')])
def test_states_that_were_lost_or_not_updated_are_left_out(spoil, words):
    actions = with_columns(motions(), dx=0.02)
    states = np.full((30, 7), 0.3, np.float32)
    states[:, 0] += np.arange(30) * 0.02
    spoil(states)
    checked = check(episode(actions, states=states))
    assert (checked.states is None) == bool(words) and (not words or words in checked.notes[0])


def test_black_pictures_are_no_camera_but_one_black_picture_is():
    black, seen = np.zeros((8, 8, 3), np.uint8), Episode([FRAME * 0, *[FRAME] * 29], motions(), 'x', True, 'here')
    assert isinstance(check(seen), Episode)
    assert 'black' in check(Episode([black] * 30, motions(), 'x', True, 'here')).reason


@pytest.mark.parametrize('text, meant', [("b'put it down'", 'put it down'), ('b"don\'t"', "don't"), ("b'a", "b'a"),
                                         ("b'x' or b'y'", "b'x' or b'y'"), ('b', 'b'), ("b'\\xe9'", "b'\\xe9'")])
def test_bytes_that_somebody_printed_are_the_text_in_them(text, meant):
    checked = check(Episode([FRAME] * 30, motions(), text, True, 'here'))
    assert checked.instruction == meant and bool(checked.notes) == (text != meant)


def test_frozen_and_clipped_dimensions_are_named():
    actions = with_columns(motions(200, 0.02), dz=0.0)
    actions[:, 0] = actions[:, 0].clip(-0.01, 0.01)
    actions[:, 6] *= 0.03
    text = '\n'.join(suspicious(actions, np.zeros(1, int), NAMES))
    assert 'dz is 0 in every step' in text and 'dx is at its largest size 0.01' in text and 'finger travel' in text
    assert not suspicious(motions(200), np.zeros(1, int), NAMES)
    half = with_columns(motions(200), gripper=np.arange(200) % 2 * 0.5)
    assert 'only goes from 0 to 0.5' in suspicious(half, np.zeros(1, int), NAMES)[0]


@pytest.mark.parametrize('closed_first, words', [(7, 'begins closed in 100%'), (6, 'begins closed in 86%'), (4, '')])
def test_grippers_that_mostly_begin_closed_are_asked_about(closed_first, words):
    halves = [np.repeat([0.0, 1.0] if i < closed_first else [1.0, 0.0], 5) for i in range(7)]
    text = '\n'.join(suspicious(with_columns(motions(70), gripper=np.concatenate(halves)), np.arange(0, 70, 10), NAMES))
    assert words in text and ('closedness' in text) == bool(words)


def test_what_no_check_can_tell_is_said_with_the_numbers_that_a_person_needs():
    actions = np.zeros((8, 7), np.float32)
    actions[:, 5], actions[[0, 1, 5], 6] = (0.4, -0.4) * 4, 1
    text = unverified(actions, np.array([0, 4]), states=False, pictures_by_name=True)
    assert '0.4 rad (23 degrees) a step' in text and 'begins open in 50% of the episodes' in text
    assert 'one row early or late' in text and 'videos of the same length' in text
    assert unverified(actions, np.array([0, 4]), states=True, pictures_by_name=True) == (
        'not checked: that no two videos of the same length were swapped (see the contact sheet)')
    assert unverified(actions, np.array([0, 4]), states=True, pictures_by_name=False) == ''
