"""Bring a camera frame to the size that critics and actors take, exactly as the reference does: Lanczos3, antialiased.

Measured against the reference's own output (TensorFlow): see test_frames.py for the largest pixel difference, and for
what Pillow's LANCZOS would have cost.
"""

from functools import lru_cache

import numpy as np

_RADIUS = 3.0


def check_image(image: np.ndarray) -> np.ndarray:
    """Return the image if it is (H, W, 3) uint8, else raise a `ValueError` that says what it is."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f'image must be uint8 RGB of shape (H, W, 3), got {got}')
    if 0 in image.shape:
        raise ValueError(f'image is empty: shape {image.shape}')
    return image


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image (H, W, 3) uint8 to (size, size, 3) uint8; the aspect ratio is not kept, as in the reference."""
    image = check_image(image)
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    rows, columns = lanczos_weights(height, size), lanczos_weights(width, size)
    half = rows @ image.reshape(height, -1).astype(np.float32)  # (size, W * 3)
    half = half.reshape(size, width, 3).transpose(0, 2, 1).reshape(size * 3, width)
    out = (half @ columns.T).reshape(size, 3, size).transpose(0, 2, 1)
    pixels: np.ndarray = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return pixels


@lru_cache(maxsize=16)
def lanczos_weights(source: int, target: int) -> np.ndarray:
    """Return the (target, source) float32 matrix that resamples one axis."""
    scale = source / target
    stretch = max(scale, 1.0)  # antialias: the kernel widens when shrinking, and only then
    centre = (np.arange(target) + 0.5) * scale
    x = np.abs(np.arange(source) + 0.5 - centre[:, None]) / stretch  # (target, source)
    kernel = np.where(x < _RADIUS, np.sinc(x) * np.sinc(x / _RADIUS), 0.0)
    weights: np.ndarray = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights
