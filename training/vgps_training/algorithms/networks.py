"""Networks that only training needs: the policies of Cal-QL and IQL, IQL's value, Cal-QL's temperature.

Each owns an encoder of the critic's kind (authors' code: `shared_encoder=False`); none is part of a checkpoint.
"""
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgps_critic.network import NetworkConfig, ResNetEncoder, dense

MIN_STD, MAX_STD = 1e-5, 10.0


def _encoder(config: NetworkConfig) -> ResNetEncoder:
    return ResNetEncoder(config.stage_sizes, config.num_filters, config.language_dim)


def _hidden(in_features: int, sizes: tuple[int, ...]) -> nn.Sequential:
    layers = []
    for size in sizes:
        layers += [dense(in_features, size), nn.SiLU()]
        in_features = size
    return nn.Sequential(*layers)


class GaussianActor(nn.Module):
    """Diagonal Gaussian over normalised actions (IQL: not squashed)."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.encoder = _encoder(config)
        self.hidden = _hidden(self.encoder.output_dim, config.hidden_dims)
        self.mean = dense(config.hidden_dims[-1], config.action_dim)
        self.log_std = dense(config.hidden_dims[-1], config.action_dim)

    def forward(self, images: Tensor, language: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (B, 7), for images (B, H, W, 3) uint8 and language (B, L)."""
        h = self.hidden(self.encoder(images, language))
        return self.mean(h), self.log_std(h).exp().clamp(MIN_STD, MAX_STD)

    def log_density(self, mean: Tensor, std: Tensor, actions: Tensor) -> Tensor:
        """Return log pi (B,) of actions (B, 7)."""
        return _normal_log_density((actions - mean) / std, std).sum(-1)


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


class ValueNetwork(nn.Module):
    """V(s, l) of IQL."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.encoder = _encoder(config)
        self.hidden = _hidden(self.encoder.output_dim, config.hidden_dims)
        self.last = dense(config.hidden_dims[-1], 1)

    def forward(self, images: Tensor, language: Tensor) -> Tensor:
        """Return (B,) for images (B, H, W, 3) uint8 and language (B, L)."""
        return self.last(self.hidden(self.encoder(images, language))).squeeze(-1)


class Temperature(nn.Module):
    """The entropy weight T = softplus(parameter), 1 at the start (reference 1.6)."""

    def __init__(self):
        super().__init__()
        self.parameter = nn.Parameter(torch.tensor(math.log(math.e - 1)))

    def forward(self) -> Tensor:
        """Return T, a positive scalar."""
        return functional.softplus(self.parameter)
