"""Where source and target of the four WidowX tasks stand: SIMPLER's own configurations, and scenes for demonstrations.

A demonstration's scene is drawn from the box around the benchmark's configurations, continuously, and never is one of
them: what is measured on those was trained on none. Poses are in ManiSkill's world frame.
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

NEAR, TURNED = 0.005, 0.1  # m, rad: a scene as near as this to an official one in every way counts as that one
MARGIN = 0.015             # m by which demonstrations' box is larger than the benchmark's
FIRST_DRAWN = 1_000_000    # seeds of trials from here on mean drawn scenes: to choose by, and to keep the official ones


@dataclass(frozen=True)
class Scene:
    """Poses of source and target before they settle."""

    positions: np.ndarray    # (2, 3) m
    quaternions: np.ndarray  # (2, 4) w x y z


@dataclass(frozen=True)
class Layout:
    """One task's official configurations, and how far its demonstrations stray from them."""

    positions: np.ndarray    # (N, 2, 3) m, of source and target
    quaternions: np.ndarray  # (M, 2, 4)
    turn: float              # rad, largest turn of the source about the vertical from one of the official ones
    apart: float             # m, least distance of source and target: nothing stands on the other
    margin: float = MARGIN   # m
    fixed_target: bool = False

    def scene(self, seed: int) -> Scene:
        """Return the scene of the trial `seed`: an official configuration, or from `FIRST_DRAWN` on a drawn one."""
        return self.draw(seed) if seed >= FIRST_DRAWN else self.official(seed)

    def official(self, number: int) -> Scene:
        """Return configuration `number`, counted as ManiSkill counts its episodes; they repeat."""
        position, turn = divmod(number % (len(self.positions) * len(self.quaternions)), len(self.quaternions))
        return Scene(self.positions[position], self.quaternions[turn])

    def draw(self, seed: int) -> Scene:
        """Draw the scene that `seed` means for a demonstration."""
        rng, points = np.random.default_rng(seed), self.positions[:, :, :2]
        low, high = points.min(0) - self.margin, points.max(0) + self.margin
        while True:
            positions, quaternions = self.positions[0].copy(), self.quaternions[rng.integers(len(self.quaternions))]
            drawn = rng.uniform(low, high)
            positions[:, :2] = np.where([[True], [not self.fixed_target]], drawn, positions[:, :2])
            half = rng.uniform(-self.turn, self.turn) / 2
            turned = _product(np.array([np.cos(half), 0.0, 0.0, np.sin(half)]), quaternions[0])
            scene = Scene(positions, np.stack([turned, quaternions[1]]))
            if np.linalg.norm(np.subtract(*positions[:, :2])) >= self.apart and not self.is_official(scene):
                return scene

    def is_official(self, scene: Scene) -> bool:
        """Tell whether a scene is within `NEAR` and `TURNED` of an official configuration."""
        there = (np.linalg.norm(self.positions - scene.positions, axis=2) < NEAR).all(1).any()
        alike = np.abs((self.quaternions[:, 0] * scene.quaternions[0]).sum(1)
                       / np.linalg.norm(self.quaternions[:, 0], axis=1) / np.linalg.norm(scene.quaternions[0]))
        return bool(there and (2 * np.arccos(np.clip(alike, 0, 1)) < TURNED).any())


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([a[0] * b[0] - a[1:] @ b[1:], *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))])


def _pairs(half: float, heights: tuple[float, float]) -> list[np.ndarray]:
    """Return source and target (2, 3) on any two corners of a square around the table's middle."""
    corners = [np.array([-0.16 + half * x, half * y]) for x, y in product((-1, 1), (-1, 1))]
    return [np.array([[*source, heights[0]], [*target, heights[1]]]) for source, target in permutations(corners, 2)]


def _yaws(*angles: float) -> np.ndarray:
    """Return turns of the source (M, 2, 4); the target stands as it is."""
    return np.array([[[np.cos(a / 2), 0, 0, np.sin(a / 2)], [1, 0, 0, 0]] for a in angles])


_EGGPLANT = (  # as it lies in the sink, turned by 45 degrees each
    (0.543729, 0.82549, 0.0746101, 0.131747), (0.559342, 0.817133, -0.138906, -0.0116353),
    (0.543029, 0.789388, -0.267736, -0.101503), (-0.40751, -0.532897, 0.652644, 0.352154),
    (-0.157154, 0.235481, 0.75148, -0.595927), (-0.020137, 0.0213848, 0.953791, -0.299033),
    (-0.108854, 0.337692, 0.897378, -0.262348), (0.366114, 0.618434, 0.571457, 0.396152))
_SINK = [np.array([[-0.105 + x, 0.206 + y, 0.933], [-0.125, 0.025, 1.0]])
         for x, y in product(np.linspace(-0.01, 0.01, 2), np.linspace(-0.015, 0.015, 4))]

LAYOUTS = {
    'widowx_spoon_on_towel': Layout(np.array(_pairs(0.075, (0.88, 0.875))), _yaws(0.0, np.pi / 2), 0.5, 0.12),
    'widowx_carrot_on_plate': Layout(np.array(_pairs(0.075, (0.887529, 0.869532))), _yaws(np.pi, -np.pi / 2), 0.5,
                                     0.12),
    'widowx_stack_cube': Layout(np.array(_pairs(0.05, (0.887529,) * 2) + _pairs(0.1, (0.887529,) * 2)), _yaws(0.0),
                                0.4, 0.07),
    'widowx_put_eggplant_in_basket': Layout(np.array(_SINK), np.array([[q, (1, 0, 0, 0)] for q in _EGGPLANT]),
                                            np.pi / 8, 0.0, 0.01, fixed_target=True),
}
