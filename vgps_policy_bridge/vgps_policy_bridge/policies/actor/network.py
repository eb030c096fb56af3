"""The actors of IQL and Cal-QL: a Gaussian over normalised actions, from an encoder of the critic's kind."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgps_msgs_py.film_resnet import ResNetEncoder, dense

MIN_STD, MAX_STD = 1e-5, 10.0


class Sizes(Protocol):
    """What a network needs to know of a configuration: the critic's in training, the actor's own afterwards."""

    stage_sizes: tuple[int, ...]
    num_filters: int
    hidden_dims: tuple[int, ...]
    language_dim: int
    action_dim: int


def hidden_layers(in_features: int, sizes: tuple[int, ...]) -> nn.Sequential:
    """Return dense layers with swish after each, as every head of the reference has."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [dense(in_features, size), nn.SiLU()]
        in_features = size
    return nn.Sequential(*layers)


class GaussianActor(nn.Module):
    """Diagonal Gaussian over normalised actions (IQL: not squashed)."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.encoder = ResNetEncoder(sizes.stage_sizes, sizes.num_filters, sizes.language_dim)
        self.hidden = hidden_layers(self.encoder.output_dim, sizes.hidden_dims)
        self.mean = dense(sizes.hidden_dims[-1], sizes.action_dim)
        self.log_std = dense(sizes.hidden_dims[-1], sizes.action_dim)

    def forward(self, images: Tensor, language: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (B, 7), for images (B, H, W, 3) uint8 and language (B, L)."""
        h = self.hidden(self.encoder(images, language))
        return self.mean(h), self.log_std(h).exp().clamp(MIN_STD, MAX_STD)

    def log_density(self, mean: Tensor, std: Tensor, actions: Tensor) -> Tensor:
        """Return log pi (B,) of actions (B, 7)."""
        return _normal_log_density((actions - mean) / std, std).sum(-1)

    def sample(self, mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions (B, N, 7) and log pi (B, N) of standard normal noise (B, N, 7), reparameterised."""
        return mean[:, None] + std[:, None] * noise, _normal_log_density(noise, std[:, None]).sum(-1)


class TanhGaussianActor(GaussianActor):
    """Diagonal Gaussian squashed into [-1, 1] by tanh (Cal-QL)."""

    def sample(self, mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions (B, N, 7) and log pi (B, N) of standard normal noise (B, N, 7), reparameterised."""
        x = mean[:, None] + std[:, None] * noise
        # log |d tanh / dx| in a form that does not lose digits for large |x|
        squash = 2 * (math.log(2) - x - functional.softplus(-2 * x))
        return torch.tanh(x), (_normal_log_density(noise, std[:, None]) - squash).sum(-1)


def _normal_log_density(standardised: Tensor, std: Tensor) -> Tensor:
    return -0.5 * standardised.square() - std.log() - 0.5 * math.log(2 * math.pi)
