"""A critic's encoder, unchanged, with a new readout: what `vgps-pretrain --critic` fits to a robot's own episodes.

A hundred episodes are too few to train an image encoder (vgps_bringup/doc/study.md: a tenth of the demonstrations
taught it nothing), but enough for a linear map from what a trained encoder sees to where this robot's gripper is, and
where it grasps and releases. Teachers are `hindsight`'s: what the recordings hold anyway.
"""
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vgps_critic import checkpoint
from vgps_critic.network import NetworkConfig, build_network
from vgps_msgs_py.film_resnet import ResNetEncoder
from vgps_training.data import hindsight
from vgps_training.data.table import StepTable

RIDGE = 0.03       # of the standardised features' variance, times the number of frames
BATCH = 256        # frames encoded at a time
SMALL = 1e-3       # singular value, relative to the largest, below which the critic's heads look nowhere


def load_encoder(critic: str) -> tuple[NetworkConfig, ResNetEncoder, np.ndarray]:
    """Return sizes, frozen encoder and (D, r) orthonormal directions of its features that the critic's heads look at.

    A critic with heads on a linear readout looks at no more directions than that had rows; an end-to-end one at all.

    Raises:
        CheckpointError: it does not load.

    """
    state, config, _ = checkpoint.read(critic)
    network = build_network(config.network, state, critic)
    encoder = network.encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    first = network.weights[0][:, :encoder.output_dim].permute(1, 0, 2).flatten(1).double().numpy()  # (D, E h)
    directions, sizes, _ = np.linalg.svd(first, full_matrices=False)
    return config.network, encoder, directions[:, sizes > SMALL * sizes[0]]


@torch.no_grad()
def encode(encoder: ResNetEncoder, table: StepTable, embeddings: Tensor) -> np.ndarray:
    """Return features (N, D) float64 of every frame of a table, given an embedding (I, L) per instruction."""
    language = embeddings[torch.from_numpy(table.per_step(table.instruction)).long()]
    parts = np.array_split(np.arange(len(table)), math.ceil(len(table) / BATCH))
    return torch.cat([encoder(torch.from_numpy(table.images(part)), language[part]) for part in parts]).double().numpy()


def fit(features: np.ndarray, directions: np.ndarray, table: StepTable) -> nn.Linear:
    """Return the readout: D features to `hindsight.NAMES` and a logit-like chance of success, by ridge regression.

    Raises:
        ValueError: the data hold no robot states.

    """
    if table.states is None:
        raise ValueError('no robot states recorded; the readout is fitted to them')
    when = hindsight.events(table.actions, table.starts)
    own = hindsight.own_places(table.states, when, table.success)
    truth = hindsight.targets(table.states, when, own, table.starts, table.success)
    seen = features @ directions
    mean, deviation = seen.mean(0), seen.std(0) + 1e-6
    standard = np.concatenate([(seen - mean) / deviation, np.ones((len(seen), 1))], 1)
    # a failure tells less well where the object was
    certainty = np.where(truth.success > 0, 1.0, hindsight.FAILURE_WEIGHT)
    targets = np.concatenate([truth.values, 2 * truth.success[:, None] - 1], 1)
    known = np.concatenate([truth.known, np.ones((len(targets), 1))], 1)
    known[:, hindsight.RELATIVE] *= certainty[:, None]
    weights = np.zeros((standard.shape[1], targets.shape[1]))
    for column in range(targets.shape[1]):
        weighted = standard * known[:, column:column + 1]
        penalty = RIDGE * max(known[:, column].sum(), 1.0) * np.eye(standard.shape[1])
        penalty[-1, -1] = 1e-6
        weights[:, column] = np.linalg.solve(weighted.T @ standard + penalty, weighted.T @ targets[:, column])
    readout = nn.Linear(features.shape[1], targets.shape[1])
    rows = (weights[:-1] / deviation[:, None]).T  # (P, r)
    with torch.no_grad():
        readout.weight.copy_(torch.from_numpy(rows @ directions.T))
        readout.bias.copy_(torch.from_numpy(weights[-1] - rows @ mean))
    return readout


def refit(critic: str, table: StepTable, embeddings: np.ndarray) -> tuple[NetworkConfig, ResNetEncoder, nn.Linear]:
    """Return a critic's sizes and encoder with a readout fitted to a table, as `frozen.save` takes them."""
    config, encoder, directions = load_encoder(critic)
    return config, encoder, fit(encode(encoder, table, torch.from_numpy(embeddings)), directions, table)


def image_size(critic: str | Path) -> int:
    """Return the side of a critic's square input, pixels."""
    return checkpoint.read(critic)[1].network.image_size
