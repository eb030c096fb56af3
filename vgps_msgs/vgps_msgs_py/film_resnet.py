"""The published encoder: a ResNet with FiLM after every block. Critics, actors and IQL's value each own one.

Only this module of the ground floor needs torch: critics and policies must not import each other, and both have it.
Every choice below is the reference's, including the ones that look wrong; see the comments marked TRAP. Parameters and
compute are float32. Widths and depths are free, so a small encoder for tests or simulation is the same code.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return XLA's SAME padding (before, after). TRAP: asymmetric, for even sizes at stride 2 it is (0, 1)."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    return functional.pad(x, (left, right, top, bottom), value=value) if top or bottom or left or right else x


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int, padding: int = 0) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
    if conv.weight.is_meta:  # sizes only: some versions of torch import its compiler, for seconds, to draw nothing
        return conv
    # flax kaiming_normal: a normal truncated at two sigma, rescaled to keep the variance 2 / fan_in
    std = math.sqrt(2 / (kernel * kernel * in_channels)) / 0.87962566103423978
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    return conv


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(4, channels, eps=1e-5)


def dense(in_features: int, out_features: int) -> nn.Linear:
    """Return a linear layer initialised as the reference's: Xavier-uniform weight, zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Basic ResNet-v1 block with group norm and swish."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        # Stride 1 pads 1 on every side; TRAP: stride 2 pads bottom and right only, done in forward
        self.conv_0 = _conv(in_channels, channels, 3, stride, padding=1 if stride == 1 else 0)
        self.norm_0 = _norm(channels)
        self.conv_1 = _conv(channels, channels, 3, 1, padding=1)
        self.norm_1 = _norm(channels)
        self.conv_proj: nn.Module | None = None
        self.norm_proj: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.conv_proj = _conv(in_channels, channels, 1, stride)
            self.norm_proj = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H / stride, W / stride)."""
        y = x if self.stride == 1 else _pad_same(x, 3, self.stride)
        y = functional.silu(self.norm_0(self.conv_0(y)))
        y = self.norm_1(self.conv_1(y))
        if self.conv_proj is not None and self.norm_proj is not None:
            x = self.norm_proj(self.conv_proj(x))
        return functional.silu(x + y)


class Film(nn.Module):
    """Feature-wise linear modulation by the instruction; starts as the identity.

    TRAP: in the reference's parameters Dense_0 (called "add" there) is the multiplier and Dense_1 ("mult") the shift.
    """

    def __init__(self, language_dim: int, channels: int):
        super().__init__()
        self.multiplier = nn.Linear(language_dim, channels)
        self.shift = nn.Linear(language_dim, channels)
        for layer in (self.multiplier, self.shift):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, language: Tensor) -> Tensor:
        """Modulate x (B, C, H, W) by language (B or 1, L)."""
        return x * (1 + self.multiplier(language)[..., None, None]) + self.shift(language)[..., None, None]


class ResNetEncoder(nn.Module):
    """ResNet with FiLM after every block, from image and instruction to one feature vector.

    The critic, the actor and IQL's value net each own one (reference: `shared_encoder=False`).
    """

    def __init__(self, stage_sizes: tuple[int, ...] = (3, 4, 6, 3), num_filters: int = 64, language_dim: int = 512):
        super().__init__()
        self.output_dim = num_filters * 2 ** (len(stage_sizes) - 1)
        self.conv_init = _conv(5, num_filters, 7, 2, padding=3)  # this one pads 3 on all sides, unlike SAME
        self.norm_init = _norm(num_filters)
        blocks, channels = [], num_filters
        for stage, size in enumerate(stage_sizes):
            width = num_filters * 2**stage
            for i in range(size):
                blocks.append(ResidualBlock(channels, width, 2 if stage > 0 and i == 0 else 1))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.films = nn.ModuleList(Film(language_dim, block.conv_1.out_channels) for block in blocks)

    def forward(self, images: Tensor, language: Tensor) -> Tensor:
        """Encode images and instructions.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            language: (B, L) or (1, L) float32, raw embedding.

        Returns:
            (B, output_dim) float32.

        """
        x = images.to(language.dtype) / 127.5 - 1
        x = torch.cat([x, self._rows_and_columns(x)], dim=-1)  # (B, H, W, 5), TRAP: R, G, B, row, column
        x = x.permute(0, 3, 1, 2)  # (B, 5, H, W), channels-last in memory
        x = functional.silu(self.norm_init(self.conv_init(x)))
        x = functional.max_pool2d(_pad_same(x, 3, 2, value=-math.inf), 3, 2)
        for block, film in zip(self.blocks, self.films):
            x = film(block(x), language)
        return x.mean(dim=(2, 3))

    def _rows_and_columns(self, x: Tensor) -> Tensor:
        """Return (B, H, W, 2): -1 at the top / left, +1 at the bottom / right."""
        batch, height, width = x.shape[:3]
        rows = torch.linspace(-1, 1, height, dtype=torch.float64, device=x.device).to(x.dtype)
        columns = torch.linspace(-1, 1, width, dtype=torch.float64, device=x.device).to(x.dtype)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing='ij'), dim=-1)
        return grid.expand(batch, height, width, 2)
