"""The actor of Cal-QL or IQL as a policy: draws follow the seed, a file that does not fit is refused by name."""

import json

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs torch')
from safetensors.torch import load_file, save_file  # noqa: E402

from vgps_msgs_py.embeddings import MUSE, MUSE_NUMPY  # noqa: E402
from vgps_policy_bridge.errors import PolicyError  # noqa: E402
from vgps_policy_bridge.policies.actor import checkpoint  # noqa: E402
from vgps_policy_bridge.policies.actor.checkpoint import ActorConfig, build_network, load, save  # noqa: E402
from vgps_policy_bridge.policies.actor.policy import ActorPolicy  # noqa: E402
from vgps_policy_bridge.policies.small.policy import SHIPPED  # noqa: E402
from vgps_policy_bridge.policy import GRIPPER, Observation, load_policy  # noqa: E402

LOW, HIGH = (-0.05,) * 3 + (-0.25,) * 3 + (0.0,), (0.05,) * 3 + (0.25,) * 3 + (1.0,)
TEXTS = ('put the eggplant in the basket', 'put the carrot on the plate')
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def settings(algorithm='cal-ql', **changes):
    return {'algorithm': algorithm, 'action_low': LOW, 'action_high': HIGH, 'stage_sizes': (1, 1), 'num_filters': 8,
            'image_size': 64, 'hidden_dims': (32, 32), 'text_encoder': 'table', 'instructions': TEXTS, **changes}


def write(path, algorithm='cal-ql', seed=0, **changes):
    torch.manual_seed(seed)
    config = ActorConfig(**settings(algorithm, **changes))
    network = build_network(config)
    for name, parameter in network.named_parameters():
        if '.films.' in name:
            torch.nn.init.normal_(parameter, std=0.05)  # so that the instruction matters
    embeddings = np.random.default_rng(1).normal(0, 0.04, (len(TEXTS), 512))
    save(path, network.state_dict(), config, embeddings)
    return path


def change(path, **changes):
    """Rewrite settings in the header, weights as they are."""
    content = {**json.loads(json.dumps(settings())), 'critic': '', 'data': '', 'step': 0, 'language_dim': 512,
               'binary_gripper': True, **changes}
    save_file(load_file(path), path, {'format': checkpoint.FORMAT, 'config': json.dumps(
        {name: value for name, value in content.items() if value is not None})})


def propose(policy, k, seed=0, steps=1, text=TEXTS[0]):
    policy.reset(text, seed)
    return [policy.propose(Observation(IMAGE, 0.0), k).actions for _ in range(steps)]


@pytest.fixture(params=['iql', 'cal-ql'])
def policy(request, tmp_path):
    return load_policy('actor', checkpoint=str(write(tmp_path / 'actor.safetensors', request.param)))


def test_the_same_seed_gives_the_same_actions_and_each_step_draws_anew(policy):
    first, again, other = propose(policy, 5, 1, 3), propose(policy, 5, 1, 3), propose(policy, 5, 2, 3)
    for a, b, c in zip(first, again, other):
        np.testing.assert_array_equal(a, b)
        assert (a[1:] != c[1:]).any()
    assert (first[0][1:] != first[1][1:]).any()


def test_one_candidate_is_the_mode_and_among_several_the_mode_is_first(policy):
    one, = propose(policy, 1, 3)
    several, = propose(policy, 40, 4)
    np.testing.assert_array_equal(one[0], several[0])
    assert len(np.unique(several[:, 0], axis=0)) == 40
    policy.temperature = 0.0
    np.testing.assert_array_equal(propose(policy, 4, 5)[0], np.repeat(one, 4, 0))


def test_the_temperature_is_a_factor_on_the_variance(tmp_path):
    policy = ActorPolicy(str(write(tmp_path / 'actor.safetensors', 'iql', action_low=(-0.1,) * 6 + (0.0,),
                                   action_high=(0.1,) * 6 + (1.0,))))
    with torch.no_grad():  # narrow enough that nothing reaches the bounds
        policy._network.log_std.weight.zero_()
        policy._network.log_std.bias.fill_(-4.0)
        policy._network.mean.weight.zero_()
    spreads = []
    for policy.temperature in (1.0, 4.0):
        spreads.append(propose(policy, 1000)[0][1:, 0, :GRIPPER].std(0))
    np.testing.assert_allclose(spreads[1], 2 * spreads[0], rtol=1e-3)
    np.testing.assert_allclose(spreads[0], np.exp(-4) * 0.1, rtol=0.1)


def test_actions_lie_within_the_bounds_and_reach_them(policy):
    policy.temperature = 10.0
    actions = propose(policy, 500)[0][:, 0]
    low, high = np.array(LOW, np.float32), np.array(HIGH, np.float32)
    assert (actions >= low - 1e-7).all() and (actions <= high + 1e-7).all()
    np.testing.assert_allclose(actions.min(0), low, atol=1e-2)
    np.testing.assert_allclose(actions.max(0), high, atol=1e-2)
    assert set(np.unique(actions[:, GRIPPER])) == {0.0, 1.0}


def test_the_instruction_and_the_image_matter(policy):
    assert (propose(policy, 1)[0] != propose(policy, 1, text=TEXTS[1])[0]).any()
    policy.reset(TEXTS[0])
    black = policy.propose(Observation(np.zeros((96, 96, 3), np.uint8), 0.0), 1).actions
    assert (black != propose(policy, 1)[0]).any()


@pytest.mark.parametrize('identity, warns', [(MUSE_NUMPY, False), (MUSE, True)])
def test_muse_embeds_any_instruction_and_says_where_it_is_not_the_very_one(tmp_path, identity, warns, recwarn):
    policy = ActorPolicy(str(write(tmp_path / 'actor.safetensors', text_encoder=identity, instructions=())))
    policy.reset('fold the towel')
    assert policy._embedding.shape == (512,) and np.linalg.norm(policy._embedding) == pytest.approx(1, abs=0.05)
    assert any('cosine >= 0.99' in str(warning.message) for warning in recwarn) == warns


def test_an_instruction_that_nobody_can_embed_is_refused(policy):
    with pytest.raises(PolicyError, match=r"'fold the towel' is not among the 2 .* with 'table': put the eggplant"):
        policy.reset('fold the towel')


def test_no_file_and_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(PolicyError, match='no actor at .*vgps-train iql --algorithm.train-actor'):
        load_policy('actor', checkpoint=str(tmp_path / 'none.safetensors'))
    with pytest.raises(PolicyError, match="'checkpoint'"):
        load_policy('actor')


@pytest.mark.parametrize('path, kind', [
    (SHIPPED / 'flow.safetensors', 'vgps-small-policy-1'), (None, 'None')])
def test_another_policy_s_file_and_a_critic_s_are_refused(tmp_path, path, kind):
    if path is None:
        path = tmp_path / 'model.safetensors'
        save_file({'encoder.conv_init.weight': torch.zeros(8, 5, 7, 7)}, path, {'format': kind})
    with pytest.raises(PolicyError, match=f"not the file of an actor .*'{kind}'"):
        ActorPolicy(str(path))


def test_a_file_that_was_cut_off_or_holds_no_numbers_is_refused(tmp_path):
    path = write(tmp_path / 'actor.safetensors')
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    with pytest.raises(PolicyError, match='was it cut off'):
        ActorPolicy(str(path))
    path.write_bytes(content[:4])
    with pytest.raises(PolicyError, match='cut off in its header'):
        ActorPolicy(str(path))
    state = load_file(write(path))
    state['mean.bias'][2] = float('nan')
    save_file(state, path, {'format': checkpoint.FORMAT, 'config': json.dumps(ActorConfig(**settings()).to_dict())})
    with pytest.raises(PolicyError, match='NaN or inf'):
        ActorPolicy(str(path))


@pytest.mark.parametrize('changes, words', [
    ({'algorithm': 'monte-carlo'}, "algorithm must be one of iql, cal-ql, not 'monte-carlo'"),
    ({'action_low': [-0.05] * 6}, 'action_low must be 7 finite numbers'),
    ({'action_high': [1e9] * 7}, 'action_high must be 7 finite numbers'),
    ({'action_low': HIGH, 'action_high': LOW}, r'action_low\[0\] = 0.05 is above action_high\[0\] = -0.05'),
    ({'action_low': [-1.0] * 7, 'action_high': [1.0] * 7}, 'gripper goes from -1 to 1, which is not an openness'),
    ({'image_size': 96.5}, 'image_size must be an integer'), ({'num_filters': 6}, 'multiple of 4'),
    ({'stage_sizes': [1, 10**6]}, 'stage_sizes must be a list'), ({'binary_gripper': 1}, 'binary_gripper must be'),
    ({'instructions': []}, "encoder 'table' is not MUSE, and no embedded instructions"),
    ({'text_encoder': MUSE_NUMPY, 'language_dim': 256}, 'MUSE embeds instructions as 512 numbers'),
    ({'action_low': None}, "missing setting 'action_low'"), ({'wings': 2}, "unknown setting 'wings'"),
    ({'num_filters': 16}, r'encoder.* has shape \(.*\), expected \('),
    ({'hidden_dims': [32, 64]}, r'has shape \(32,\), expected \(64,\)'),
    ({'instructions': [*TEXTS, 'third']}, r'instructions has shape \(2, 512\), expected \(3, 512\)')])
def test_settings_that_do_not_fit_are_refused_by_name(tmp_path, changes, words):
    path = write(tmp_path / 'actor.safetensors')
    change(path)
    ActorPolicy(str(path))  # as it is, it loads
    change(path, **changes)
    with pytest.raises(PolicyError, match=f'{path}.*{words}'):
        ActorPolicy(str(path))


def test_cal_ql_s_weights_under_iql_s_name_are_another_policy(tmp_path):
    """The files differ in a word; the word decides whether tanh follows."""
    squashed = ActorPolicy(str(write(tmp_path / 'cal-ql.safetensors', 'cal-ql')))
    plain = ActorPolicy(str(write(tmp_path / 'iql.safetensors', 'iql')))
    a, b = propose(squashed, 30)[0][:, 0, :GRIPPER], propose(plain, 30)[0][:, 0, :GRIPPER]
    half = np.array(HIGH)[:GRIPPER]
    np.testing.assert_allclose(b, np.clip(np.arctanh(np.clip(a / half, -0.99999, 0.99999)), -1, 1) * half, atol=1e-5)


def test_the_identity_names_algorithm_and_file(tmp_path):
    policy = ActorPolicy(str(write(tmp_path / 'actor.safetensors', 'iql')))
    policy.reset(TEXTS[0])
    candidates = policy.propose(Observation(IMAGE, 0.0), 2)
    assert candidates.policy == f'actor iql {load(tmp_path / "actor.safetensors")[3]}'
    assert candidates.used == ('image', 'instruction') and candidates.temperature == 1.0
