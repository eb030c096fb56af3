"""Frames reach the network with the reference's pixels."""

import numpy as np
import pytest
from golden import golden

from vgps_msgs_py.lanczos import resize


@pytest.mark.parametrize('size', ['480x640', '64x64', '256x320'])
def test_resize_differs_from_the_reference_by_at_most_one_level(size):
    data = golden('image_transforms.npz')
    difference = np.abs(resize(data[f'resize_in_{size}'], 256).astype(int) - data[f'resize_out_{size}'])
    # measured: one level in 0.013 % of the values at 480x640, 0.002 % at 64x64, none at 256x320
    assert difference.max() <= 1
    assert (difference > 0).mean() < 5e-4


def test_pillow_would_differ_by_more_so_it_is_not_used():
    image = pytest.importorskip('PIL.Image')
    data = golden('image_transforms.npz')
    pillow = np.asarray(image.fromarray(data['resize_in_64x64']).resize((256, 256), image.Resampling.LANCZOS))
    assert np.abs(pillow.astype(int) - data['resize_out_64x64']).max() > 1


def test_the_right_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert resize(image, 64) is image


@pytest.mark.parametrize('shape', [(1, 1, 3), (7, 500, 3), (480, 640, 3), (1080, 1920, 3), (257, 255, 3)])
def test_any_size_and_aspect_keeps_a_flat_colour(shape):
    out = resize(np.full(shape, (10, 200, 255), np.uint8), 128)
    assert out.shape == (128, 128, 3) and out.dtype == np.uint8
    assert (out == (10, 200, 255)).all()


def test_antialiasing_averages_a_fine_checkerboard():
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    out = resize(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), 128)
    assert np.abs(out[8:-8, 8:-8].astype(int) - 127).max() <= 1


@pytest.mark.parametrize('image', [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8),
                                   np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8), 'image'])
def test_anything_else_is_refused_with_what_it_is(image):
    with pytest.raises(ValueError, match='image'):
        resize(image, 64)
