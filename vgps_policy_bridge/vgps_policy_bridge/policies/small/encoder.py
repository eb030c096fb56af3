"""Image, instruction and robot state to one context vector; built to train on one CPU core."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from vgps_policy_bridge.policies.small.config import SmallConfig

EMBEDDING_DIMENSION = 512  # MUSE
REDUCED_CHANNELS = 16


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """Return a (H, W, 3) uint8 image as (size, size, 3) uint8, squashed and antialiased: in training as on a robot."""
    if image.shape[:2] == (size, size):
        return image
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    small = F.interpolate(pixels, (size, size), mode='bilinear', antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


class Encoder(nn.Module):
    """A small convolutional network; the instruction modulates it (FiLM). Keeps position: no pooling."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        self.config = config
        c1, c2, c3 = config.channels, config.channels * 3 // 2, config.channels * 2
        self.convolutions = nn.ModuleList([
            nn.Conv2d(3, c1, 5, stride=2, padding=2), nn.Conv2d(c1, c2, 3, stride=2, padding=1),
            nn.Conv2d(c2, c3, 3, stride=2, padding=1), nn.Conv2d(c3, c3, 3, padding=1)])
        self.instruction = nn.Sequential(nn.Linear(EMBEDDING_DIMENSION, 64), nn.SiLU())
        self.film = nn.ModuleList([nn.Linear(64, 2 * c3), nn.Linear(64, 2 * c3)])
        for layer in self.film:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.reduce = nn.Conv2d(c3, REDUCED_CHANNELS, 1)
        cells = (config.image_size // 8) ** 2
        self.picture = nn.Sequential(nn.Linear(cells * REDUCED_CHANNELS + 2 * c3, config.width),
                                     nn.LayerNorm(config.width))
        self.joint = nn.Sequential(nn.Linear(config.width + 64 + 7 * config.uses_state, config.width), nn.SiLU(),
                                   nn.Linear(config.width, config.width), nn.SiLU())
        self.register_buffer('state_mean', torch.tensor(config.state_mean), persistent=False)
        self.register_buffer('state_scale', torch.tensor(config.state_scale), persistent=False)

    def forward(self, images: torch.Tensor, embeddings: torch.Tensor, states: torch.Tensor | None) -> torch.Tensor:
        """Return the context (B, width).

        Args:
            images: (B, S, S, 3) uint8, or float32 0..255 after augmentation.
            embeddings: (B, 512) float32 of the instructions.
            states: (B, 7) float32, or None where the policy does not look at it.
        """
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        words = self.instruction(embeddings * EMBEDDING_DIMENSION ** 0.5)  # embeddings have unit length
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if index >= 2:
                scale, shift = self.film[index - 2](words)[:, :, None, None].chunk(2, dim=1)
                x = x * (1 + scale) + shift
            x = F.silu(x)
        # Where each channel looks (spatial softmax) next to a coarse map of what is where.
        parts = [self.reduce(x).flatten(1), _spatial_softmax(x), ]
        parts = [F.silu(self.picture(torch.cat(parts, 1))), words]
        if self.config.uses_state:
            parts.append((states - self.state_mean) / self.state_scale)
        return self.joint(torch.cat(parts, 1))


def _spatial_softmax(x: torch.Tensor) -> torch.Tensor:
    """Return the mean position (B, 2 C) of each channel's activation in -1 .. 1."""
    batch, channels, height, width = x.shape
    weights = x.flatten(2).softmax(-1).view(batch, channels, height, width)
    rows = torch.linspace(-1, 1, height, device=x.device)
    columns = torch.linspace(-1, 1, width, device=x.device)
    return torch.cat([(weights.sum(3) * rows).sum(2), (weights.sum(2) * columns).sum(2)], 1)
