"""The image converter against hand-made pixels and against an independent implementation."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Image_

pytest.importorskip('sensor_msgs')
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
    source, pixels = message('mono16', 1, np.uint16, big=big, padding=2)
    np.testing.assert_array_equal(images.to_array(source), np.repeat(pixels >> 8, 3, axis=2))


@pytest.mark.parametrize('encoding, channels', [('rgb8', 3), ('bgr8', 3), ('rgba8', 4), ('bgra8', 4), ('mono8', 1)])
def test_agrees_with_rosbags_image(encoding, channels):
    rosbags_image = pytest.importorskip('rosbags.image')
    source, _ = message(encoding, channels)
    np.testing.assert_array_equal(images.to_array(source), rosbags_image.message_to_cvimage(source, 'rgb8'))


@pytest.mark.parametrize('encoding, channels', [('rgb8', 3), ('bgr8', 3), ('rgba8', 4), ('bgra8', 4), ('mono8', 1)])
def test_agrees_with_cv_bridge(encoding, channels):
    bridge = pytest.importorskip('cv_bridge', reason='cv_bridge comes with apt ROS only').CvBridge()
    source, _ = message(encoding, channels, padding=3)
    np.testing.assert_array_equal(images.to_array(source), bridge.imgmsg_to_cv2(source, desired_encoding='rgb8'))


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


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1', '16SC1'])
def test_a_depth_picture_is_refused_by_name(encoding):
    with pytest.raises(images.ImageError, match=f"'{encoding}' is a depth image.*colour topic"):
        images.to_array(Image(encoding=encoding, height=2, width=2, step=8, data=bytes(16)))
    with pytest.raises(images.ImageError, match='depth image'):
        images.decode(encoded(np.zeros((4, 4), np.uint8), 'PNG'), f'{encoding}; png compressed {encoding}')


@pytest.mark.parametrize('form', ['png', '', 'rgb8; png compressed bgr8'])
def test_sixteen_bits_a_pixel_are_brightness_only_where_the_format_says_so(form):
    data = encoded(np.full((4, 4), 900, np.uint16), 'PNG')
    with pytest.raises(images.ImageError, match='16 bits per pixel.*colour topic'):
        images.decode(data, form)
    assert images.decode(data, 'mono16; png compressed mono16').tolist() == [[[900 >> 8] * 3] * 4] * 4
    with pytest.raises(images.ImageError, match='floating-point.*distances'):
        images.decode(encoded(np.full((4, 4), 0.7, np.float32), 'TIFF'), form)


@pytest.mark.parametrize('encoding, channels, order', [('8UC3', 3, [2, 1, 0]), ('8UC1', 1, [0, 0, 0])])
def test_names_of_opencv_and_bytes_behind_the_last_row(encoding, channels, order):
    source, pixels = message(encoding, channels, padding=5)
    source.data = bytes(source.data) + bytes(4096)
    np.testing.assert_array_equal(images.to_array(source), pixels[:, :, order])


def encoded(pixels, kind='JPEG', **options):
    data = io.BytesIO()
    picture = pixels if isinstance(pixels, Image_.Image) else Image_.fromarray(pixels)
    picture.save(data, kind, **({'quality': 95} if kind == 'JPEG' else {}) | options)
    return data.getvalue()


def scene():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20, :30], picture[:20, 30:], picture[20:, :30], picture[20:, 30:] = (
        (210, 40, 50), (20, 190, 30), (40, 50, 220), (220, 210, 60))
    return picture


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'grbg', 'gbrg'])
def test_a_bayer_mosaic_inside_a_jpeg_gets_its_colours_back(pattern):
    picture = scene()
    mosaic = np.zeros(picture.shape[:2], np.uint8)
    for i, letter in enumerate(pattern):
        mosaic[i // 2::2, i % 2::2] = picture[i // 2::2, i % 2::2, 'rgb'.index(letter)]
    restored = images.decode(encoded(mosaic, 'PNG'), f'bayer_{pattern}8; png compressed bayer_{pattern}8')
    inner = np.s_[4:16, 4:26]
    np.testing.assert_array_equal(restored[inner], picture[inner])
    lossy = images.decode(encoded(mosaic), f'bayer_{pattern}8; jpeg compressed bayer_{pattern}8')
    assert np.abs(lossy[inner].mean((0, 1)) - picture[inner].mean((0, 1))).max() < 12
    colour = images.decode(encoded(picture, 'PNG'), f'bayer_{pattern}8; png compressed bgr8')
    np.testing.assert_array_equal(colour, picture)


@pytest.mark.parametrize('form', ['yuv422_yuy2; jpeg compressed mono8', 'uyvy; jpeg compressed mono8',
                                  'bayer_rggb16; png compressed bayer_rggb16'])
def test_a_picture_whose_colours_are_lost_is_refused(form):
    with pytest.raises(images.ImageError, match='brightness only|Bayer mosaic'):
        images.decode(encoded(scene().mean(2).astype(np.uint8), 'PNG'), form)


@pytest.mark.parametrize('form', ['h264', 'H.265', 'bgr8; hevc', 'av1'])
def test_a_piece_of_a_video_stream_is_no_picture(form):
    with pytest.raises(images.ImageError, match='belongs to a video stream'):
        images.decode(b'\0\0\0\1\x65' + bytes(64), form)


@pytest.mark.parametrize('form', ['', 'jpeg', 'mono8; jpeg compressed mono8'])
def test_a_grey_camera_is_grey(form):
    assert images.decode(encoded(np.full((8, 9), 77, np.uint8)), form).tolist() == [[[77] * 3] * 9] * 8


@pytest.mark.parametrize('orientation', range(2, 9))
def test_a_picture_is_turned_upright_as_exif_says(orientation):
    from PIL import ImageOps
    exif = Image_.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image_.open(io.BytesIO(data))))
    assert not np.array_equal(expected, images.decode(encoded(scene())))
    np.testing.assert_array_equal(images.decode(data), expected)


def test_damaged_pictures_and_bombs_raise_nothing_but_the_named_error():
    good = encoded(scene())
    random = np.random.default_rng(0)
    for i in range(300):
        spoiled = bytearray(good[:int(random.integers(len(good)))] if i % 2 else good)
        for place in random.integers(0, max(len(spoiled), 1), 4):
            if spoiled:
                spoiled[place] = random.integers(256)
        try:
            picture = images.decode(bytes(spoiled))
        except images.ImageError:
            continue
        assert picture.dtype == np.uint8 and picture.ndim == 3
    with pytest.raises(images.ImageError, match='pixels'):
        images.decode(encoded(Image_.new('1', (9_000, 9_000)), 'PNG'))


def test_an_episode_begins_with_a_scene_not_with_a_single_level():
    source, pixels = message('rgb8', 3)
    np.testing.assert_array_equal(images.first_picture(source), pixels)
    source.data = bytes([7]) * len(source.data)
    assert images.to_array(source).max() == 7
    with pytest.raises(images.ImageError, match=r'single value \(7\).*covered lens'):
        images.first_picture(source)


@pytest.mark.parametrize('colours, refused', [(2, True), (4, True), (9, False)])
def test_a_mask_is_no_scene(colours, refused):
    levels = np.arange(40 * 40).reshape(40, 40) % colours * 25
    source = SimpleNamespace(encoding='mono8', height=40, width=40, step=40, is_bigendian=0,
                             data=levels.astype(np.uint8).tobytes())
    if not refused:
        assert images.first_picture(source).shape == (40, 40, 3)
        return
    with pytest.raises(images.ImageError, match=f'{colours} flat colours: a mask'):
        images.first_picture(source)


@pytest.mark.parametrize('topic, transport, published, expected', [
    ('/c/image_raw', 'auto', (), '/c/image_raw'),
    ('/c/image_raw', 'auto', ('/c/image_raw', '/c/image_raw/compressed'), '/c/image_raw'),
    ('/c/image_raw', 'auto', ('/c/image_raw/compressed',), '/c/image_raw/compressed'),
    ('/c/image_raw', 'raw', ('/c/image_raw/compressed',), '/c/image_raw'),
    ('/c/image_raw', 'compressed', ('/c/image_raw',), '/c/image_raw/compressed'),
    ('/c/image_raw/compressed', 'auto', ('/c/image_raw',), '/c/image_raw/compressed'),
])
def test_compressed_pictures_are_taken_where_asked_for_or_where_there_is_nothing_else(
        topic, transport, published, expected):
    assert images.offered(topic, transport, published.count) == expected


class Graph:
    """Stands in for a node and what it sees of the others."""

    def __init__(self):
        self.published, self.subscribed, self.mine = set(), {}, []

    def get_namespace(self):
        return '/vgps'

    def resolve_topic_name(self, name):
        return f'/vgps/{name}'

    def count_publishers(self, topic):
        return int(topic in self.published)

    def get_subscriptions_info_by_topic(self, topic):
        return [SimpleNamespace(node_name=name, node_namespace='/vgps') for name in self.subscribed.get(topic, ())]

    def create_subscription(self, _kind, topic, *_):
        self.mine.append(topic)
        return topic

    def destroy_subscription(self, topic):
        self.mine.remove(topic)

    def create_timer(self, *_, **__):
        pass

    def get_logger(self):
        return SimpleNamespace(info=lambda _: None)


RAW, PACKED = '/vgps/image_raw', '/vgps/image_raw/compressed'


def test_what_the_policy_looks_at_does_not_change_within_an_episode():
    graph, running = Graph(), [False]
    graph.published = {PACKED}
    camera = images.CameraSubscription(graph, None, None, 'auto', None, settled=lambda: running[0])
    running[0] = True
    for published in ({RAW, PACKED}, {RAW}, set()):
        graph.published = published
        camera.look()
        assert graph.mine == [camera.topic] == [PACKED]
    running[0], graph.published = False, {RAW, PACKED}
    camera.look()
    assert graph.mine == [RAW]


@pytest.mark.parametrize('published', [{RAW}, {PACKED}, {RAW, PACKED}, set()])
@pytest.mark.parametrize('eyes', [RAW, PACKED])
def test_all_others_take_the_pictures_that_the_policy_takes(eyes, published):
    graph = Graph()
    graph.published, graph.subscribed = published, {eyes: ['policy_node'], RAW: ['rqt'], PACKED: ['rqt']}
    graph.subscribed[eyes] = ['rqt', 'policy_node']
    kept = ['pictures']
    camera = images.CameraSubscription(graph, None, None, 'auto', None, changed=kept.clear)
    assert graph.mine == [eyes]
    other = PACKED if eyes == RAW else RAW
    graph.subscribed, kept[:] = {other: ['policy_node']}, ['pictures']
    camera.look()
    assert graph.mine == [other] and not kept  # their stamps would say that they are the same
    graph.subscribed = {}  # the policy node is gone
    camera.look()
    assert graph.mine == [images.offered(RAW, 'auto', graph.count_publishers)]


@pytest.mark.parametrize('transport, expected', [('raw', RAW), ('compressed', PACKED)])
def test_a_transport_that_was_asked_for_is_taken_whatever_the_policy_looks_at(transport, expected):
    graph = Graph()
    graph.published, graph.subscribed = {RAW, PACKED}, {{RAW: PACKED, PACKED: RAW}[expected]: ['policy_node']}
    images.CameraSubscription(graph, None, None, transport, None)
    assert graph.mine == [expected]
