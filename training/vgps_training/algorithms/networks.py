"""Networks that only training needs: IQL's value and Cal-QL's temperature.

The actors are policies, too, and lie with those (`vgps_policy_bridge.policies.actor`). Actors and value own an encoder
of the critic's kind each (authors' code: `shared_encoder=False`).
"""
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgps_critic.network import NetworkConfig
from vgps_msgs_py.film_resnet import ResNetEncoder, dense
from vgps_policy_bridge.policies.actor.network import hidden_layers


class ValueNetwork(nn.Module):
    """V(s, l) of IQL."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.encoder = ResNetEncoder(config.stage_sizes, config.num_filters, config.language_dim)
        self.hidden = hidden_layers(self.encoder.output_dim, config.hidden_dims)
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
