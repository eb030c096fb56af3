"""The network gives the reference's numbers, and every known way to get it wrong is noticed."""

import numpy as np
import pytest
import torch
from full_width import full_width_case
from golden import DATA, golden
from torch.nn import functional

from vgps_critic import flax_names
from vgps_critic.config import CheckpointError, NetworkConfig
from vgps_critic.network import CriticNetwork, build_network, parameter_count
from vgps_msgs_py import film_resnet

torch.set_num_threads(1)


def small_reference():
    with np.load(DATA / 'reference_small.npz') as archive:
        arrays = dict(archive)
    weights = {name.removeprefix('weights/'): a for name, a in arrays.items() if name.startswith('weights/')}
    return weights, arrays


def from_flax(weights):
    config = flax_names.infer_config({name: a.shape for name, a in weights.items()})
    return build_network(config, flax_names.convert(dict(weights), config), 'reference')


@torch.inference_mode()
def q_values(critic, images, language, actions):
    return critic(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (images, language, actions))).numpy()


def error(critic, arrays):
    q = q_values(critic, arrays['image'][None], arrays['language'][None], arrays['actions'][None])
    return np.abs(q[:, 0] - arrays['q_target']).max()


def test_golden_small_critic_scores_like_the_reference():
    scores = golden('critic_scores.npz')
    critic = from_flax(golden('critic_weights.npz'))
    q = q_values(critic, scores['images'], scores['language'], scores['actions'])
    assert np.abs(q.transpose(1, 0, 2) - scores['q_target']).max() <= 5e-6  # measured 7e-7
    with torch.inference_mode():
        features = critic.encoder(torch.from_numpy(scores['images']), torch.from_numpy(scores['language']))
    assert np.abs(features.numpy() - scores['encoding_target']).max() <= 1e-5


def test_reference_weights_that_come_with_the_package_score_like_the_reference():
    weights, arrays = small_reference()
    assert error(from_flax(weights), arrays) <= 5e-6


def test_every_layer_has_the_reference_statistics():
    scores, stages = golden('critic_scores.npz'), golden('critic_stages.npz')
    critic, seen = from_flax(golden('critic_weights.npz')), {}

    def keep(name):
        return lambda module, inputs, output: seen.update({name: output})
    for i, (block, film) in enumerate(zip(critic.encoder.blocks, critic.encoder.films)):
        block.register_forward_hook(keep(f'encoder/ResNetBlock_{i}/__call__'))
        film.register_forward_hook(keep(f'encoder/FilmConditioning_{i}/__call__'))
    critic.encoder.conv_init.register_forward_hook(keep('encoder/conv_init/__call__'))
    critic.encoder.norm_init.register_forward_hook(keep('encoder/norm_init/__call__'))
    q_values(critic, scores['images'], scores['language'], scores['actions'])
    assert len(seen) == 34
    for name, output in seen.items():  # one mean and one deviation per image
        np.testing.assert_allclose(output.mean(dim=(1, 2, 3)), stages[f'stat_mean:{name}'], atol=2e-5, err_msg=name)
        deviation = output.std(dim=(1, 2, 3), correction=0)
        np.testing.assert_allclose(deviation, stages[f'stat_std:{name}'], atol=2e-5, err_msg=name)


def swap_film(monkeypatch, weights):
    return {name.replace('Dense_0', 'x').replace('Dense_1', 'Dense_0').replace('x', 'Dense_1')
            if 'Film' in name else name: a for name, a in weights.items()}


def swap_rows_and_columns(monkeypatch, weights):
    kernel = weights['encoder/encoder/conv_init/kernel'][:, :, [0, 1, 2, 4, 3]]
    return {**weights, 'encoder/encoder/conv_init/kernel': kernel}


def blue_first(monkeypatch, weights):
    kernel = weights['encoder/encoder/conv_init/kernel'][:, :, [2, 1, 0, 3, 4]]
    return {**weights, 'encoder/encoder/conv_init/kernel': kernel}


def one_hidden_layer_for_all_members(monkeypatch, weights):
    return {name: np.repeat(a[:1], 2, axis=0) if name.startswith('network/') else a for name, a in weights.items()}


def pad_evenly_where(monkeypatch, is_pool):
    pad_same = film_resnet._pad_same

    def pad(x, kernel, stride, value=0.0):
        if (value != 0.0) == is_pool:
            return functional.pad(x, (1, 1, 1, 1), value=value)
        return pad_same(x, kernel, stride, value)
    monkeypatch.setattr(film_resnet, '_pad_same', pad)


def symmetric_conv_padding(monkeypatch, weights):
    pad_evenly_where(monkeypatch, is_pool=False)
    return weights


def symmetric_pool_padding(monkeypatch, weights):
    pad_evenly_where(monkeypatch, is_pool=True)
    return weights


def pad_the_pool_with_zeros(monkeypatch, weights):
    pad_same = film_resnet._pad_same
    monkeypatch.setattr(film_resnet, '_pad_same', lambda x, kernel, stride, value=0.0: pad_same(x, kernel, stride))
    return weights


def same_padding_of_the_first_convolution(monkeypatch, weights):
    convolve = torch.nn.Conv2d.forward

    def forward(self, x):
        if self.kernel_size == (7, 7):
            return functional.conv2d(functional.pad(x, (2, 3, 2, 3)), self.weight, stride=2)
        return convolve(self, x)
    monkeypatch.setattr(torch.nn.Conv2d, 'forward', forward)
    return weights


def group_norm_epsilon(monkeypatch, weights):
    monkeypatch.setattr(film_resnet, '_norm', lambda channels: torch.nn.GroupNorm(4, channels, eps=1e-3))
    return weights


def relu_for_swish(monkeypatch, weights):
    monkeypatch.setattr(functional, 'silu', functional.relu)
    return weights


TRAPS = [swap_film, swap_rows_and_columns, blue_first, one_hidden_layer_for_all_members, symmetric_conv_padding,
         symmetric_pool_padding, pad_the_pool_with_zeros, same_padding_of_the_first_convolution, group_norm_epsilon,
         relu_for_swish]


@pytest.mark.parametrize('trap', TRAPS)
def test_trap_is_noticed(trap, monkeypatch):
    weights, arrays = small_reference()
    assert error(from_flax(trap(monkeypatch, weights)), arrays) > 5e-5  # ten times what the golden tests allow


def test_language_matters_once_film_is_not_zero_and_not_before():
    fresh = CriticNetwork(NetworkConfig(num_filters=4))
    images, actions = np.full((1, 64, 64, 3), 90, np.uint8), np.zeros((1, 1, 7), np.float32)
    one, two = (q_values(fresh, images, np.full((1, 512), value, np.float32), actions) for value in (0.0, 1.0))
    np.testing.assert_array_equal(one, two)
    torch.nn.init.normal_(fresh.encoder.films[0].shift.weight)
    assert (q_values(fresh, images, np.full((1, 512), 1.0, np.float32), actions) != two).all()


def test_one_embedding_serves_a_batch_of_images():
    critic = CriticNetwork(NetworkConfig(num_filters=4))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    language, actions = np.ones((1, 512), np.float32), np.zeros((3, 2, 7), np.float32)
    np.testing.assert_allclose(q_values(critic, images, language, actions),
                               q_values(critic, images, language.repeat(3, axis=0), actions), atol=1e-6)


def test_full_width_has_the_papers_parameters_and_leaves():
    with torch.device('meta'):
        critic = CriticNetwork(NetworkConfig())
    leaves = flax_names.expected_leaves(NetworkConfig())
    assert parameter_count(critic) == 25_563_201 and parameter_count(critic.encoder) == 25_165_120
    assert len(leaves) == 178
    assert {leaf.name for leaf in leaves.values()} == set(critic.state_dict())
    assert parameter_count(critic.last) == 257  # shared by both members


@pytest.mark.parametrize('stage_sizes, filters, size', [((1, 1), 4, 64), ((2, 1, 1), 8, 128), ((3, 4, 6, 3), 4, 96)])
def test_any_width_depth_and_image_size_is_the_same_code(stage_sizes, filters, size):
    config = NetworkConfig(stage_sizes=stage_sizes, num_filters=filters, image_size=size, hidden_dims=(32, 16))
    critic = CriticNetwork(config)
    q = q_values(critic, np.zeros((2, size, size, 3), np.uint8), np.zeros((2, 512), np.float32),
                 np.zeros((2, 5, 7), np.float32))
    assert q.shape == (2, 2, 5)
    leaves = flax_names.expected_leaves(config)
    assert flax_names.infer_config({name: leaf.shape for name, leaf in leaves.items()}, size) == config


def test_same_padding_is_xlas():
    assert film_resnet.same_padding(256, 3, 2) == (0, 1)
    assert film_resnet.same_padding(255, 3, 2) == (1, 1)
    assert film_resnet.same_padding(64, 3, 1) == (1, 1)
    assert film_resnet.same_padding(64, 1, 2) == (0, 0)


def test_initial_weights_follow_the_reference_distributions():
    torch.manual_seed(0)
    critic = CriticNetwork(NetworkConfig(num_filters=32))
    weight = critic.encoder.blocks[15].conv_1.weight
    assert weight.var().item() == pytest.approx(2 / (9 * 256), rel=0.02)
    assert weight.abs().max().item() <= 2 * (2 / (9 * 256)) ** 0.5 / 0.8796 + 1e-6
    first = critic.weights[0]
    assert first.abs().max().item() <= (6 / (first.shape[1] + first.shape[2])) ** 0.5  # fans of one member
    assert sum(p.abs().sum().item() for p in critic.encoder.films.parameters()) == 0


@pytest.mark.parametrize('change, words', [
    (lambda s: s.pop('last.bias'), 'last.bias is missing'),
    (lambda s: s.update(extra=np.zeros(1, np.float32)), 'extra is not part'),
    (lambda s: s.update({'last.bias': np.zeros(2, np.float32)}), r'last.bias has shape \(2,\), expected \(1,\)'),
    (lambda s: s.update({'last.bias': np.zeros(1, np.float64)}), 'last.bias is float64'),
    (lambda s: s.update({'last.bias': np.full(1, np.nan, np.float32)}), 'last.bias holds NaN')])
def test_a_state_that_does_not_fit_names_the_key(change, words):
    weights, _ = small_reference()
    config = flax_names.infer_config({name: a.shape for name, a in weights.items()})
    state = flax_names.convert(weights, config)
    change(state)
    with pytest.raises(CheckpointError, match=words):
        build_network(config, state, 'here')


def test_full_width_scores_like_the_reference():
    leaves, images, language, actions = full_width_case()
    with np.load(DATA / 'reference_full_width.npz') as archive:
        expected = archive['q']  # (2, 2, 5), the authors' code on the same arrays
    q = q_values(from_flax(leaves), images, language, actions)
    assert np.ptp(expected) > 0.1
    assert np.abs(q.transpose(1, 0, 2) - expected).max() <= 1e-5
