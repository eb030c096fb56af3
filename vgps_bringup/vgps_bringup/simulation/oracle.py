"""What the simulator knows about a task: is it done, is the object held, and which kind of failure would it be."""

from dataclasses import dataclass

import mujoco
import numpy as np

from vgps_bringup.simulation.tasks import Task
from vgps_msgs_py.vocabulary import TaskFailure

_LIFTED = 0.01  # m above its resting height: the object has left the table
_AT_REST = 0.05  # m/s
_HOLD = 0.5  # s that the object must rest at the goal, released


@dataclass(frozen=True)
class TaskState:
    """Ground truth of one moment; the fields of vgps_msgs/TaskState."""

    task: str
    instruction: str
    seed: int
    success: bool  # the object has rested at the goal, released, for half a second
    grasped: bool  # both fingers touch the object
    ever_grasped: bool  # it was lifted between both fingers at some time
    failure: TaskFailure
    object_position: tuple[float, float, float]  # m, base frame
    goal_position: tuple[float, float, float]  # m


class Oracle:
    """Watches one simulated scene; `update` must be called at least every 20 ms of simulated time."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, task: Task):
        self._data, self._task = data, task
        self._object = model.body('object').id
        self._goal_mocap = model.body_mocapid[model.body('goal').id]
        self._velocity = model.joint('object').dofadr[0]
        self._left, self._right = model.geom('left_pad').id, model.geom('right_pad').id
        self._object_geom = model.geom('object').id
        self.reset()

    def reset(self) -> None:
        """Forget the past episode."""
        self.grasped = self.ever_grasped = self.placed = self.success = False
        self._placed_since = None

    @property
    def object_position(self) -> np.ndarray:
        """Centre of the object, (3,) m."""
        return self._data.xpos[self._object]

    @property
    def object_yaw(self) -> float:
        """Direction of the object's long axis about the vertical, in [-pi/2, pi/2] rad."""
        axis = self._data.xmat[self._object].reshape(3, 3)[:, 0]
        return float(np.arctan2(axis[1], axis[0]) if axis[0] >= 0 else np.arctan2(-axis[1], -axis[0]))

    @property
    def goal_position(self) -> np.ndarray:
        """Middle of the goal on the table, (3,) m."""
        return self._data.mocap_pos[self._goal_mocap]

    def update(self) -> None:
        """Look at the contacts and the poses of this moment."""
        pairs = self._data.contact.geom
        mine = pairs[(pairs == self._object_geom).any(axis=1)]
        left, right = bool((mine == self._left).any()), bool((mine == self._right).any())
        position, task = self.object_position, self._task
        self.grasped = left and right
        # a bool of Python's own: Humble refuses numpy's in a message
        self.ever_grasped |= self.grasped and bool(position[2] > task.rest_height + _LIFTED)
        offset = np.abs(position - self.goal_position)
        self.placed = bool(
            offset[0] <= task.placed_reach[0] and offset[1] <= task.placed_reach[1]
            and task.placed_height[0] <= position[2] <= task.placed_height[1]
            and not (left or right)
            and np.linalg.norm(self._data.qvel[self._velocity:self._velocity + 3]) < _AT_REST)
        if not self.placed:
            self._placed_since, self.success = None, False
        elif self._placed_since is None:
            self._placed_since = self._data.time
        else:
            self.success = bool(self._data.time - self._placed_since >= _HOLD)

    def failure(self) -> TaskFailure:
        """Return how the episode would be called if it ended now; NONE while the object rests at the goal."""
        if self.placed:
            return TaskFailure.NONE
        if not self.ever_grasped:
            return TaskFailure.NEVER_GRASPED
        if self.grasped:
            return TaskFailure.STILL_HOLDING
        near = np.linalg.norm((self.object_position - self.goal_position)[:2]) <= self._task.near_reach
        return TaskFailure.MISPLACED if near else TaskFailure.DROPPED_OUTSIDE
