"""A scripted expert that sees the simulator's state, and the errors that make its demonstrations of mixed quality.

Without errors it always succeeds. With them about half of the episodes fail as the paper's figures show policies
failing: an imprecise or missed grasp, an early or a late release, a misplaced object.
"""

from dataclasses import dataclass

import numpy as np

from vgps_bringup.simulation.tasks import Task
from vgps_bringup.simulation.widowx import SimulatedWidowX
from vgps_msgs_py import robot_state

_ARRIVED = 0.006  # m
_Move = tuple[np.ndarray, float, str | None]


@dataclass(frozen=True)
class DemonstratorConfig:
    """How often the scripted expert errs, and by how much; with the defaults about half of the episodes fail."""

    grasp_offset: float = 0.30  # standard deviation of the grasp along the object, in parts of its half length
    height_error_chance: float = 0.45  # 0 .. 1, episodes that grasp too high
    height_error: float = 0.6  # largest such error in parts of the height of the object's centre: then fingers slip off
    early_close_chance: float = 0.25  # 0 .. 1, episodes that close the gripper on the way down
    early_release_chance: float = 0.45  # 0 .. 1, episodes that let go on the way
    early_release: tuple[float, float] = (0.45, 0.95)  # part of the way at which they do
    late_release_chance: float = 0.15  # 0 .. 1, episodes that keep holding over the goal
    late_release: tuple[int, int] = (6, 30)  # steps that they wait
    place_error: float = 0.40  # standard deviation of the release position in x and y, in parts of the goal's size
    action_noise: float = 0.005  # m, standard deviation added to every step's translation
    speed: float = 0.030  # m, largest step


NO_ERRORS = DemonstratorConfig(grasp_offset=0.0, height_error_chance=0.0, early_close_chance=0.0,
                               early_release_chance=0.0, late_release_chance=0.0, place_error=0.0, action_noise=0.0)


@dataclass(frozen=True)
class Errors:
    """What goes wrong in one demonstration."""

    along: float = 0.0                              # m, of the grasp along the object
    higher: float = 0.0                             # m, of the grasp
    early_close: float = 0.0                        # m above the grasp at which the gripper closes; 0: at the grasp
    release_at: float = 1.0                         # part of the way to the goal at which it opens; 1: at the goal
    wait: int = 0                                   # steps that it holds on over the goal
    place: tuple[float, float] = (0.0, 0.0)         # m, x and y of the release

    @classmethod
    def draw(cls, config: DemonstratorConfig, rng: np.random.Generator, half_length: float, rest_height: float,
             reach: tuple[float, float]) -> 'Errors':
        """Draw those of one episode.

        Args:
            config: how often and how far.
            rng: draws from here.
            half_length: of the object [m].
            rest_height: of the object's centre above the table [m].
            reach: half the goal's size in x and y [m].

        """
        along = rng.normal(0.0, 1.0) * config.grasp_offset * half_length
        highest = config.height_error * rest_height
        higher = rng.uniform(0.0, highest) if rng.random() < config.height_error_chance else 0.0
        early_close = rng.uniform(0.015, 0.035) if rng.random() < config.early_close_chance else 0.0
        release, release_at, wait = rng.random(), 1.0, 0
        if release < config.early_release_chance:
            release_at = rng.uniform(*config.early_release)
        elif release < config.early_release_chance + config.late_release_chance:
            wait = int(rng.integers(*config.late_release))
        place = rng.normal(0.0, 1.0, 2) * config.place_error * np.array(reach)
        return cls(along, higher, early_close, release_at, wait, tuple(place))


class Demonstrator:
    """Plays one episode: reach, descend, close, lift, carry, lower, open, retreat."""

    def __init__(self, config: DemonstratorConfig = DemonstratorConfig()):
        self.config = config

    def reset(self, robot: SimulatedWidowX, seed: int) -> None:
        """Draw this episode's errors; `robot` stands at its start pose."""
        self._rng = np.random.default_rng(seed)
        self._errors = Errors.draw(self.config, self._rng, robot.task.half_length, robot.task.rest_height,
                                   robot.task.placed_reach)
        self._task: Task = robot.task
        self._phase, self._since, self.done = 'reach', 0, False
        self._object, self._yaw = robot.oracle.object_position.copy(), robot.oracle.object_yaw
        self._lifted_at = None

    def act(self, robot: SimulatedWidowX, target_pose: np.ndarray) -> np.ndarray:
        """Return the next (7,) action; `target_pose` (4, 4) is where the controller has sent the gripper so far."""
        position = target_pose[:3, 3]
        if self._phase in ('reach', 'descend'):
            self._object, self._yaw = robot.oracle.object_position.copy(), robot.oracle.object_yaw
        grasp = self._object + self._errors.along * np.array([np.cos(self._yaw), np.sin(self._yaw), 0.0])
        grasp[2] = self._task.grasp_height + self._errors.higher
        goal = robot.oracle.goal_position + np.array([*self._errors.place, 0.0])
        self._since += 1
        while True:
            waypoint, openness, following = self._PHASES[self._phase](self, position, grasp, goal)
            if following is None:
                return self._action(target_pose, waypoint, openness)
            self._phase, self._since = following, 1

    # Each phase returns the waypoint, the openness and, where it is over, the phase that follows at once.

    def _reach(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        above = grasp + (0.0, 0.0, 0.055)
        return above, 1.0, 'descend' if np.linalg.norm(above - position) < 2 * _ARRIVED else None

    def _descend(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        early = self._errors.early_close and position[2] - grasp[2] < self._errors.early_close
        return grasp, 0.0 if early else 1.0, 'close' if np.linalg.norm(grasp - position) < _ARRIVED else None

    def _close(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        return position, 0.0, 'lift' if self._since > 3 else None

    def _lift(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        height = self._task.carry_height
        self._lifted_at = position[:2].copy()
        return np.array([*position[:2], height]), 0.0, 'carry' if height - position[2] < _ARRIVED else None

    def _carry(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        waypoint = np.array([*goal[:2], self._task.carry_height])
        left = np.linalg.norm(waypoint[:2] - position[:2])
        way = max(1e-6, np.linalg.norm(goal[:2] - self._lifted_at))
        if 1.0 - left / way >= self._errors.release_at and self._errors.release_at < 1.0:
            return waypoint, 0.0, 'open'
        return waypoint, 0.0, 'lower' if left < _ARRIVED else None

    def _lower(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        height = self._task.release_height
        return np.array([*goal[:2], height]), 0.0, 'wait' if abs(height - position[2]) < _ARRIVED else None

    def _hold_on(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        return position, 0.0, 'open' if self._since > self._errors.wait else None

    def _open(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        return position, 0.0 if self._since == 1 else 1.0, 'retreat' if self._since > 2 else None  # stands still first

    def _retreat(self, position: np.ndarray, grasp: np.ndarray, goal: np.ndarray) -> _Move:
        self.done = self._since > 5
        return np.array([*position[:2], min(0.22, self._task.release_height + 0.08)]), 1.0, None

    _PHASES = {'reach': _reach, 'descend': _descend, 'close': _close, 'lift': _lift, 'carry': _carry, 'lower': _lower,
               'wait': _hold_on, 'open': _open, 'retreat': _retreat}

    def _action(self, target_pose: np.ndarray, waypoint: np.ndarray, openness: float) -> np.ndarray:
        difference = waypoint - target_pose[:3, 3]
        distance = np.linalg.norm(difference)
        step = difference * min(1.0, self.config.speed / max(distance, 1e-9))
        step = step + self._rng.normal(0.0, 1.0, 3) * self.config.action_noise
        yaw = robot_state.state_from_pose(target_pose, 1.0)[5]
        turn = np.clip(self._yaw - yaw, -0.1, 0.1) if self._phase in ('reach', 'descend') else 0.0
        return np.array([*np.clip(step, -0.05, 0.05), 0.0, 0.0, turn, openness])
