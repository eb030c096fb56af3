"""Flow matching: a velocity field carries noise to action chunks (Lipman et al. 2023; straight paths, as in pi0)."""

from __future__ import annotations

import math

import torch
from torch import nn

from vgps_policy_bridge.policies.small.config import SmallConfig
from vgps_policy_bridge.policies.small.encoder import Encoder

TIME_FEATURES = 32
DRAWS_PER_IMAGE = 8  # noise and time drawn anew on one encoder pass: the head is cheap, the encoder is not


class FlowNetwork(nn.Module):
    """Encoder and velocity field v(x_t, t, context) over normalised chunks."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        size = config.horizon * 7
        self.velocity = nn.Sequential(
            nn.Linear(size + TIME_FEATURES + config.width, config.width), nn.SiLU(),
            nn.Linear(config.width, config.width), nn.SiLU(),
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, size))
        # not on the meta device, where linspace takes seconds, to import torch's compiler
        frequencies = torch.exp(torch.linspace(0.0, math.log(100.0), TIME_FEATURES // 2, device='cpu'))
        self.register_buffer('frequencies', frequencies, persistent=False)
        self.register_buffer('mean', torch.tensor(config.action_mean), persistent=False)
        self.register_buffer('scale', torch.tensor(config.action_scale), persistent=False)

    def _field(self, x: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        angles = time[:, None] * self.frequencies
        return self.velocity(torch.cat([x, angles.sin(), angles.cos(), context], 1))

    def loss(self, context: torch.Tensor, actions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return mean |v(x_t, t) - (x_1 - x_0)|^2 with x_t = (1 - t) x_0 + t x_1, x_0 noise and x_1 data.

        Args:
            context: (B, width) of the encoder.
            actions: (B, H, 7) physical.
            generator: of the noise.
        """
        data = ((actions - self.mean) / self.scale).flatten(1)
        context, data = context.repeat(DRAWS_PER_IMAGE, 1), data.repeat(DRAWS_PER_IMAGE, 1)
        noise = torch.randn(data.shape, generator=generator).to(data.device)  # the same on every device
        time = torch.rand(len(data), generator=generator).to(data.device)
        x = (1 - time[:, None]) * noise + time[:, None] * data
        return (self._field(x, time, context) - (data - noise)).square().mean()

    def sample(self, context: torch.Tensor, k: int, temperature: float,
               generator: torch.Generator) -> tuple[torch.Tensor, None]:
        """Return (K, H, 7) physical chunks for one context (1, width); temperature scales the start noise's deviation.

        The log-probability would need the field's divergence and is not computed.
        """
        x = temperature * torch.randn((k, self.config.horizon * 7), generator=generator)
        context = context.expand(k, -1)
        steps = self.config.integration_steps
        for step in range(steps):
            x = x + self._field(x, torch.full((k,), step / steps), context) / steps
        return x.view(k, self.config.horizon, 7) * self.scale + self.mean, None
