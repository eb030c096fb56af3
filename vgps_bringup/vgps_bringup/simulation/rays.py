"""The camera image without OpenGL: one ray per pixel through MuJoCo's geometry, shaded in numpy."""

import mujoco
import numpy as np

from vgps_bringup.simulation.rendering import VISIBLE_GROUPS

_SKY = np.array([0.62, 0.65, 0.68])  # the gradient that OpenGL draws, near the horizon


class RayRenderer:
    """Draws the camera `third_person` of one model; needs nothing but MuJoCo."""

    name = 'rays'

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int]):
        self._model, self._size = model, size
        self._camera = model.camera('third_person').id
        rays = size[0] * size[1]
        self._geom = np.empty(rays, np.int32)
        self._distance = np.empty(rays)
        self._normal = np.empty(3 * rays)
        self._groups = np.array(VISIBLE_GROUPS, np.uint8)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB of the state in `data`."""
        model = self._model
        # The camera is fixed to the world: its pose is the model's, whatever `data` was last computed with.
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, model.cam_quat[self._camera])
        origin = model.cam_pos[self._camera].copy()
        directions = self._directions(rotation.reshape(3, 3))
        mujoco.mj_multiRay(model, data, origin, directions.ravel(), self._groups, True, -1, self._geom, self._distance,
                           self._normal, len(self._geom), mujoco.mjMAXVAL)
        hit = self._geom >= 0
        geom, normal = self._geom[hit], self._normal.reshape(-1, 3)[hit]
        normal *= -np.sign((normal * directions[hit]).sum(1, keepdims=True))  # the side that is seen
        colour = np.broadcast_to(_SKY, (len(hit), 3)).copy()
        points = origin + self._distance[hit, None] * directions[hit]
        material = self._model.geom_matid[geom]
        lit = self._model.mat_rgba[material, :3] * self._light(normal, rotation.reshape(3, 3)[:, 2])
        colour[hit] = np.clip(lit, 0.0, 1.0)  # OpenGL too clips before it lays the texture over
        colour[hit] *= self._texture(data, geom, material, points)
        return (colour * 255.0 + 0.5).astype(np.uint8).reshape(*self._size, 3)

    def _directions(self, rotation: np.ndarray) -> np.ndarray:
        """Unit vectors (H * W, 3) through the pixels' centres, world frame."""
        height, width = self._size
        reach = np.tan(np.radians(self._model.cam_fovy[self._camera]) / 2)
        x = ((np.arange(width) + 0.5) / width * 2 - 1) * reach * width / height
        y = (1 - (np.arange(height) + 0.5) / height * 2) * reach
        grid = np.stack([*np.meshgrid(x, y), np.full(self._size, -1.0)], axis=-1).reshape(-1, 3)
        return grid / np.linalg.norm(grid, axis=1, keepdims=True) @ rotation.T

    def _light(self, normal: np.ndarray, towards_camera: np.ndarray) -> np.ndarray:
        """OpenGL's ambient and diffuse terms (N, 3) for unit normals (N, 3): headlight and directional lamps."""
        model, head = self._model, self._model.vis.headlight
        light = head.ambient + head.diffuse * np.clip(normal @ towards_camera, 0.0, None)[:, None]
        for direction, diffuse in zip(model.light_dir, model.light_diffuse):
            facing = normal @ (-direction / np.linalg.norm(direction))
            light = light + diffuse * np.clip(facing, 0.0, None)[:, None]
        return light

    def _texture(self, data: mujoco.MjData, geom: np.ndarray, material: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Factor (N, 3) that the materials' textures lay over the points on the geoms hit; 1 where there is none."""
        model, factor = self._model, np.ones(points.shape)
        for textured in np.unique(material):
            texture = model.mat_texid[textured, mujoco.mjtTextureRole.mjTEXROLE_RGB]
            if texture < 0:
                continue
            mine = material == textured
            local = points[mine] - data.geom_xpos[geom[mine]]  # textured geoms are boxes that are not turned
            place = 0.5 + 0.5 * local[:, :2] / model.geom_size[geom[mine], :2]
            size = np.array([model.tex_width[texture], model.tex_height[texture]])
            column, row = (place * model.mat_texrepeat[textured] * (1, -1) % 1.0 * size).astype(int).T
            start = model.tex_adr[texture]
            texels = model.tex_data[start:start + 3 * size.prod()].reshape(size[1], size[0], 3)
            factor[mine] = texels[row, column] / 255.0
        return factor

    def close(self) -> None:
        """Nothing to free."""
