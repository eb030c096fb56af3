"""The simulated WidowX 250: physics, joint commands, seeded scenes and a camera. The embedded default robot."""

import mujoco
import numpy as np

from vgps_bringup.simulation.appearance import PLAIN, Appearance, VisualRandomisation
from vgps_bringup.simulation.model import FINGER_CLOSED, FINGER_OPEN, JOINT_NAMES, START_JOINTS
from vgps_bringup.simulation.oracle import Oracle, TaskState
from vgps_bringup.simulation.rendering import Renderer, make_renderer
from vgps_bringup.simulation.tasks import DEFAULT_TASK, TASKS, Task

_RAMP = 0.7  # part of a command's duration in which the joint targets move; the rest is for the arm to catch up
_SETTLE = 0.3  # s that a new scene comes to rest
_WATCH = 0.02  # s between two looks of the oracle


class _World:
    """Everything that is built once for a task: building takes 0.1 s, and opening OpenGL another 0.4 s."""

    def __init__(self, task: Task):
        self.model = task.build()
        self.data = mujoco.MjData(self.model)
        self.appearance = Appearance(self.model)
        self.oracle = Oracle(self.model, self.data, task)
        self.renderer: Renderer | None = None


class SimulatedWidowX:
    """One simulated arm with one task on its table. Time advances only in `advance` (and `reset` settles the scene)."""

    def __init__(self, task: str = DEFAULT_TASK, image_size: tuple[int, int] = (256, 256), renderer: str = 'auto',
                 looks: VisualRandomisation = PLAIN):
        """Build the world of `task`; `image_size` is (height, width) in pixels.

        `renderer` is 'auto', 'egl', 'osmesa' or 'rays'; it is opened by the first `render`, in that thread.

        Raises:
            ValueError: no task of this name, or an impossible image size.
        """
        if min(image_size) < 8 or max(image_size) > 1280:
            raise ValueError(f'image_size is {image_size}; both sides must be within 8 and 1280 pixels')
        self.image_size, self.looks = tuple(image_size), looks
        self.renderer = renderer
        self._worlds: dict[str, _World] = {}
        self._enter(task)
        self.reset(0)

    def _enter(self, task: str) -> None:
        """Make the world of `task` the present one; worlds once built are kept, with their renderers."""
        if task not in TASKS:
            raise ValueError(f'there is no task {task!r}; known are {", ".join(TASKS)}')
        if task not in self._worlds:
            self._worlds[task] = _World(TASKS[task])
        self._world = world = self._worlds[task]
        self.task_name, self.task = task, TASKS[task]
        self.model, self.data, self.oracle = world.model, world.data, world.oracle
        self._site = self.model.site('ee_gripper_link').id
        self._arm = [self.model.joint(name).qposadr[0] for name in JOINT_NAMES]
        self._arm_speed = [self.model.joint(name).dofadr[0] for name in JOINT_NAMES]
        self._fingers = [self.model.joint(name).qposadr[0] for name in ('left_finger', 'right_finger')]
        self._object = self.model.joint('object').qposadr[0]
        self._goal = self.model.body_mocapid[self.model.body('goal').id]

    def reset(self, seed: int = 0, task: str | None = None) -> str:
        """Put arm, object and goal into the start state that `seed` means and return the instruction.

        The arm stands at BridgeData's start pose with an open gripper. Same task, seed and looks: same state.
        """
        if task is not None and task != self.task_name:
            self._enter(task)
        self.seed = int(seed)
        scene, looks = (np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(2))
        task, data = self.task, self.data
        mujoco.mj_resetData(self.model, data)
        self._world.appearance.apply(self.looks, looks)
        data.qpos[self._arm] = START_JOINTS
        data.qpos[self._fingers] = FINGER_OPEN
        yaw = scene.uniform(-task.object_yaw, task.object_yaw)
        data.qpos[self._object:self._object + 7] = (
            scene.uniform(*task.object_x), scene.uniform(*task.object_y), task.rest_height,
            np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        data.mocap_pos[self._goal] = (scene.uniform(*task.goal_x), scene.uniform(*task.goal_y), 0.0)
        self._from = self._to = np.array(START_JOINTS)
        self._started, self._ramp = 0.0, 1e-3
        data.ctrl[:] = (*START_JOINTS, FINGER_OPEN)
        self._owed = 0.0
        self.oracle.reset()
        self.advance(_SETTLE)
        self.oracle.reset()
        data.time = self._started = 0.0
        return task.instruction

    @property
    def time(self) -> float:
        """Simulated seconds since the reset."""
        return self.data.time

    def joint_positions(self) -> np.ndarray:
        """Measured joint angles (6,) rad, waist to wrist_rotate."""
        return self.data.qpos[self._arm].copy()

    def joint_velocities(self) -> np.ndarray:
        """Measured joint velocities (6,) rad/s."""
        return self.data.qvel[self._arm_speed].copy()

    def finger_position(self) -> float:
        """Distance of one finger from the centre, 0.010 (closed) to 0.037 m."""
        return float(self.data.qpos[self._fingers[0]])

    def gripper_openness(self) -> float:
        """Measured openness, 0 (closed) to 1 (open), in BridgeData's calibration."""
        return float(np.clip((self.finger_position() - FINGER_CLOSED) / (FINGER_OPEN - FINGER_CLOSED), 0.0, 1.0))

    def gripper_pose(self) -> np.ndarray:
        """Pose of ee_gripper_link in the base frame, (4, 4), metres."""
        pose = np.eye(4)
        pose[:3, :3] = self.data.site_xmat[self._site].reshape(3, 3)
        pose[:3, 3] = self.data.site_xpos[self._site]
        return pose

    def command(self, joint_positions: np.ndarray, openness: float, duration: float = 0.2) -> None:
        """Move the joint targets to `joint_positions` (6,) rad within 70 % of `duration` seconds; the gripper at once.

        Raises:
            ValueError: not six finite joint angles, no finite openness, or a duration that is not positive.
        """
        target = np.asarray(joint_positions, dtype=float)
        if target.shape != (6,) or not np.isfinite(target).all() or not np.isfinite(openness):
            raise ValueError(f'command needs six finite joint angles and a finite openness, got {target}, {openness}')
        if not duration > 0.0:
            raise ValueError(f'duration is {duration} s; it must be positive')
        self._from = self.data.ctrl[:6].copy()
        self._to = np.clip(target, self.model.jnt_range[:6, 0], self.model.jnt_range[:6, 1])
        self._started, self._ramp = self.data.time, _RAMP * duration
        self.data.ctrl[6] = FINGER_CLOSED + float(np.clip(openness, 0.0, 1.0)) * (FINGER_OPEN - FINGER_CLOSED)

    def advance(self, seconds: float) -> None:
        """Let simulated time pass; what is left over below one physics step (4 ms) is kept for the next call."""
        model, data, step = self.model, self.data, self.model.opt.timestep
        self._owed += seconds
        every = round(_WATCH / step)
        for i in range(int(self._owed / step + 1e-9)):
            share = min(1.0, (data.time - self._started + step) / self._ramp)
            data.ctrl[:6] = self._from + share * (self._to - self._from)
            mujoco.mj_step(model, data)
            self._owed -= step
            if i % every == every - 1:
                self.oracle.update()
        mujoco.mj_kinematics(model, data)  # poses of this moment rather than of the step before
        self.oracle.update()

    def task_state(self) -> TaskState:
        """Return the ground truth; only judges, recorders and the scripted demonstrator may look."""
        oracle = self.oracle
        return TaskState(
            task=self.task_name, instruction=self.task.instruction, seed=self.seed, success=oracle.success,
            grasped=oracle.grasped, ever_grasped=oracle.ever_grasped, failure=oracle.failure(),
            object_position=tuple(oracle.object_position.tolist()), goal_position=tuple(oracle.goal_position.tolist()))

    def render(self) -> np.ndarray:
        """Return what the camera sees now, (H, W, 3) uint8 RGB."""
        world = self._world
        if world.renderer is None:
            world.renderer = make_renderer(self.model, self.image_size, self.renderer)
        return world.renderer.render(self.data)

    @property
    def backend(self) -> str:
        """The renderer in use, empty before the first picture of the present task."""
        return self._world.renderer.name if self._world.renderer else ''

    def close(self) -> None:
        """Free the renderers; the next `render` opens a new one."""
        for world in self._worlds.values():
            if world.renderer is not None:
                world.renderer.close()
                world.renderer = None
