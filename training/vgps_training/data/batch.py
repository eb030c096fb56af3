"""One batch of transitions, the only thing an algorithm sees of the data."""
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B transitions (s, a, r, s') on one device. Actions are normalised by the critic's action space, [-1, 1]."""

    images: Tensor          # (B, H, W, 3) uint8 RGB at s
    next_images: Tensor     # (B, H, W, 3) uint8 RGB at s', augmented as s was
    language: Tensor        # (B, 512) float32 instruction embedding
    other_language: Tensor  # (B, 512) float32 embedding of the next item's instruction, for negative instructions
    actions: Tensor         # (B, 7) float32
    next_actions: Tensor    # (B, 7) float32, the data's action at s'
    rewards: Tensor         # (B,) float32
    masks: Tensor           # (B,) float32, 0 where the target is the reward alone
    returns: Tensor         # (B,) float32 discounted Monte-Carlo return

    def __len__(self) -> int:
        return len(self.actions)

    def part(self, start: int, stop: int) -> 'Batch':
        """Return transitions start..stop."""
        return Batch(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})

    def to(self, device: torch.device) -> 'Batch':
        """Return the batch on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def with_negative_instructions(batch: Batch, negative: Tensor, absorbing_value: float) -> Batch:
    """Tell items marked in `negative` (B,) bool the next item's instruction, at which they never succeed.

    Authors' code (goal relabelling): reward -1, mask 1, return -1 / (1 - discount).
    """
    if not negative.any():
        return batch
    return replace(
        batch,
        language=torch.where(negative[:, None], batch.other_language, batch.language),
        rewards=torch.where(negative, -1.0, batch.rewards),
        masks=torch.where(negative, 1.0, batch.masks),
        returns=torch.where(negative, absorbing_value, batch.returns))
