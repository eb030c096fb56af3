"""RT-1-X: what its tokens mean for either robot, by hand, and the whole adapter around a stand-in for the model."""

import hashlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from distributions import p_value

from vgps_policy_bridge.errors import CandidatesError, PolicyError
from vgps_policy_bridge.policies import rt1x
from vgps_policy_bridge.policy import FRACTAL, Observation, check_widowx, load_policy

# The repository's model as far as the adapter touches it. Its logits depend on the newest frame's brightness: the mode
# is 0 (terminate) where that is above one half.
MODEL = """
import numpy as np
class RT1:
    def __init__(self, num_image_tokens, num_action_tokens, layer_size, vocab_size, use_token_learner,
                 world_vector_range):
        assert (num_image_tokens, num_action_tokens, vocab_size, world_vector_range) == (81, 11, 512, (-2.0, 2.0))
    def apply(self, weights, image, words=None, train=None, rngs=None, method=None, act=None, obs_tokens=None,
              act_tokens=None):
        if method == 'tokenize_image':
            assert image.shape == (1, 1, 300, 300, 3) and words.shape == (1, 1, 512) and image.dtype == np.float32
            return np.full((1, 1, 81, 512), image.mean(), np.float32)
        assert obs_tokens.shape == (1, 15, 81, 512) and act_tokens.shape == (1, 15, 11)
        logits = weights['params']['noise'] * 1.0
        logits[-1, 80, 0 if obs_tokens[0, -1].mean() > 0.5 else 1] += 199.0
        return logits.reshape(1, 15 * 92, 512)
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return a function that builds the adapter around the stand-in, with logits (11, 512) of its last step."""
    checkpoint = tmp_path / 'checkpoint'
    checkpoint.mkdir()
    (tmp_path / 'rt1.py').write_text(MODEL)
    np.savez(tmp_path / 'words.npz', instructions=['pick coke can'], embeddings=np.ones((1, 512), np.float32))
    noise = np.random.default_rng(5).normal(0, 2, (15, 92, 512)).astype(np.float32)
    state = {'params': {'noise': noise}, 'batch_stats': {}}
    jax, training = ModuleType('jax'), ModuleType('flax.training')
    jax.jit, jax.device_put, jax.numpy = (lambda f: f), (lambda weights: weights), np
    jax.random = SimpleNamespace(PRNGKey=lambda seed: seed)
    training.checkpoints = SimpleNamespace(restore_checkpoint=lambda folder, target: state)
    for name, module in (('jax', jax), ('flax', ModuleType('flax')), ('flax.training', training)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, 'rt1', raising=False)

    def make(logits=None, **options):
        if logits is not None:
            noise[-1, 80:91] = logits
        return load_policy('rt-1-x', source=str(tmp_path), checkpoint=str(checkpoint),
                           embeddings=str(tmp_path / 'words.npz'), **options)
    yield make
    sys.modules.pop('rt1', None)


def seen(value=51, size=(512, 640)):
    return Observation(np.full((*size, 3), value, np.uint8), 0.0)


def sure(**tokens):
    """Return logits (11, 512) of a model that is sure of every token: those named by their place, else the middle."""
    logits = np.full((11, 512), -50.0, np.float32)
    for place in range(11):
        logits[place, tokens.get(f't{place}', 255)] = 50.0
    return logits


def token(value, end):
    """Return the token whose value is nearest to this one, of a range that ends at +-end."""
    return round((value + end) / (2 * end) * 511)


def test_rt1x_unnormalises_by_hand_computed_values():
    # Token 0 is the low end, 511 the high end, linear between: world vector +-2, rotation +-pi/2, closedness +-1.
    zero = np.array([255.5] * 7)
    actions = rt1x.unnormalise(np.stack([np.zeros(7), np.full(7, 511.0), zero, zero + 511 / 8]))
    np.testing.assert_allclose(actions[0], [-.05] * 3 + [-.25] * 3 + [1.0], atol=1e-7)  # beyond 1.75 / 1.4: clipped
    np.testing.assert_allclose(actions[1], [.05] * 3 + [.25] * 3 + [0.0], atol=1e-7)
    np.testing.assert_allclose(actions[2, :6], 0.0, atol=1e-7)
    np.testing.assert_allclose(actions[3], [0.5 / 1.75 * 0.05] * 3 + [np.pi / 8 / 1.4 * 0.25] * 3 + [0.0], atol=1e-7)


def test_rt1x_draws_follow_the_logits_and_log_probabilities_add_up():
    logits = np.random.default_rng(0).normal(0, 1.5, (2, 6))
    for temperature in (1.0, 0.5):
        p = np.exp(logits / temperature)
        p /= p.sum(1, keepdims=True)
        tokens, log_p = rt1x.draw_tokens(logits, 5000, temperature, np.random.default_rng(1))
        for d in range(2):
            assert p_value(np.bincount(tokens[:, d], minlength=6), p[d]) > 1e-3
        np.testing.assert_allclose(log_p, np.log(p[0][tokens[:, 0]]) + np.log(p[1][tokens[:, 1]]))
    greedy, _ = rt1x.draw_tokens(logits, 20, 0.0, np.random.default_rng(1))
    assert (greedy == logits.argmax(1)).all()


def test_rt1x_resize_is_bilinear_with_half_pixel_centres():
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (60, 1, 3))  # 60 wide, slope 4 per pixel
    small = rt1x.resize(ramp)
    assert small.shape == (300, 300, 3)
    # Output column 150 is input column (150.5 * 0.2 - 0.5) = 29.6.
    assert small[100, 150, 0] == pytest.approx(29.6 * 4 / 255, abs=1e-5)
    assert small[100, 0, 0] == 0.0 and small[100, 299, 0] == pytest.approx(236 / 255, abs=1e-5)
    np.testing.assert_allclose(rt1x.resize(np.full((300, 300, 3), 51, np.uint8)), 0.2)


def test_rt1x_explains_that_the_saved_model_cannot_sample(tmp_path):
    (tmp_path / 'saved_model.pb').touch()
    with pytest.raises(PolicyError, match='takes the argmax'):
        load_policy('rt-1-x', source=str(tmp_path), checkpoint=str(tmp_path))
    with pytest.raises(PolicyError, match='not a folder'):
        load_policy('rt-1-x', source='/no/such', checkpoint=str(tmp_path))


# --- the Google Robot ---


def test_google_actions_are_the_tokens_own_metres_turns_and_changes_by_hand():
    zero = np.array([255.5] * 7)
    tokens = np.stack([zero, zero, zero, zero, zero])
    tokens[0, :3] = 255.5 + 0.1 / 4 * 511, 255.5 - 0.2 / 4 * 511, 255.5 + 0.3 / 4 * 511  # metres, over -2 .. 2
    tokens[1, 5] = 255.5 + 0.4 / np.pi * 511  # about z alone: yaw
    tokens[2, 3:6] = 511, 511, 255.5  # pi/2 about x and y at once: one turn about (1, 1, 0)
    tokens[3, 6], tokens[4, 6] = 255.5 + 0.5 / 2 * 511, 255.5 - 0.05 / 2 * 511
    actions, closing = rt1x.google_actions(tokens, 1.0)
    np.testing.assert_allclose(actions[0], [0.1, -0.2, 0.3, 0, 0, 0, 1], atol=1e-6)  # nothing is scaled or clipped
    np.testing.assert_allclose(actions[1], [0, 0, 0, 0, 0, 0.4, 1], atol=1e-6)
    np.testing.assert_allclose(closing, [0, 0, 0, 0.5, -0.05], atol=1e-6)
    np.testing.assert_allclose(actions[:, 6], [1, 1, 1, 0, 1])
    # Rodrigues' formula for the angle a about (1, 1, 0) / sqrt 2, and the angles that Rz(yaw) Ry(pitch) Rx(roll) needs
    a = np.pi / 2 * np.sqrt(2)
    c, s = np.cos(a), np.sin(a) / np.sqrt(2)
    matrix = np.array([[(1 + c) / 2, (1 - c) / 2, s], [(1 - c) / 2, (1 + c) / 2, -s], [-s, s, c]])
    expected = [np.arctan2(matrix[2, 1], matrix[2, 2]), -np.arcsin(matrix[2, 0]),
                np.arctan2(matrix[1, 0], matrix[0, 0])]
    np.testing.assert_allclose(actions[2, 3:6], expected, atol=1e-6)
    assert np.abs(actions[2, 3:6] - np.pi / 2 * np.array([1, 1, 0])).max() > 0.3, 'angles are no rotation vector'


@pytest.mark.parametrize('closedness, change, before_open, before_closed', [
    (1.0, 1.0, 0, 0), (0.5, 0.5, 0, 0), (0.05, 0.05, 1, 0), (0.005, 0.0, 1, 0), (0.0, 0.0, 1, 0), (-0.005, 0.0, 1, 0),
    (-0.05, -0.05, 1, 0), (-0.5, -0.5, 1, 1), (-1.0, -1.0, 1, 1)])
def test_a_google_gripper_s_state_follows_from_changes_as_in_its_data(closedness, change, before_open, before_closed):
    tokens = np.full((1, 7), 255.5)
    tokens[0, 6] = (closedness + 1) / 2 * 511
    for before, after in ((1.0, before_open), (0.0, before_closed)):
        actions, closing = rt1x.google_actions(tokens, before)
        assert actions[0, 6] == after and closing[0] == pytest.approx(change, abs=1e-6)


def test_google_pictures_are_halved_as_their_data_hold_them():
    image = np.zeros((512, 640, 3), np.uint8)
    image[0, 0], image[0, 1], image[1, 0], image[1, 1] = 10, 21, 30, 40      # mean 25.25
    image[2:4, 2:4] = 200
    small = rt1x.as_recorded(image)
    assert small.shape == (256, 320, 3) and small.dtype == np.uint8
    assert small[0, 0].tolist() == [25] * 3 and small[1, 1].tolist() == [200] * 3 and small[2:].max() == 0
    assert rt1x.as_recorded(small) is small
    assert (rt1x.as_recorded(np.full((512, 640, 3), 128, np.uint8)) == 128).all(), 'no level is lost by rounding'


def test_no_draw_is_a_step_that_no_arm_makes(build):
    policy = build(np.zeros((11, 512)), statistics=FRACTAL)  # every token is as likely: three of four are beyond 0.5 m
    policy.reset('pick coke can', 1)
    candidates = policy.propose(seen(), 500)
    steps = candidates.actions[:, 0, :3]
    assert 0.4 < np.abs(steps).max() <= 0.5
    inside = np.sum(np.abs(-2 + 4 * np.arange(512) / 511) <= 0.5)
    expected = -3 * np.log(inside) - 4 * np.log(512)
    np.testing.assert_allclose(candidates.log_probabilities, expected, rtol=1e-5)
    turns = np.array([rt1x.token_values(np.full((1, 7), 511))[0, 3]])
    assert turns[0] == pytest.approx(np.pi / 2), 'turns are not cut'


def test_the_google_robot_s_adapter_says_all_that_the_runner_needs(build):
    logits = sure(t1=token(0.1, 2), t6=token(0.3, np.pi / 2), t7=token(1.0, 1))
    policy = build(logits, statistics=FRACTAL)
    policy.reset('pick coke can', 1)
    candidates = policy.propose(seen(51), 4)
    assert candidates.statistics == FRACTAL and FRACTAL in candidates.policy
    assert candidates.actions.shape == (4, 1, 7) and candidates.used == ('image', 'instruction')
    # the nearest tokens: 0.1 m is 268 of 511 and 0.09785 m, 0.3 rad is 304 of 511 and 0.29819 rad
    np.testing.assert_allclose(candidates.actions[:, 0, [0, 5]], [[268 / 511 * 4 - 2, (304 / 511 - 0.5) * np.pi]] * 4,
                               atol=2e-5)
    np.testing.assert_allclose(candidates.closing, 1.0)
    assert (candidates.actions[:, 0, 6] == 0).all() and not candidates.finished
    assert policy.propose(seen(204), 4).finished, 'a brighter frame: the most probable mode is terminate'
    with pytest.raises(CandidatesError, match="Google Robot's .*, and this is a WidowX"):
        check_widowx(candidates)


def test_a_held_gripper_keeps_the_state_of_the_candidate_that_was_executed(build):
    logits = np.full((11, 512), -50.0, np.float32)
    logits[:, 255] = 50.0
    logits[7] = -50.0
    logits[7, [0, 255, 511]] = 50.0  # opening, nothing and closing are equally likely
    policy = build(logits, statistics=FRACTAL)
    policy.reset('pick coke can', 1)
    first = policy.propose(seen(), 60)
    closing = {round(float(c)): i for i, c in enumerate(first.closing)}
    assert set(closing) == {-1, 0, 1}
    assert [first.actions[closing[c], 0, 6] for c in (-1, 0, 1)] == [1, 1, 0], 'the episode begins with it open'
    policy.committed(closing[1])
    second = policy.propose(seen(), 60)
    still = np.flatnonzero(second.closing == 0)
    assert (second.actions[still, 0, 6] == 0).all()
    policy.committed(-1)  # nothing was executed: the fingers stay as they were
    third = policy.propose(seen(), 60)
    assert (third.actions[third.closing == 0, 0, 6] == 0).all()
    policy.committed(int(np.flatnonzero(third.closing == -1)[0]))
    fourth = policy.propose(seen(), 60)
    assert (fourth.actions[fourth.closing == 0, 0, 6] == 1).all()
    policy.committed(int(np.flatnonzero(fourth.closing == 1)[0]))
    policy.reset('pick coke can', 2)
    again = policy.propose(seen(), 60)
    assert (again.actions[again.closing == 0, 0, 6] == 1).all(), 'a new episode'


@pytest.mark.parametrize('options', [{}, {'statistics': 'bridge_dataset'}])
def test_the_widowx_s_proposals_are_to_the_bit_those_of_before_the_google_robot(build, options):
    policy = build(**options)
    policy.reset('pick coke can', 3)
    rng, digest, log_p = np.random.default_rng(2), hashlib.sha256(), []
    for _ in range(3):
        candidates = policy.propose(Observation(rng.integers(0, 255, (480, 640, 3), np.uint8), 0.0), 50)
        digest.update(candidates.actions.tobytes())
        log_p.append(candidates.log_probabilities.sum())
        assert candidates.closing is None and not candidates.finished and candidates.statistics == 'bridge_dataset'
        policy.committed(3)
        check_widowx(candidates)
    # printed by the version that knew the WidowX only, around the same stand-in
    assert candidates.policy.startswith('rt-1-x ') and 'statistics' not in candidates.policy
    assert digest.hexdigest() == '3226f20bc6d3d7d2b698023a558a0191e806f82db6d978b1acd093e625c1ca57'
    np.testing.assert_allclose(log_p, [-1554.840576, -1557.623779, -1538.15625], rtol=1e-6)
    picture = rt1x.resize(rng.integers(0, 255, (480, 640, 3), np.uint8))
    assert hashlib.sha256(picture.tobytes()).hexdigest().startswith('3b7542691b4f6eb8381f2a9c93740593')
    assert not policy.propose(seen(204), 1).finished, 'an operator ends the episodes of a WidowX'


def test_other_statistics_are_refused_with_those_it_knows():
    with pytest.raises(PolicyError, match='statistics must be one of bridge_dataset, fractal20220817_data, not .kuka'):
        load_policy('rt-1-x', source='.', checkpoint='.', statistics='kuka')
