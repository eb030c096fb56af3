"""Lanczos resize of whole batches on the training device, with the arithmetic of `vgps_msgs_py.lanczos.resize`."""
import torch
from torch import Tensor

from vgps_msgs_py.lanczos import lanczos_weights

CHUNK = 8  # images at a time on a CPU: temporaries stay in the cache


def resize(frames: Tensor, size: int) -> Tensor:
    """Return frames (B, H, W, 3) uint8 as (B, size, size, 3) uint8; the aspect ratio is not kept."""
    height, width = frames.shape[1:3]
    if (height, width) == (size, size):
        return frames
    rows, columns = (torch.from_numpy(lanczos_weights(n, size)).to(frames.device) for n in (height, width))
    parts = frames.split(len(frames) if frames.is_cuda else CHUNK)
    return torch.cat([_resize(part, rows, columns, size) for part in parts])


def _resize(frames: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    batch, height, width = frames.shape[:3]
    half = rows @ frames.reshape(batch, height, width * 3).to(torch.float32)           # (B, size, W * 3)
    half = half.view(batch, size, width, 3).transpose(2, 3).reshape(batch, size * 3, width)
    out = (half @ columns.T).view(batch, size, 3, size).transpose(2, 3)                # (B, size, size, 3)
    return out.round().clamp_(0, 255).to(torch.uint8)
