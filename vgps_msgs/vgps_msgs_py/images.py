"""Camera images to RGB arrays and back: the one converter, used live, in training and in evaluation.

It takes ``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` (of rclpy or of a bag), honours ``step`` (padded
rows), ``is_bigendian`` and what cameras add behind the last row. What is no colour picture is refused by name.
"""

import array
import io
from collections.abc import Callable
from typing import Any

import numpy as np

# encoding -> (dtype, channels, order that turns the channels into RGB or None to repeat a single one)
ENCODINGS = {
    'rgb8': (np.uint8, 3, (0, 1, 2)),
    'bgr8': (np.uint8, 3, (2, 1, 0)),
    'rgba8': (np.uint8, 4, (0, 1, 2)),
    'bgra8': (np.uint8, 4, (2, 1, 0)),
    'mono8': (np.uint8, 1, None),
    '8UC1': (np.uint8, 1, None),
    '8UC3': (np.uint8, 3, (2, 1, 0)),  # OpenCV's habit: BGR
    'mono16': (np.uint16, 1, None),    # brightness; the low byte is dropped
}
STREAMS = ('h264', 'h.264', 'h265', 'h.265', 'hevc', 'av1', 'vp8', 'vp9', 'mpeg4')  # made of pictures before
DEPTH = ('16UC1', '32FC1', '16SC1', '64FC1')  # drivers use these for distances
MAX_PIXELS = 64_000_000  # a few bytes can claim more than any memory holds
FLAT, SMALLEST_SCENE = 4, 1024  # colours: a mask has as many or fewer; pixels: fewer say nothing


class ImageError(ValueError):
    """The message cannot be turned into an RGB image; the text says why."""


def to_array(message: Any) -> np.ndarray:
    """Return an Image or CompressedImage as ``(H, W, 3) uint8`` RGB, a copy.

    Raises:
        ImageError: a depth picture, an unknown encoding, too few bytes, or bytes that no decoder reads.

    """
    if hasattr(message, 'format'):
        return decode(bytes(message.data), message.format)
    encoding = message.encoding
    if encoding in DEPTH:
        raise ImageError(f"image encoding '{encoding}' is a depth image, which policy and critic cannot use; give "
                         "the camera's colour topic")
    if encoding not in ENCODINGS:
        raise ImageError(f"image encoding '{encoding}' is not one of {', '.join(ENCODINGS)}")
    height, width, step = message.height, message.width, message.step
    dtype, channels, order = ENCODINGS[encoding]
    row_bytes = width * channels * np.dtype(dtype).itemsize
    if height == 0 or width == 0:
        raise ImageError(f'image is empty: {width} x {height}')
    if step < row_bytes:
        raise ImageError(f'step is {step} bytes, a row of {width} {encoding} pixels needs {row_bytes}')
    if len(message.data) < height * step:
        raise ImageError(f'image holds {len(message.data)} bytes, {height} rows of {step} need {height * step}')
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, :row_bytes]
    if dtype == np.uint16:
        pixels = np.ascontiguousarray(rows).view('>u2' if message.is_bigendian else '<u2')
        rows = (pixels >> 8).astype(np.uint8)
    pixels = rows.reshape(height, width, channels)
    if order is None:
        return np.repeat(pixels, 3, axis=2)
    result = np.empty((height, width, 3), np.uint8)  # a copy in any case: the middleware may reuse the message's memory
    for channel, place in enumerate(order):  # one by one: a quarter of the time of an index over all three
        result[..., channel] = pixels[..., place]
    return result


def first_picture(message: Any) -> np.ndarray:
    """Return what ``to_array`` does, for the frame an episode begins with.

    Raises:
        ImageError: as ``to_array``; or the picture has one level throughout, or a mask's few, which no scene has.

    """
    picture = to_array(message)
    if picture.min() == picture.max():
        raise ImageError(f'the camera sends an image with a single value ({picture.flat[0]}): a depth topic, a covered '
                         'lens or a camera that has not started')
    if complaint := mask(picture):
        raise ImageError(f"the camera sends {complaint}; give the camera's colour topic")
    return picture


def mask(picture: np.ndarray) -> str:
    """Say what a picture ``(H, W, 3) uint8`` is where it has a few flat colours and no scene, else nothing."""
    pixels = picture.reshape(-1, 3)
    for every in (len(pixels) // 499 or 1, 1):  # a scene is told by a few hundred of its pixels
        codes = pixels[::every].astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
        if (count := len(np.unique(codes))) > FLAT:
            return ''
    if len(pixels) < SMALLEST_SCENE or count < 2:
        return ''
    return f'an image of {count} flat colours: a mask or segmentation, not a camera image'


def decode(data: bytes, format: str = '') -> np.ndarray:
    """Return JPEG, PNG or WebP bytes as ``(H, W, 3) uint8`` RGB, turned upright where EXIF says how.

    ``format`` is ``CompressedImage.format``, such as ``bayer_rggb8; jpeg compressed bayer_rggb8``: a driver's raw Bayer
    mosaic is packed as a grey picture, and only this text tells.

    Raises:
        ImageError: not a picture, a depth picture, larger than 64 megapixels, or one whose colours are lost.

    """
    from PIL import Image, ImageOps  # the live nodes' raw images do without
    original = format.split(';')[0].strip()
    if original in DEPTH or 'compresseddepth' in format.lower():
        raise ImageError(f"compressed image of format '{format}' is a depth image; give the camera's colour topic")
    if any(word in format.lower() for word in STREAMS):
        raise ImageError(f"compressed image of format '{format}' belongs to a video stream and cannot be decoded "
                         'alone: let the driver publish jpeg, or decode the stream first')
    try:
        picture: Image.Image = Image.open(io.BytesIO(data))
        if picture.width * picture.height > MAX_PIXELS:
            raise ImageError(f'image of {picture.width} x {picture.height} pixels is too large for a camera')
        picture.load()
        turned = picture.getexif().get(0x0112, 1) != 1
        if turned:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode == '1':
            raise ImageError(f"image with 1 bit per pixel, format '{format}': a mask, not a camera image")
        if picture.mode == 'F':
            raise ImageError(f"image of floating-point numbers, format '{format}': distances, not colours; give the "
                             "camera's colour topic")
        if picture.mode.startswith('I') and original != 'mono16':
            raise ImageError(f"image with 16 bits per pixel, format '{format}': a depth image, or grey values that "
                             "its format does not call mono16; give the camera's colour topic")
        if picture.mode.startswith('I'):
            levels = (np.asarray(picture) >> 8).astype(np.uint8)
        else:
            levels = np.asarray(picture if picture.mode in ('L', 'RGB') else picture.convert('RGB'))
    except ImageError:
        raise
    except Exception as error:  # the library raises a dozen kinds for damaged bytes
        raise ImageError(f"compressed image of format '{format}' cannot be decoded: {_reason(error)}") from error
    if levels.ndim == 3:
        return np.array(levels)
    if original.startswith('bayer_'):
        pattern = original.removeprefix('bayer_').rstrip('0123456789')
        if sorted(pattern) != list('bggr') or not original.endswith('8') or turned:
            raise ImageError(f"compressed image of format '{format}' is a Bayer mosaic that cannot be decoded")
        return demosaic(levels, pattern)
    if any(word in original.lower() for word in ('yuv', 'yuy', 'uyvy', 'rgb', 'bgr')):
        raise ImageError(f"compressed image of format '{format}' carries brightness only: the colours of the camera "
                         'are lost; let the driver publish rgb8')
    return np.repeat(levels[:, :, None], 3, axis=2)


def _reason(error: Exception) -> str:
    return str(error).partition(' <_io.')[0]  # no place in memory: what is said of two pictures is the same


def demosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """Return ``(H, W, 3) uint8`` RGB of a Bayer mosaic ``(H, W) uint8``, bilinear; pattern such as ``rggb``."""
    height, width = mosaic.shape
    tile = np.array(list(pattern)).reshape(2, 2)
    places = np.tile(tile, (height // 2 + 1, width // 2 + 1))[:height, :width]

    def blur(plane: np.ndarray) -> np.ndarray:  # 1 2 1 in both directions, nothing beyond the edge
        for axis in (0, 1):
            padded = np.pad(plane, [(1, 1) if i == axis else (0, 0) for i in (0, 1)])
            size = plane.shape[axis]
            parts = [weight * padded.take(range(i, i + size), axis) for i, weight in enumerate((1, 2, 1))]
            plane = parts[0] + parts[1] + parts[2]
        return plane

    result = np.empty((height, width, 3), np.uint8)
    for channel, letter in enumerate('rgb'):
        here = places == letter
        known = blur(here.astype(np.float32))
        guess = blur(np.where(here, mosaic, 0).astype(np.float32)) / np.maximum(known, 1)
        result[..., channel] = np.where(here, mosaic, np.rint(guess).clip(0, 255))
    return result


def to_message(image: np.ndarray, header: Any) -> Any:
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


TRANSPORTS = ('auto', 'raw', 'compressed')
TRANSPORT = {'description': 'which image topic is used: raw; compressed (topic + /compressed); auto: compressed only '
                            'while the camera offers no raw one', 'choices': TRANSPORTS, 'read_only': True}
LOOK_PERIOD = 0.5  # s between looks at what the camera offers
EYES = 'policy_node'  # the node whose pictures all others take: one stamp must not mean two pictures


def offered(topic: str, transport: str, count_publishers: Callable[[str], int]) -> str:
    """Return the topic to take pictures from: ``topic``, resolved, or the compressed one beside it.

    Raw pictures are preferred: nothing is lost on the way.
    """
    raw = topic.removesuffix('/compressed')
    compressed = f'{raw}/compressed'
    if transport == 'auto' and raw != topic:
        return compressed  # asked for by its name
    alone = count_publishers(compressed) and not count_publishers(raw)
    return compressed if transport == 'compressed' or (transport == 'auto' and alone) else raw


def followed(node: Any, topic: str, transport: str) -> str:
    """Return the topic that policy_node of this namespace takes its pictures from; what is `offered` without one.

    Raw and compressed pictures of one camera have the same stamps and other pixels.
    """
    raw = topic.removesuffix('/compressed')
    if transport == 'auto':
        for name in (raw, f'{raw}/compressed'):
            if any((end.node_name, end.node_namespace) == (EYES, node.get_namespace())
                   for end in node.get_subscriptions_info_by_topic(name)):
                return name
    return offered(topic, transport, node.count_publishers)


class CameraSubscription:
    """A node's subscription to ``image_raw``, or to what the camera offers in its place; follows what is offered.

    ``callback`` gets ``sensor_msgs/Image`` or ``CompressedImage``, which `to_array` takes alike.
    """

    def __init__(self, node: Any, callback: Callable[[Any], None], profile: Any, transport: str, clock: Any,
                 settled: Callable[[], bool] | None = None, changed: Callable[[], None] = lambda: None,
                 topic: str = 'image_raw'):
        """Subscribe; ``clock`` times the looks at the graph, ``transport`` is one of `TRANSPORTS`.

        ``settled`` tells when the topic must stay as it is (an episode has looked); None follows policy_node.
        ``changed`` is called after each change: pictures from before may be others than those of the same stamp now.
        """
        self.topic, self._subscription = '', None
        self._node, self._callback, self._profile, self._transport = node, callback, profile, transport
        self._settled, self._changed, self._wanted = settled, changed, node.resolve_topic_name(topic)
        self.look()
        node.create_timer(LOOK_PERIOD, self.look, clock=clock)

    def look(self) -> None:
        """Look at what is offered, and change over where that is another topic."""
        from sensor_msgs.msg import CompressedImage, Image
        if self._settled is None:
            topic = followed(self._node, self._wanted, self._transport)
        elif self.topic and self._settled():
            return
        else:
            topic = offered(self._wanted, self._transport, self._node.count_publishers)
        if topic == self.topic:
            return
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._node.get_logger().info(f'camera images now come from {topic}')
        kind = CompressedImage if topic.endswith('/compressed') else Image
        self.topic, self._subscription = topic, self._node.create_subscription(
            kind, topic, self._callback, self._profile)
        self._changed()
