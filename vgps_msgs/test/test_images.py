"""The image converter against hand-made pixels and against an independent implementation."""

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vgps_msgs_py import images

RNG = np.random.default_rng(0)


def message(encoding, channels, dtype=np.uint8, height=5, width=7, padding=0, big=False):
    pixels = RNG.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)
    rows = pixels.astype('>u2' if big else '<u2') if dtype == np.uint16 else pixels
    data = np.frombuffer(rows.tobytes(), np.uint8).reshape(height, -1)
    data = np.pad(data, ((0, 0), (0, padding)), constant_values=99)
    result = Image(height=height, width=width, encoding=encoding, step=data.shape[1], is_bigendian=int(big))
    result.data = data.tobytes()
    return result, pixels


@pytest.fixture(autouse=True)
def without_cv_bridge(monkeypatch):
    monkeypatch.setattr(images, '_BRIDGE', None)


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding, channels, order', [
    ('rgb8', 3, [0, 1, 2]), ('bgr8', 3, [2, 1, 0]), ('rgba8', 4, [0, 1, 2]), ('bgra8', 4, [2, 1, 0]),
    ('mono8', 1, [0, 0, 0]),
])
def test_every_encoding_becomes_rgb_whatever_the_row_padding(encoding, channels, order, padding):
    source, pixels = message(encoding, channels, padding=padding)
    np.testing.assert_array_equal(images.to_array(source), pixels[:, :, order])


@pytest.mark.parametrize('big', [False, True])
def test_sixteen_bit_images_keep_their_high_byte_in_both_byte_orders(big):
    source, pixels = message('16UC1', 1, np.uint16, big=big, padding=2)
    np.testing.assert_array_equal(images.to_array(source), np.repeat(pixels >> 8, 3, axis=2))


@pytest.mark.parametrize('encoding, channels', [('rgb8', 3), ('bgr8', 3), ('rgba8', 4), ('bgra8', 4), ('mono8', 1)])
def test_agrees_with_rosbags_image(encoding, channels):
    rosbags_image = pytest.importorskip('rosbags.image')
    source, _ = message(encoding, channels)
    np.testing.assert_array_equal(images.to_array(source), rosbags_image.message_to_cvimage(source, 'rgb8'))


@pytest.mark.parametrize('encoding, channels', [('rgb8', 3), ('bgr8', 3), ('rgba8', 4), ('bgra8', 4), ('mono8', 1)])
def test_agrees_with_cv_bridge(encoding, channels, monkeypatch):
    bridge = pytest.importorskip('cv_bridge', reason='cv_bridge comes with apt ROS only').CvBridge()
    source, _ = message(encoding, channels, padding=3)
    own = images.to_array(source)
    monkeypatch.setattr(images, '_BRIDGE', bridge)
    np.testing.assert_array_equal(images.to_array(source), own)


def test_round_trip_keeps_pixels_and_header():
    pixels = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    header = Header(frame_id='camera')
    header.stamp.nanosec = 7
    there = images.to_message(pixels, header)
    assert (there.header.stamp.nanosec, there.header.frame_id) == (7, 'camera')
    np.testing.assert_array_equal(images.to_array(there), pixels)


def test_result_does_not_alias_the_message():
    source, _ = message('rgb8', 3)
    first = images.to_array(source)
    before = first.copy()
    source.data = bytes(len(source.data))
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize('spoil, word', [
    (lambda m: setattr(m, 'encoding', 'bayer_rggb8'), 'bayer_rggb8'),
    (lambda m: setattr(m, 'step', 2), 'step'),
    (lambda m: setattr(m, 'data', b'123'), '3 bytes'),
    (lambda m: setattr(m, 'height', 0), 'empty'),
])
def test_broken_images_are_refused_by_name(spoil, word):
    source, _ = message('rgb8', 3)
    spoil(source)
    with pytest.raises(images.ImageError, match=word):
        images.to_array(source)


@pytest.mark.parametrize('wrong', [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_only_rgb_bytes_are_sent(wrong):
    with pytest.raises(images.ImageError):
        images.to_message(wrong, Header())
