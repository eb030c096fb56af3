"""The published value function's network: a two-member critic on top of ResNet-34 with FiLM (`film_resnet`).

Every choice below is the reference's, including the one that looks wrong, marked TRAP. Parameters and compute are
float32. Widths and depths are free, so a small critic for tests or simulation is the same code.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vgps_critic.config import CheckpointError, NetworkConfig
from vgps_msgs_py.film_resnet import ResNetEncoder, dense


def bounded(outputs: Tensor, low: float, high: float) -> Tensor:
    """Return outputs pressed into (low, high): their order stays, and so does a difference in the middle (slope 1)."""
    width = high - low
    return low + width * torch.sigmoid(4 / width * (outputs - (low + high) / 2))


class CriticNetwork(nn.Module):
    """The ensemble Q(s, a, l): one shared encoder, hidden layers per member, one shared last layer."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.encoder = ResNetEncoder(config.stage_sizes, config.num_filters, config.language_dim)
        sizes = (self.encoder.output_dim + config.action_dim, *config.hidden_dims)
        self.weights = nn.ParameterList(_random_weights(config.num_members, n_in, n_out)
                                        for n_in, n_out in itertools.pairwise(sizes))  # each (E, in, out)
        self.biases = nn.ParameterList(torch.zeros(config.num_members, n) for n in sizes[1:])  # each (E, out)
        self.last = dense(sizes[-1], 1)  # TRAP: one layer for all members

    def forward(self, images: Tensor, language: Tensor, actions: Tensor) -> Tensor:
        """Return Q-values (E, B, N) of N normalised actions (B, N, 7) for images (B, H, W, 3) and language (B, L)."""
        return self.q_values(self.encoder(images, language), actions)

    def q_values(self, features: Tensor, actions: Tensor) -> Tensor:
        """Score actions on features that are already there.

        Args:
            features: (B, D) float32, the encoder's output.
            actions: (B, N, 7) float32 in [-1, 1].

        Returns:
            (E, B, N) float32.

        """
        dim = features.shape[-1]
        first = self.weights[0]
        # concat([features, action]) @ W, split so that the features' share is computed once and not N times
        h = torch.einsum('bd,edh->ebh', features, first[:, :dim]) + self.biases[0][:, None]  # (E, B, h)
        h = functional.silu(h[:, :, None] + torch.einsum('bna,eah->ebnh', actions, first[:, dim:]))  # (E, B, N, h)
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:]):
            h = functional.silu(torch.einsum('ebnh,ehk->ebnk', h, weight) + bias[:, None, None])
        outputs = self.last(h).squeeze(-1)
        if self.config.value_range is None:
            return outputs
        return bounded(outputs, *self.config.value_range)


def _random_weights(members: int, n_in: int, n_out: int) -> Tensor:
    weights = torch.empty(members, n_in, n_out)
    for i in range(members):  # in place: torch.stack on the meta device takes seconds, to import torch's compiler
        nn.init.xavier_uniform_(weights[i])
    return weights


def build_network(config: NetworkConfig, state: Mapping[str, np.ndarray], where: str) -> CriticNetwork:
    """Return a network in eval mode that holds exactly `state` (float32 arrays by name).

    Raises:
        CheckpointError: a key is missing, foreign, of another shape or type, or not finite; `where` is quoted.

    """
    with torch.device('meta'):  # no random weights are made only to be overwritten
        network = CriticNetwork(config)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(expected.keys() | state.keys()):
        if name not in state:
            raise CheckpointError(f'{where}: key {name} is missing')
        if name not in expected:
            raise CheckpointError(f'{where}: key {name} is not part of this network')
        array = state[name]
        if array.shape != expected[name]:
            raise CheckpointError(f'{where}: key {name} has shape {array.shape}, expected {expected[name]}')
        if array.dtype != np.float32:
            raise CheckpointError(f'{where}: key {name} is {array.dtype}, expected float32')
        if not np.isfinite(array).all():
            raise CheckpointError(f'{where}: key {name} holds NaN or inf')
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def parameter_count(module: nn.Module) -> int:
    """Return how many numbers the module learns."""
    return sum(p.numel() for p in module.parameters())
