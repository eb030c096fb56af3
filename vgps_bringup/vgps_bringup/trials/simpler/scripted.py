"""``--policy scripted``: policies that see SIMPLER's state, to check that its tasks can be played and scored.

Their candidates differ by noise of ``spread`` metres; the first is the script itself.
"""

import cv2
import numpy as np

from vgps_bringup.simulation.demonstrator import NO_ERRORS, DemonstratorConfig, Errors
from vgps_policy_bridge.policy import Candidates, Observation

GRASP_ABOVE = 0.012  # m above the object's origin; the fingers reach 23 mm below the gripper's frame
GAIN = 0.35          # share of the way to its goal that the script asks for per step
SCRIPTED = 'scripted'  # a policy name that only exists here: it sees the simulator's state
UP = np.array([0.0, 0.0, 1.0])
LOST = 0.06  # m between hand and thing, level: it is not in the hand
CARRY, RELEASE, RETREAT = 4, 7, 8  # phases of a pick and place


class ScriptedPickAndPlace:
    """Reach, grasp, carry, release from the simulator's state; to check that tasks can be played, and to demonstrate.

    Its candidates differ by noise of ``spread`` metres; with `errors` it errs as the paper's policies do.
    """

    def __init__(self, task, spread: float = 0.003, errors: DemonstratorConfig = NO_ERRORS):
        self.task, self.spread, self.errors = task, spread, errors

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode."""
        self._rng, self._phase, self._since, self._anchor = np.random.default_rng(seed), 0, 0, None
        self._wrong = None

    @property
    def done(self) -> bool:
        """Whether it has let go and withdrawn."""
        return self._phase == RETREAT and self._since > 5

    def propose(self, observation: Observation | None, k: int) -> Candidates:
        """Return k noisy copies of the next action."""
        base, hand = self.task.arm.base_pose(), self.task.arm.world_pose()[:3, 3]
        thing, goal = (x.pose.p[0].cpu().numpy() for x in (self.task.source, self.task.target))
        if self._wrong is None:
            self._wrong = self._draw_errors(thing)
            self._along = self._wrong.along * self._long_side()
        wrong, up = self._wrong, UP
        goal = goal + np.array([*wrong.place, 0.0])
        grasp = thing + self._along + (GRASP_ABOVE + wrong.higher) * up
        anchor = hand if self._anchor is None else self._anchor  # where the phase began
        carried = np.array([*(hand - thing)[:2], 0.0])  # over the goal is to be the thing, not the hand
        if np.linalg.norm(carried) > LOST:  # which it did not grasp, or lost
            carried = np.zeros(3)
        over = goal + 0.14 * up + carried
        early = self._phase == 1 and hand[2] - grasp[2] < wrong.early_close
        # phases: where the hand goes, how near is there [m], least and most steps, openness
        plan = ((thing + self._along + 0.07 * up, 0.015, 0, 20, 1.0), (grasp, 0.008, 1, 10, 0.0 if early else 1.0),
                (anchor, 1.0, 7, 7, 0.0), (anchor + 0.1 * up, 0.03, 0, 8, 0.0),
                (over, 0.02, 0, 14, 0.0), (goal + 0.06 * up + carried, 0.02, 0, 6, 0.0),
                (anchor, 1.0, wrong.wait, wrong.wait, 0.0),
                (anchor, 1.0, 5, 5, 1.0), (anchor + 0.05 * up, 0.0, 99, 99, 1.0))
        target, near, least, most, openness = plan[self._phase]
        self._since += 1
        turn = self._turn() if self._phase == 0 else 0.0
        following = self._phase + 1
        if self._phase == CARRY and wrong.release_at < 1.0:
            way = np.linalg.norm((over - anchor)[:2])
            if np.linalg.norm((over - hand)[:2]) <= (1.0 - wrong.release_at) * way:
                following, most, openness = RELEASE, 0, 1.0
        if self._since >= most or (
                self._since > least and np.linalg.norm(target - hand) < near and abs(turn) < 0.15):
            self._phase, self._since, self._anchor = min(following, len(plan) - 1), 0, hand
        # actions move the controller's target, which the hand follows late: a part of the error at a time
        step = GAIN * (target - hand)
        step *= min(1.0, self.errors.speed / max(np.linalg.norm(step), 1e-9))
        step = base[:3, :3].T @ step + self._rng.normal(0.0, 1.0, 3) * self.errors.action_noise
        actions = np.zeros((k, 1, 7), np.float32)
        noise = self._rng.normal(0, self.spread, (k, 3))
        actions[:, 0, :3] = step + noise * (np.arange(k)[:, None] > 0)  # the first is the script itself
        actions[:, 0, 5] = np.clip(0.5 * turn, -0.2, 0.2)
        actions[:, 0, 6] = openness
        return Candidates(actions, SCRIPTED, used=('simulator state',))

    def _draw_errors(self, thing: np.ndarray) -> Errors:
        lowest, goal = _bounds(self.task.source)[0], _bounds(self.task.target)
        half_length = np.linalg.norm(self._sides()[1]) / 2
        return Errors.draw(self.errors, self._rng, half_length, thing[2] - lowest[2],
                           tuple((goal[1] - goal[0])[:2] / 2))

    def _sides(self) -> list[np.ndarray]:
        """Return the short and the long side (2,) [m] of the box around the object's outline."""
        outline = self.task.source.get_first_collision_mesh(to_world_frame=True).vertices[:, :2]
        corners = cv2.boxPoints(cv2.minAreaRect(outline.astype(np.float32)))
        return sorted((corners[1] - corners[0], corners[2] - corners[1]), key=np.linalg.norm)

    def _long_side(self) -> np.ndarray:
        """Return the direction (3,) of the long side."""
        side = self._sides()[1]
        return np.array([*side, 0.0]) / max(np.linalg.norm(side), 1e-9)

    def _turn(self) -> float:
        """Return the yaw [rad] that lays the fingers across the object's short side."""
        short = self._sides()[0]
        fingers = [link.pose.p[0].cpu().numpy() for link in self.task.world.agent.robot.links
                   if link.name in ('left_finger_link', 'right_finger_link')]
        opening = (fingers[1] - fingers[0])[:2]
        turn = np.arctan2(short[1], short[0]) - np.arctan2(opening[1], opening[0])
        return float((turn + np.pi / 2) % np.pi - np.pi / 2)


def _bounds(actor) -> np.ndarray:
    """Return the lowest and the highest corner (2, 3) [m] of an object's collision shape in the world."""
    return actor.get_first_collision_mesh(to_world_frame=True).bounds


class ScriptedGoogle:
    """The same for the Google Robot in SimplerEnv: from above, fingers across the short side, lift, carry beside."""

    def __init__(self, task, spread: float = 0.003):
        self.task, self.spread = task, spread

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode."""
        self._rng, self._phase, self._since, self._anchor = np.random.default_rng(seed), 0, 0, None
        self._attitude = None

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Return k noisy copies of the next action."""
        from scipy.spatial.transform import Rotation
        world, task = self.task.world, self.task
        hand = world.tcp.pose.to_transformation_matrix()
        base = world.agent.robot.pose.to_transformation_matrix()[:3, :3]
        position, thing, corners = hand[:3, 3], np.array(task.source.pose.p), outline(task.source)
        if self._anchor is None:
            self._anchor = position
        if self._phase < 2:  # later the object turns with the hand
            self._attitude = attitude(corners, hand[:3, :3])
        turn = Rotation.from_matrix(self._attitude @ hand[:3, :3].T).as_rotvec()
        grasp = np.array([*thing[:2], max(thing[2], corners[:, 2].max() - 0.05)])
        beside = self._anchor
        if task.target is not None:
            goal = np.array(task.target.pose.p)
            away = (thing - goal)[:2] / max(np.linalg.norm((thing - goal)[:2]), 1e-6)
            beside = np.array([*(goal[:2] + 0.12 * away + (position - thing)[:2]), self._anchor[2]])
        # phases: where the hand goes, how near is there [m], least and most steps, openness
        plan = ((grasp + 0.13 * UP, 0.03, 0, 12, 1.0), (grasp, 0.012, 1, 15, 1.0), (self._anchor, 1.0, 4, 4, 0.0),
                (self._anchor + 0.12 * UP, 0.03, 0, 8, 0.0), (beside, 0.0, 99, 99, 0.0))
        target, near, least, most, openness = plan[self._phase]
        self._since += 1
        way = target - position
        settled = np.linalg.norm(way) < near and (self._phase > 0 or np.linalg.norm(turn) < 0.15)
        if self._since >= most or (self._since > least and settled):
            self._phase, self._since, self._anchor = min(self._phase + 1, len(plan) - 1), 0, position
        actions = np.zeros((k, 1, 7), np.float32)
        noise = self._rng.normal(0, self.spread, (k, 3))
        actions[:, 0, :3] = base.T @ _at_most(way, 0.12) + noise * (np.arange(k)[:, None] > 0)
        actions[:, 0, 3:6] = Rotation.from_rotvec(base.T @ _at_most(turn, 0.5)).as_euler('xyz')
        actions[:, 0, 6] = openness
        return Candidates(actions, SCRIPTED, used=('simulator state',))


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(np.linalg.norm(vector), 1e-9))


def outline(actor) -> np.ndarray:
    """Return the corners (N, 3) [m] of a SAPIEN 2 actor's collision shapes in the world."""
    corners = []
    for shape in actor.get_collision_shapes():
        pose = (actor.pose * shape.get_local_pose()).to_transformation_matrix()
        vertices = np.asarray(shape.geometry.vertices) * np.asarray(shape.geometry.scale)
        corners.append(vertices @ pose[:3, :3].T + pose[:3, 3])
    return np.concatenate(corners)


def attitude(corners: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation of a hand that points down, its fingers (y) across the outline's short side.

    Of those that do, the one nearest to ``now``. About as long as wide: any side.
    """
    box = cv2.boxPoints(cv2.minAreaRect(corners[:, :2].astype(np.float32)))
    sides = sorted((box[1] - box[0], box[2] - box[1]), key=np.linalg.norm)
    if np.linalg.norm(sides[0]) < 0.8 * np.linalg.norm(sides[1]):
        sides = sides[:1]
    across = max((sign * np.array([*side, 0.0]) / np.linalg.norm(side) for side in sides for sign in (1, -1)),
                 key=lambda y: y @ now[:, 1])
    return np.stack([np.cross(across, -UP), across, -UP], 1)
