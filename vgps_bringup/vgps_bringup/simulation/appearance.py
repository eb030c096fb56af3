"""Appearance of the simulated scene: procedural table textures; light, camera and colours vary with a seed."""

from dataclasses import dataclass, field

import cv2
import mujoco
import numpy as np

TABLE_TEXTURES = ('wood', 'laminate', 'speckle', 'cloth')

# Over the robot's right shoulder, as in BridgeData and SIMPLER: fingers, object and goal are seen from above and aside.
CAMERA_POSITION = (0.06, -0.26, 0.44)  # m
CAMERA_TARGET = (0.29, 0.025, 0.035)  # m
CAMERA_FOV = 43.0  # degrees, vertical


@dataclass(frozen=True)
class VisualRandomisation:
    """How much a seeded reset changes the looks; all zeros and False is the plain scene."""

    camera_position: float = field(default=0.0, metadata={
        'description': 'camera moved by up to this in each axis [m]', 'range': (0.0, 0.1)})
    camera_target: float = field(default=0.0, metadata={
        'description': 'point the camera looks at moved by up to this in each axis [m]', 'range': (0.0, 0.1)})
    field_of_view: float = field(default=0.0, metadata={
        'description': 'vertical field of view changed by up to this [degrees]', 'range': (0.0, 10.0)})
    lighting: float = field(default=0.0, metadata={
        'description': 'brightness and direction of the lamps changed by up to this fraction', 'range': (0.0, 0.8)})
    colours: float = field(default=0.0, metadata={
        'description': 'every colour channel of every material scaled by up to this fraction', 'range': (0.0, 0.5)})
    table_textures: bool = field(default=False, metadata={'description': 'draw one of the table textures at random'})


PLAIN = VisualRandomisation()
VARIED = VisualRandomisation(camera_position=0.02, camera_target=0.012, field_of_view=1.5, lighting=0.35, colours=0.15,
                             table_textures=True)
# What a fixed cell sees from day to day; the published study's demonstrations have these looks.
LIGHT = VisualRandomisation(camera_position=0.004, camera_target=0.003, field_of_view=0.3, lighting=0.15, colours=0.06)
# One thing at a time, each as far as VARIED goes: what a change of the cell does to a critic.
LOOKS = {'plain': PLAIN, 'light': LIGHT, 'varied': VARIED,
         'camera': VisualRandomisation(camera_position=0.02, camera_target=0.012, field_of_view=1.5),
         'lighting': VisualRandomisation(lighting=0.35), 'colours': VisualRandomisation(colours=0.15)}


def _noise(rng: np.random.Generator, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise in [0, 1]: random values on a `size` grid, enlarged to `shape` (rows, columns)."""
    return cv2.resize(rng.random(size).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)


def texture_image(name: str) -> np.ndarray:
    """Return a table texture as (256, 256, 3) uint8 RGB, the same on every machine."""
    rng = np.random.default_rng(TABLE_TEXTURES.index(name))
    shape = (256, 256)
    if name == 'wood':
        grain = 0.7 * _noise(rng, (64, 3), shape) + 0.3 * _noise(rng, (128, 8), shape)
        plank = np.repeat(rng.uniform(-0.06, 0.06, 4), 64)[:, None]
        tone = 0.86 + 0.20 * (grain - 0.5) + plank
        tone[::64] -= 0.18  # joints between the planks
        colour = (196, 160, 116)
    elif name == 'laminate':
        tone, colour = 0.97 + 0.05 * (_noise(rng, (32, 32), shape) - 0.5), (206, 205, 200)
    elif name == 'speckle':
        tone, colour = 0.85 + 0.30 * (_noise(rng, (128, 128), shape) - 0.5), (150, 158, 160)
    else:
        weave = np.indices(shape).sum(0) % 8 < 4
        tone, colour = 0.88 + 0.06 * weave + 0.08 * (_noise(rng, (16, 16), shape) - 0.5), (176, 190, 172)
    return np.clip(tone[..., None] * np.array(colour), 0, 255).astype(np.uint8)


def texture_png(name: str) -> bytes:
    """Return the texture as the bytes of a PNG file, as the model compiler takes it."""
    return cv2.imencode('.png', texture_image(name)[..., ::-1])[1].tobytes()


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the orientation (4,) w x y z of a camera at `position` that sees `target` in its centre, upright."""
    backward = position - target
    backward = backward / np.linalg.norm(backward)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(backward, right), backward], axis=1).ravel())
    return quaternion


class Appearance:
    """Applies the plain or randomised looks to one model, always starting from the looks it was compiled with."""

    def __init__(self, model: mujoco.MjModel):
        self._model = model
        self._plain = {name: getattr(model, name).copy() for name in
                       ('mat_rgba', 'light_diffuse', 'light_dir', 'geom_matid')}
        self._headlight = model.vis.headlight.ambient.copy()
        self._table = model.geom('table').id
        self._camera = model.camera('third_person').id
        self._tables = [model.material(f'table_{name}').id for name in TABLE_TEXTURES]

    def apply(self, config: VisualRandomisation, rng: np.random.Generator) -> None:
        """Set light, camera, colours and table; draws the same amount from `rng` whatever `config` says."""
        model = self._model
        for name, value in self._plain.items():
            getattr(model, name)[:] = value

        def spread(width, shape=()):
            return width * rng.uniform(-1.0, 1.0, shape)

        position = np.array(CAMERA_POSITION) + spread(config.camera_position, 3)
        target = np.array(CAMERA_TARGET) + spread(config.camera_target, 3)
        model.cam_pos[self._camera] = position
        model.cam_quat[self._camera] = look_at(position, target)
        model.cam_fovy[self._camera] = CAMERA_FOV + spread(config.field_of_view)
        brightness = 1.0 + spread(config.lighting)
        model.light_diffuse[:] *= brightness * (1.0 + spread(0.3 * config.lighting, (model.nlight, 3)))
        model.light_dir[:] += spread(config.lighting, (model.nlight, 3)) * (1.0, 1.0, 0.0)
        model.vis.headlight.ambient[:] = self._headlight * (1.0 + spread(0.5 * config.lighting))
        model.mat_rgba[:, :3] *= 1.0 + spread(config.colours, (model.nmat, 3))
        np.clip(model.mat_rgba, 0.0, 1.0, out=model.mat_rgba)
        choice = int(rng.integers(len(self._tables)))
        if config.table_textures:
            model.geom_matid[self._table] = self._tables[choice]
