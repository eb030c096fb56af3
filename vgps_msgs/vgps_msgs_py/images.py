"""Camera images between ``sensor_msgs/Image`` and RGB arrays.

Uses ``cv_bridge`` where ROS provides it. Elsewhere (the ROS wheels have none) a converter of our own honours
``step`` (padded rows), ``is_bigendian`` and the encodings a camera on this robot sends.
"""

import array

import numpy as np

try:
    from cv_bridge import CvBridge
    _BRIDGE = CvBridge()
except Exception:
    _BRIDGE = None

# encoding -> (dtype, channels, order that turns the channels into RGB or None to repeat a single one)
ENCODINGS = {
    'rgb8': (np.uint8, 3, (0, 1, 2)),
    'bgr8': (np.uint8, 3, (2, 1, 0)),
    'rgba8': (np.uint8, 4, (0, 1, 2)),
    'bgra8': (np.uint8, 4, (2, 1, 0)),
    'mono8': (np.uint8, 1, None),
    '8UC3': (np.uint8, 3, (2, 1, 0)),  # OpenCV's habit: BGR
    '16UC1': (np.uint16, 1, None),
    'mono16': (np.uint16, 1, None),
}


class ImageError(ValueError):
    """The message cannot be turned into an RGB image; the text says why."""


def to_array(message) -> np.ndarray:
    """Return the image as ``(H, W, 3) uint8`` RGB.

    16-bit images (depth in millimetres) lose their low byte: they are for looking at, not for measuring.

    Raises:
        ImageError: unknown encoding, or fewer bytes than height x step.

    """
    if message.encoding not in ENCODINGS:
        raise ImageError(f"image encoding '{message.encoding}' is not one of {', '.join(ENCODINGS)}")
    height, width, step = message.height, message.width, message.step
    dtype, channels, order = ENCODINGS[message.encoding]
    row_bytes = width * channels * np.dtype(dtype).itemsize
    if height == 0 or width == 0:
        raise ImageError(f'image is empty: {width} x {height}')
    if step < row_bytes:
        raise ImageError(f'step is {step} bytes, a row of {width} {message.encoding} pixels needs {row_bytes}')
    if len(message.data) < height * step:
        raise ImageError(f'image holds {len(message.data)} bytes, {height} rows of {step} need {height * step}')
    if _BRIDGE is not None and dtype == np.uint8 and message.encoding != '8UC3':
        return np.ascontiguousarray(_BRIDGE.imgmsg_to_cv2(message, desired_encoding='rgb8'))
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, :row_bytes]
    if dtype == np.uint16:
        pixels = np.ascontiguousarray(rows).view('>u2' if message.is_bigendian else '<u2')
        rows = (pixels >> 8).astype(np.uint8)
    pixels = rows.reshape(height, width, channels)
    if order is None:
        return np.repeat(pixels, 3, axis=2)
    # a copy in any case: the middleware may reuse the message's memory
    return np.array(pixels[:, :, list(order)] if order != (0, 1, 2) else pixels[:, :, :3])


def to_message(image: np.ndarray, header):
    """Return an ``rgb8`` Image with this header from ``(H, W, 3) uint8`` RGB.

    Raises:
        ImageError: another shape or type.

    """
    from sensor_msgs.msg import Image
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f'expected (H, W, 3) uint8, got {image.shape} {image.dtype}')
    message = Image(header=header, height=image.shape[0], width=image.shape[1], encoding='rgb8',
                    step=image.shape[1] * 3)
    # array.array is the one type that is handed over without a check of every element (160 ms for VGA otherwise)
    message.data = array.array('B', image.tobytes())
    return message
