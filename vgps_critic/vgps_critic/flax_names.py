"""The authors' flax parameters and ours: names, layouts and the exact set."""

from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np

from vgps_critic.config import NetworkConfig


class Leaf(NamedTuple):
    """One of the reference's arrays and what it is called here."""

    name: str  # ours
    layout: str  # key of LAYOUTS
    shape: tuple[int, ...]  # the reference's


LAYOUTS = {
    'same': (0, 1, 2),  # per-channel vectors; the members' (E, in, out), which we keep
    'conv': (3, 2, 0, 1),  # HWIO -> OIHW
    'dense': (1, 0),  # (in, out) -> (out, in)
}


def expected_leaves(config: NetworkConfig) -> dict[str, Leaf]:
    """Return every array under the reference's `modules_critic` for a network of these sizes; 178 for the paper's."""
    leaves = {}
    encoder, width = 'encoder/encoder', config.num_filters

    def conv(theirs, ours, kernel, n_in, n_out):
        leaves[f'{encoder}/{theirs}/kernel'] = Leaf(f'encoder.{ours}.weight', 'conv', (kernel, kernel, n_in, n_out))

    def norm(theirs, ours, n):
        leaves[f'{encoder}/{theirs}/scale'] = Leaf(f'encoder.{ours}.weight', 'same', (n,))
        leaves[f'{encoder}/{theirs}/bias'] = Leaf(f'encoder.{ours}.bias', 'same', (n,))

    def dense(theirs, ours, n_in, n_out):
        leaves[f'{theirs}/kernel'] = Leaf(f'{ours}.weight', 'dense', (n_in, n_out))
        leaves[f'{theirs}/bias'] = Leaf(f'{ours}.bias', 'same', (n_out,))

    conv('conv_init', 'conv_init', 7, 5, width)
    norm('norm_init', 'norm_init', width)
    widths = [width * 2**stage for stage, size in enumerate(config.stage_sizes) for _ in range(size)]
    for i, (n_in, n) in enumerate(pairwise([width, *widths])):
        block, film = f'ResNetBlock_{i}', f'{encoder}/FilmConditioning_{i}'
        conv(f'{block}/Conv_0', f'blocks.{i}.conv_0', 3, n_in, n)
        conv(f'{block}/Conv_1', f'blocks.{i}.conv_1', 3, n, n)
        norm(f'{block}/MyGroupNorm_0', f'blocks.{i}.norm_0', n)
        norm(f'{block}/MyGroupNorm_1', f'blocks.{i}.norm_1', n)
        if n_in != n:
            conv(f'{block}/conv_proj', f'blocks.{i}.conv_proj', 1, n_in, n)
            norm(f'{block}/norm_proj', f'blocks.{i}.norm_proj', n)
        # TRAP: the source calls Dense_0 "add", but it multiplies; Dense_1 ("mult") shifts
        dense(f'{film}/Dense_0', f'encoder.films.{i}.multiplier', config.language_dim, n)
        dense(f'{film}/Dense_1', f'encoder.films.{i}.shift', config.language_dim, n)
    members = config.num_members
    for i, (n_in, n) in enumerate(pairwise([widths[-1] + config.action_dim, *config.hidden_dims])):
        leaves[f'network/Dense_{i}/kernel'] = Leaf(f'weights.{i}', 'same', (members, n_in, n))
        leaves[f'network/Dense_{i}/bias'] = Leaf(f'biases.{i}', 'same', (members, n))
    dense('Dense_0', 'last', config.hidden_dims[-1], 1)
    return leaves


def infer_config(shapes: Mapping[str, tuple[int, ...]], image_size: int = 256) -> NetworkConfig:
    """Return the sizes of the critic whose leaves have these shapes; the image size is not in the weights.

    Raises:
        KeyError: a leaf that the sizes are read from is missing.
        ValueError: no network has such sizes.

    """
    filters = shapes['encoder/encoder/conv_init/kernel'][-1]
    widths = []
    while (name := f'encoder/encoder/ResNetBlock_{len(widths)}/Conv_0/kernel') in shapes:
        widths.append(shapes[name][-1])
    hidden = []
    while (name := f'network/Dense_{len(hidden)}/bias') in shapes:
        hidden.append(shapes[name][-1])
    return NetworkConfig(
        stage_sizes=tuple(len(list(blocks)) for _, blocks in groupby(widths)), num_filters=filters,
        image_size=image_size, hidden_dims=tuple(hidden), num_members=shapes['network/Dense_0/bias'][0],
        language_dim=shapes['encoder/encoder/FilmConditioning_0/Dense_0/kernel'][0])


def convert(leaves: dict[str, np.ndarray], config: NetworkConfig) -> dict[str, np.ndarray]:
    """Return all leaves of a critic under our names and in our layouts, as contiguous arrays; empties `leaves`.

    Raises:
        ValueError: a leaf is missing, foreign or of another shape; says which.

    """
    expected = expected_leaves(config)
    for name in sorted(expected.keys() | leaves.keys()):
        if name not in leaves:
            raise ValueError(f'{name} is missing')
        if name not in expected:
            raise ValueError(f'{name} is not part of a critic')
        if leaves[name].shape != expected[name].shape:
            raise ValueError(f'{name} has shape {leaves[name].shape}, expected {expected[name].shape}')
    state = {}
    for name, leaf in expected.items():
        array = leaves.pop(name)  # only one array exists twice at a time
        state[leaf.name] = np.ascontiguousarray(array.transpose(LAYOUTS[leaf.layout][:array.ndim]))
    return state
