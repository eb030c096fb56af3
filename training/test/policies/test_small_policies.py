"""The two trainable policies: sampling, learning, resuming, checkpoints."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs torch')
from vgps_policy_bridge.errors import ObservationError, PolicyError  # noqa: E402
from vgps_policy_bridge.policies.small import checkpoint, policy  # noqa: E402
from vgps_policy_bridge.policies.small.config import SmallConfig  # noqa: E402
from vgps_policy_bridge.policies.small.encoder import shrink  # noqa: E402
from vgps_policy_bridge.policy import Observation  # noqa: E402
from vgps_training.policies import train  # noqa: E402
from vgps_training.policies.data import PolicyData, _places, load_bags, load_npz  # noqa: E402

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
LIMITS = {'action_low': (-0.05,) * 3 + (-0.25,) * 3 + (0.0,), 'action_high': (0.05,) * 3 + (0.25,) * 3 + (1.0,)}
TINY = {'image_size': 32, 'channels': 8, 'width': 64}


def network(kind, **options):
    torch.manual_seed(0)
    return checkpoint.build_network(SmallConfig(kind, horizon=1, bins=16, **TINY, **LIMITS, **options)).eval()


def demonstrations(n=512, seed=0):
    """Return steps that move towards a bright square, or away from it: two modes under one instruction."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 32, 32, 3), np.uint8)
    x = rng.integers(4, 28, n)
    for image, column in zip(images, x):
        image[12:20, column - 4:column + 4] = 255
    actions = np.zeros((n, 7), np.float32)
    actions[:, 1] = (x - 15.5) / 12 * 0.05
    actions[:, 6] = rng.integers(0, 2, n)
    return PolicyData(images, rng.normal(0, 1, (n, 7)).astype(np.float32), actions, np.arange(n) // 8,
                      np.zeros(n, int), np.eye(1, 512, dtype=np.float32), ('push the square',)), x


def test_binned_sampling_has_the_probabilities_of_one_full_pass():
    net = network('binned', uses_state=False)
    context = torch.randn(1, 64)
    for temperature in (1.0, 0.5):
        actions, log_p = net.sample(context, 64, temperature, torch.Generator().manual_seed(1))
        tokens = net.tokenise(actions[:, 0])
        full = (net.logits(context.expand(64, -1), tokens) / temperature).log_softmax(-1)
        expected = full.gather(2, tokens[..., None])[..., 0].sum(1)
        torch.testing.assert_close(log_p, expected, atol=1e-4, rtol=0)


def test_binned_position_never_sees_its_own_or_later_tokens():
    net, tokens = network('binned'), torch.randint(0, 16, (1, 7))
    base = net.logits(torch.zeros(1, 64), tokens)
    for d in range(7):
        changed = tokens.clone()
        changed[0, d] = (changed[0, d] + 1) % 16
        difference = (net.logits(torch.zeros(1, 64), changed) - base).abs().amax(2)[0]
        assert (difference[:d + 1] == 0).all() and (difference[d + 1:] > 0).all()


def test_bins_cost_at_most_half_a_bin():
    net = network('binned')
    low, high = torch.tensor(LIMITS['action_low']), torch.tensor(LIMITS['action_high'])
    actions = low + torch.rand(100, 7) * (high - low)
    error = (net.centres(net.tokenise(actions)) - actions).abs() / (high - low)
    assert error.max() <= 0.5 / 16 + 1e-6
    assert net.tokenise(high[None] + 1).max() == 15 and net.tokenise(low[None] - 1).min() == 0


def test_chunks_end_with_the_episode():
    data, _ = demonstrations(16)
    chunks = data.chunks(3)
    np.testing.assert_array_equal(chunks[5], data.actions[[5, 6, 7]])
    np.testing.assert_array_equal(chunks[7, 0], data.actions[7])
    assert (chunks[7, 1:, :6] == 0).all() and (chunks[7, :, 6] == data.actions[7, 6]).all()
    np.testing.assert_array_equal(chunks[6, 2, :6], np.zeros(6))


@pytest.mark.parametrize('kind', ['flow', 'binned'])
def test_learns_where_to_go_from_the_picture_and_keeps_both_modes(kind, tmp_path):
    data, _ = demonstrations()
    config = train.TrainConfig(kind=kind, steps={'flow': 250, 'binned': 500}[kind], batch_size=64, horizon=1, bins=16,
                               learning_rate=2e-3, averaging=0.98, use_state=False,
                               output=tmp_path / 'p.safetensors', **TINY)
    train.train(data, config, progress=False)
    proposer = policy.SmallPolicy(kind, str(config.output))
    proposer._embedding = data.embeddings[0]
    fresh, x = demonstrations(24, seed=1)
    draws = np.stack([proposer.propose(Observation(image, 0.0, state), 32).actions[:, 0]
                      for image, state in zip(fresh.images, fresh.states)])
    wanted = (x - 15.5) / 12 * 0.05
    assert np.corrcoef(draws[..., 1].mean(1), wanted)[0, 1] > 0.95
    assert np.abs(draws[..., 1].mean(1) - wanted).mean() < 0.006
    # The gripper was a coin in the data: both answers stay, and nothing in between.
    assert set(np.unique(draws[..., 6])) == {0.0, 1.0} and 0.3 < draws[..., 6].mean() < 0.7


def test_resumed_training_equals_uninterrupted(tmp_path):
    data, _ = demonstrations(64)
    data = replace(data, places=np.random.default_rng(1).normal(0, 1, (64, 7)).astype(np.float32))
    config = train.TrainConfig(kind='flow', steps=8, batch_size=8, horizon=2, save_every=3, threads=1, shift=2,
                               places_weight=0.5, output=tmp_path / 'whole.safetensors', **TINY)
    whole = train.train(data, config, progress=False)
    cut = replace(config, output=tmp_path / 'cut.safetensors')

    class StopError(Exception):
        pass
    calls, batch = [], train._batch

    def interrupted(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 6:
            raise StopError
        return batch(*arguments)
    train._batch = interrupted
    try:
        with pytest.raises(StopError):
            train.train(data, cut, progress=False)
    finally:
        train._batch = batch
    assert (tmp_path / 'cut.safetensors.resume').exists()
    with pytest.raises(PolicyError, match='learning_rate'):
        train.train(data, replace(cut, learning_rate=0.5), progress=False)
    resumed = train.train(data, cut, progress=False)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=0, rtol=0)
    assert not (tmp_path / 'cut.safetensors.resume').exists()


def test_places_are_those_of_the_own_episode_and_need_recordings(tmp_path):
    data, _ = demonstrations(16)
    with pytest.raises(PolicyError, match='--places-weight needs recordings'):
        train.train(data, train.TrainConfig(places_weight=1.0, output=tmp_path / 'p', **TINY), progress=False)
    states, actions = np.zeros((8, 7), np.float32), np.ones((8, 7), np.float32)
    states[:, 0] = np.arange(8) / 100  # 1 cm along x per step
    actions[[2, 3, 4], 6] = 0.0        # closes at step 2, holds at 4, has let go at 5; the second episode never closes
    places = _places(states, actions, [6, 2], [True, False])
    np.testing.assert_allclose(places[:5, 0], np.array([4, 3, 2, 1, 0]) / 3, atol=1e-6)  # in units of 3 cm
    np.testing.assert_allclose(places[:6, 4], np.arange(5, -1, -1) / 5, atol=1e-6)
    assert np.isnan(places[6:]).all()


def test_a_shift_moves_the_picture_and_repeats_its_edge():
    image = torch.arange(16.0).reshape(1, 4, 4, 1).repeat(1, 1, 1, 3)
    np.testing.assert_array_equal(train._shifted(image, np.array([[1, 1]]), 1), image)
    moved = train._shifted(image, np.array([[2, 0]]), 1)[0, :, :, 0]  # up by one, right by one
    np.testing.assert_array_equal(moved[0], image[0, 1, [0, 0, 1, 2], 0])
    np.testing.assert_array_equal(moved[3], moved[2])


@pytest.mark.parametrize('kind', ['flow', 'binned'])
def test_same_seed_same_candidates_and_k_is_kept(kind, tmp_path):
    checkpoint.save(tmp_path / 'p.safetensors', network(kind, action_scale=(0.02,) * 7))
    proposer = policy.SmallPolicy(kind, str(tmp_path / 'p.safetensors'))
    observation = Observation(np.zeros((48, 64, 3), np.uint8), 0.0, np.zeros(7))

    def draw(seed):
        proposer.reset('put carrot on plate', seed)
        return [proposer.propose(observation, 20).actions for _ in range(2)]
    first, again, other = draw(3), draw(3), draw(4)
    np.testing.assert_array_equal(first, again)
    assert first[0].shape == (20, 1, 7) and not np.array_equal(*first) and not np.array_equal(first, other)
    with pytest.raises(ObservationError, match='needs the robot state'):
        proposer.propose(Observation(observation.image, 0.0), 2)


def test_checkpoint_survives_the_disk_and_bad_files_are_named(tmp_path):
    net, path = network('binned'), tmp_path / 'p.safetensors'
    checkpoint.save(path, net)
    loaded, digest = checkpoint.load(path)
    assert loaded.config == net.config and len(digest) == 12
    for name, value in net.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, atol=0, rtol=0)
    with pytest.raises(PolicyError, match="holds a 'binned' policy, not 'flow'"):
        policy.SmallPolicy('flow', str(path))
    with pytest.raises(PolicyError, match='vgps-train-policy'):
        checkpoint.load(tmp_path / 'absent.safetensors')
    path.write_bytes(b'not a checkpoint')
    with pytest.raises(PolicyError, match='not a safetensors file'):
        checkpoint.load(path)
    from safetensors.torch import save_file
    save_file({'x': torch.zeros(1)}, path)
    with pytest.raises(PolicyError, match='not a checkpoint of a small policy'):
        checkpoint.load(path)


def hostile(path, edit=lambda settings: None, cut=None, dtype=None):
    """Write a checkpoint with other settings in its header."""
    from safetensors.torch import load_file, save_file
    checkpoint.save(path, network('flow'))
    settings = network('flow').config.to_dict()
    edit(settings)
    weights = {name: tensor.to(dtype or tensor.dtype) for name, tensor in load_file(path).items()}
    save_file(weights, path, {'format': checkpoint.FORMAT, 'config': json.dumps(settings)})
    path.write_bytes(path.read_bytes()[:cut])


@pytest.mark.parametrize('name, value', [
    ('width', 10**9), ('width', 8192), ('width', '256'), ('width', True), ('width', 256.0), ('width', -1),
    ('channels', 0), ('channels', 1024), ('horizon', 10**9), ('bins', None), ('integration_steps', 10**12),
    ('uses_state', 1), ('kind', 5), ('kind', None), ('state_mean', [0] * 6), ('action_scale', 'abcdefg'),
    ('action_scale', [1e300] * 7), ('instructions', 5), ('image_size', [64])])
def test_a_checkpoint_with_impossible_settings_is_refused_before_it_is_built(tmp_path, name, value):
    hostile(tmp_path / 'p', lambda settings: settings.update({name: value}))
    with pytest.raises(PolicyError, match=f'{name} must be|do not fit the configuration'):
        checkpoint.load(tmp_path / 'p')


@pytest.mark.parametrize('how', [{'cut': 40}, {'cut': -100}, {'dtype': torch.bfloat16}, {'dtype': torch.float64},
                                 {'edit': dict.clear}])
def test_a_checkpoint_that_is_cut_off_or_of_another_type_is_refused_by_name(tmp_path, how):
    hostile(tmp_path / 'p', **how)
    with pytest.raises(PolicyError, match='/p'):
        checkpoint.load(tmp_path / 'p')


def test_command_line_trains_from_an_npz_that_holds_larger_images(tmp_path, monkeypatch):
    data, _ = demonstrations(32)
    np.savez(tmp_path / 'd.npz', images=data.images.repeat(2, 1).repeat(2, 2), actions=data.actions,
             states=data.states, episodes=data.episodes, instruction_ids=data.instruction_ids,
             instructions=np.array(data.instructions), embeddings=data.embeddings)
    read = load_npz(tmp_path / 'd.npz', 32)
    assert read.images.shape == data.images.shape and abs(read.images.mean() - data.images.mean()) < 1
    np.testing.assert_array_equal(read.states, data.states)
    output = tmp_path / 'out' / 'p.safetensors'
    output.parent.mkdir()
    monkeypatch.setattr(sys, 'argv', ['vgps-train-policy', '--kind', 'binned', '--data', str(tmp_path / 'd.npz'),
                                      '--output', str(output), '--steps', '2', '--image-size', '32'])
    train.main()
    assert checkpoint.load(output)[0].config.instructions == ('push the square',)
    np.savez(tmp_path / 'd.npz', images=data.images)
    with pytest.raises(SystemExit, match='lacks actions'):
        train.main()


def test_bags_become_arrays_and_episodes_without_state_are_left_out(tmp_path, monkeypatch, capsys):
    bags = pytest.importorskip('vgps_training.data.bags', reason='needs pip install ./training')
    from vgps_training.data.episode import Episode, Malformed

    def episode(n, instruction, state, success=True):
        return Episode([np.full((48, 64, 3), 50, np.uint8)] * n, np.ones((n, 7), np.float32), instruction, success,
                       'x', np.full((n, 7), 2.0, np.float32) if state else None)
    monkeypatch.setattr(bags, 'is_bag', lambda path: path.name == 'bag')
    monkeypatch.setattr(bags, 'read', lambda path: iter(
        [episode(3, 'a', True), episode(4, 'b', False), Malformed('y', 'damaged'), episode(2, 'c', True)]))
    monkeypatch.setattr('vgps_policy_bridge.policies.small.instruction.embed', lambda text: np.ones(512, np.float32))
    (tmp_path / 'bag').mkdir()
    data = load_bags([tmp_path], 32)
    assert data.images.shape == (5, 32, 32, 3) and data.states.shape == (5, 7)
    assert data.episodes.tolist() == [0, 0, 0, 1, 1] and data.instruction_ids.tolist() == [0, 0, 0, 1, 1]
    said = capsys.readouterr().out
    assert data.instructions == ('a', 'c') and '1 of 3 episodes lack' in said and '1 x damaged' in said
    monkeypatch.setattr(bags, 'read', lambda path: iter(
        [episode(3, 'a', True), episode(4, 'b', True, False), episode(2, 'c', True, None)]))
    assert len(load_bags([tmp_path], 32).actions) == 9
    assert load_bags([tmp_path], 32, successes_only=True).instructions == ('a',)
    assert '2 x it is no success' in capsys.readouterr().out
    with pytest.raises(PolicyError, match='no usable episode'):
        load_bags([tmp_path / 'bag' / 'nothing'], 32)
    monkeypatch.setattr(bags, 'read', lambda path: iter([Malformed('y', 'damaged')]))
    with pytest.raises(PolicyError, match='1 x damaged'):
        load_bags([tmp_path], 32)


def test_shrink_keeps_means_and_leaves_the_right_size_alone():
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    small = shrink(image, 32)
    assert small.shape == (32, 32, 3) and abs(small.mean() - image.mean()) < 1
    assert shrink(small, 32) is small


def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PolicyError, match='cuda:99'):
        train.train(demonstrations()[0], train.TrainConfig(output=tmp_path / 'p', steps=1, device='cuda:99', **TINY))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no GPU')
@pytest.mark.parametrize('kind', ['flow', 'binned'])
def test_a_gpu_trains_the_policy_that_a_cpu_trains(tmp_path, kind):
    data, _ = demonstrations()
    config = train.TrainConfig(kind=kind, steps=8, batch_size=64, horizon=1, bins=16, **TINY)
    weights = {}
    for device in ('cpu', 'cuda'):
        train.train(data, replace(config, output=tmp_path / device, device=device), progress=False)
        weights[device] = checkpoint.load(tmp_path / device)[0].state_dict()
    for name, value in weights['cpu'].items():  # eight updates of at most 1e-3 each
        assert (weights['cuda'][name] - value).abs().mean() < 5e-4, name
