"""Where points of the arm's base frame, and the paths of the candidates, appear in a calibrated camera's image."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml


@dataclass(frozen=True)
class CameraCalibration:
    """A pinhole camera with OpenCV's distortion, and where it stands."""

    intrinsics: np.ndarray     # (3, 3) as in CameraInfo.k [pixels]
    distortion: np.ndarray     # (N,) as in CameraInfo.d, plumb_bob
    pose: np.ndarray           # (4, 4) of the camera's optical frame (z forward, x right) in the base frame [m]
    image_size: tuple[int, int]   # (width, height) the intrinsics are for [pixels]

    @classmethod
    def load(cls, path):
        """Read a YAML with the keys image_width, image_height, intrinsics (9), distortion (N) and pose (16, row-major).

        Raises:
            ValueError: a key is missing or has another length.

        """
        values = yaml.safe_load(Path(path).read_text())
        try:
            return cls(np.reshape(values['intrinsics'], (3, 3)).astype(float),
                       np.asarray(values['distortion'], float), np.reshape(values['pose'], (4, 4)).astype(float),
                       (int(values['image_width']), int(values['image_height'])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{path} is not a camera calibration: {error!r}') from error

    def project(self, points, image_size=None):
        """Return (N, 2) pixels of (N, 3) points of the base frame [m]; NaN for a point behind the camera.

        `image_size` (width, height) is that of the image drawn on, where it was resized without cropping.
        """
        points = np.atleast_2d(np.asarray(points, float))
        rotation, position = self.pose[:3, :3], self.pose[:3, 3]
        seen = (points - position) @ rotation
        pixels = np.full((len(points), 2), np.nan)
        front = seen[:, 2] > 1e-6
        if front.any():
            projected, _ = cv2.projectPoints(seen[front], np.zeros(3), np.zeros(3), self.intrinsics, self.distortion)
            pixels[front] = projected.reshape(-1, 2)
        if image_size is not None:
            pixels *= np.divide(image_size, self.image_size)
        return pixels


def draw_directions(image, calibration, position, actions, chosen):
    """Draw where each candidate would take the gripper, the chosen one last and in orange.

    Args:
        image: (H, W, 3) uint8 RGB, drawn on in place.
        calibration: CameraCalibration of the camera.
        position: (3,) gripper position in the base frame [m].
        actions: (K, H, 7) candidates; the first three of each are metres in base axes.
        chosen: index of the chosen candidate, -1 for none.

    """
    order = [k for k in range(len(actions)) if k != chosen] + ([chosen] if chosen >= 0 else [])
    for k in order:
        way = np.vstack([np.zeros(3), np.cumsum(actions[k, :, :3], axis=0)]) + position
        pixels = calibration.project(way, image.shape[1::-1])
        if not (np.isfinite(pixels).all() and np.abs(pixels).max() < 1e5):
            continue
        colour, width = ((255, 176, 59), 3) if k == chosen else ((86, 128, 184), 1)
        points = np.rint(pixels).astype(np.int32)
        cv2.polylines(image, [points[:-1]], False, colour, width, cv2.LINE_AA)
        cv2.arrowedLine(image, points[-2].tolist(), points[-1].tolist(), colour, width, cv2.LINE_AA, tipLength=0.3)
