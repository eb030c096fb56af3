"""Projection into the camera image, in closed form."""

import numpy as np
import pytest
import yaml

from vgps_bringup.episode_pages.projection import CameraCalibration, draw_directions

# One metre above the base plane, looking straight down; the image's right is the base's -y, its down the base's -x.
POSE = np.array([[0, -1, 0, 0.3], [-1, 0, 0, 0.0], [0, 0, -1, 1.0], [0, 0, 0, 1]], float)
CAMERA = CameraCalibration(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.zeros(5), POSE, (640, 480))


def test_points_fall_where_the_pinhole_says():
    pixels = CAMERA.project([[0.3, 0, 0], [0.3, 0.1, 0], [0.4, 0, 0.5]])
    np.testing.assert_allclose(pixels, [[320, 240], [270, 240], [320, 140]], atol=1e-9)


def test_a_point_behind_the_camera_is_nowhere():
    assert np.isnan(CAMERA.project([[0.3, 0, 1.5]])).all()


def test_a_resized_image_gets_resized_pixels():
    np.testing.assert_allclose(CAMERA.project([[0.3, 0.1, 0]], (256, 256)), [[270 * 0.4, 240 * 256 / 480]])


def test_distortion_moves_points_outwards_or_inwards():
    barrel = CameraCalibration(CAMERA.intrinsics, np.array([-0.3, 0, 0, 0, 0]), POSE, (640, 480))
    straight, bent = CAMERA.project([[0.5, 0.2, 0]])[0], barrel.project([[0.5, 0.2, 0]])[0]
    centre = np.array([320, 240])
    radius_squared = 0.2**2 + 0.2**2
    np.testing.assert_allclose(bent - centre, (straight - centre) * (1 - 0.3 * radius_squared), atol=1e-9)


def test_a_file_is_read_and_a_broken_one_explained(tmp_path):
    path = tmp_path / 'camera.yaml'
    values = {'image_width': 640, 'image_height': 480, 'intrinsics': CAMERA.intrinsics.ravel().tolist(),
              'distortion': [0.0] * 5, 'pose': POSE.ravel().tolist()}
    path.write_text(yaml.safe_dump(values))
    np.testing.assert_allclose(CameraCalibration.load(path).project([[0.4, 0, 0.5]]), [[320, 140]])
    path.write_text(yaml.safe_dump({**values, 'pose': [1.0]}))
    with pytest.raises(ValueError, match='camera.yaml'):
        CameraCalibration.load(path)


def test_candidates_point_where_they_would_go_and_the_chosen_one_is_on_top():
    image = np.zeros((480, 640, 3), np.uint8)
    actions = np.zeros((3, 1, 7))
    actions[:, 0, 1] = 0.05, -0.05, 0.05       # two to the image's left, one to its right
    draw_directions(image, CAMERA, np.array([0.3, 0, 0]), actions, 2)
    orange = np.argwhere((image == (255, 176, 59)).all(axis=2))
    assert orange[:, 1].min() in range(290, 300)      # 25 pixels to the left of the gripper
    assert orange[:, 1].max() <= 323
    blue = np.argwhere((image == (86, 128, 184)).all(axis=2))
    assert blue[:, 1].min() > 318
    behind = np.zeros_like(image)
    draw_directions(behind, CAMERA, np.array([0.3, 0, 2.0]), actions, 2)
    assert not behind.any()
