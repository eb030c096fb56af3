"""SIMPLER's tasks behind one interface: ManiSkill 3 (four WidowX tasks), SimplerEnv (these and the Google Robot's).

ManiSkill 3: ``pip install mani-skill`` (needs Vulkan; Mesa >= 25 renders on a CPU) and its assets, found through
``MS_ASSET_DIR``. SimplerEnv: from its git repository, for the two Google Robot tasks. The commands are in
``doc/evaluation.md``.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgps_bringup.trials.simpler.arm import Arm
from vgps_bringup.trials.simpler.scenes import LAYOUTS, Scene

# Gripper decisions are held: the paper's evaluation flips after 3 disagreeing steps (WidowX), repeats for 15 (Google).
WIDOWX_STICKY, GOOGLE_STICKY = 3, 15
MANISKILL = {
    'widowx_spoon_on_towel': 'PutSpoonOnTableClothInScene-v1',
    'widowx_carrot_on_plate': 'PutCarrotOnPlateInScene-v1',
    'widowx_stack_cube': 'StackGreenCubeOnYellowCubeBakedTexInScene-v1',
    'widowx_put_eggplant_in_basket': 'PutEggplantInBasketScene-v1',
}
IMAGE_SIZE = 256  # pixels, what policy and critic see
CAMERA = '3rd_view_camera'  # the WidowX's
CAMERAS = {'widowx': CAMERA, 'google': 'overhead_camera'}
FINGER_GROUP = 1 << 15  # shapes that share a bit of SAPIEN's third collision group do not collide


class SimplerError(RuntimeError):
    """A task cannot be run here; the text says what to install or change."""


@dataclass(frozen=True)
class Seen:
    """What is known after a reset or a step."""

    image: np.ndarray            # (H, W, 3) uint8 RGB, as the simulator renders it
    success: bool = False
    over: bool = False           # the task's own step limit
    failure: str = ''            # what it would be called if it ended now
    state: np.ndarray | None = None  # (7,) BridgeData's, of the WidowX where the simulator tells it


class ManiSkillTask:
    """One of the four WidowX digital twins in ManiSkill 3."""

    robot = 'widowx'
    rate = 5.0  # control steps per simulated second

    def __init__(self, name: str):
        try:
            import mani_skill.envs  # noqa: F401  registers them
        except ImportError as error:
            raise SimplerError(f'SIMPLER through ManiSkill 3 needs "pip install mani-skill" ({error})') from error
        if name not in MANISKILL:
            raise SimplerError(f'{name} is not in ManiSkill 3; there are: {", ".join(MANISKILL)}. '
                               'The Google Robot tasks need SimplerEnv from its git repository')
        logging.getLogger('mani_skill').setLevel(logging.ERROR)  # of its own assets it warns at every start
        self.env = self._rendered(MANISKILL[name])
        self.world = self.env.unwrapped
        self.arm, self._layout = Arm(self.world), LAYOUTS[name]

    @staticmethod
    def _rendered(name: str) -> Any:
        """Return the world, with an NVIDIA GPU as its renderer where there is one; physics always run on the CPU."""
        import gymnasium
        import torch
        failed = []
        for backend in ('gpu', 'cpu') if torch.cuda.is_available() else ('cpu',):
            try:
                return gymnasium.make(name, obs_mode='rgb+segmentation', num_envs=1, sim_backend='physx_cpu',
                                      render_backend=backend)
            except RuntimeError as error:
                failed.append(f'on the {backend.upper()}: {error}')
        raise SimplerError(f'{name} cannot be rendered {"; ".join(failed)}. On a CPU it needs Mesa >= 25 '
                           "(mesa-vulkan-drivers, libvulkan1), on a GPU the driver's Vulkan and libvulkan1")

    def reset(self, seed: int, scene: Scene | None = None) -> tuple[Seen, str]:
        """Start an episode in SIMPLER's configuration number ``seed``, or in a ``scene`` of one's own.

        Returns:
            What is seen, and the instruction. There are 24 configurations (64 of the eggplant); then they repeat, up to
            ``scenes.FIRST_DRAWN``: from there on a seed means a scene as demonstrations have it.

        """
        import torch
        scene = scene or self._layout.scene(seed)
        for name, values in (('xyz_configs', scene.positions), ('quat_configs', scene.quaternions)):
            setattr(self.world, name, torch.tensor(values[None], dtype=torch.float32))
        observation, _ = self.env.reset(seed=seed, options={'episode_id': torch.tensor([0])})
        self._free_fingers()
        seen = Seen(self._image(observation), failure='missed grasp', state=self.arm.state())
        return seen, self.world.get_language_instruction()[0]

    def _free_fingers(self) -> None:
        """Let the fingers pass the bar they slide on, as SIMPLER does.

        The collision hulls of bar and fingers overlap. Where the robot's assets came without ``wx250s.srdf``, which
        says so to ManiSkill 3, the gripper is jammed open and every grasp fails.
        """
        for name in ('gripper_bar_link', 'left_finger_link', 'right_finger_link'):
            for body in self.world.agent.robot.links_map[name]._objs:
                for shape in body.get_collision_shapes():
                    groups = shape.get_collision_groups()
                    groups[2] |= FINGER_GROUP
                    shape.set_collision_groups(groups)

    def step(self, action: np.ndarray) -> Seen:
        """Execute (7,): metres, axis-angle in radians, gripper -1 closed .. 1 open.

        SIMPLER's first version took the rotation like this; ManiSkill 3's controller reads angles about the turned axes
        X, Y, Z instead (``PDEEPoseController.compute_target_pose``), which are equal only about a single axis.
        """
        from scipy.spatial.transform import Rotation
        angles = Rotation.from_rotvec(action[3:6]).as_euler('XYZ')
        sent = np.array([*action[:3], *angles, action[6]], np.float32)
        observation, _, _, truncated, information = self.env.step(sent[None])
        holding = bool(self.world.agent.is_grasping(self.source)[0])
        ever = bool(information['is_src_obj_grasped'][0])
        failure = 'missed grasp' if not ever else 'late drop' if holding else 'early drop'
        return Seen(self._image(observation), bool(information['success'][0]), bool(np.asarray(truncated).any()),
                    failure, self.arm.state())

    @property
    def source(self):
        """The object to be moved."""
        return self.world.objs[self.world.source_obj_name]

    @property
    def target(self):
        """Where it belongs."""
        return self.world.objs[self.world.target_obj_name]

    def close(self) -> None:
        """Free the renderer."""
        self.env.close()

    @staticmethod
    def _image(observation) -> np.ndarray:
        return observation['sensor_data'][CAMERA]['rgb'][0].cpu().numpy()


class SimplerEnvTask:
    """A task of SimplerEnv (SAPIEN 2); needs a GPU, or a Vulkan that offers CUDA interoperation."""

    def __init__(self, name: str):
        try:
            import simpler_env
        except ImportError as error:
            raise SimplerError(f'{name} needs SimplerEnv: git clone --recurse-submodules '
                               f'https://github.com/simpler-env/SimplerEnv and install it ({error})') from error
        if name not in simpler_env.ENVIRONMENTS:
            raise SimplerError(f'{name} is not in SimplerEnv; there are: {", ".join(simpler_env.ENVIRONMENTS)}')
        self.robot = robot_of(name)
        try:
            self.env = simpler_env.make(name)
        except RuntimeError as error:
            raise SimplerError(f'{name} cannot be rendered: {error}. SAPIEN 2 needs a GPU, or a Vulkan that shares '
                               'memory and semaphores with CUDA (VK_KHR_external_memory_fd, '
                               'VK_KHR_external_semaphore_fd)') from error
        self.world = self.env.unwrapped
        self.rate = float(self.world.control_freq)  # control steps per simulated second
        scene = Path(self.world.scene_root) / 'stages' / f'{self.world.scene_name}.glb'
        if 'dummy' not in scene.name and not scene.is_file():
            self.close()
            raise SimplerError(f'{name}: {scene} is missing, and SAPIEN would go on without the table')
        self._grasped = False

    def reset(self, seed: int) -> tuple[Seen, str]:
        """Start the episode that ``seed`` means; return what is seen and the instruction."""
        observation, _ = self.env.reset(seed=seed)
        self._grasped = False
        return Seen(self._image(observation)), self.world.get_language_instruction()

    def step(self, action: np.ndarray) -> Seen:
        """Execute (7,): metres, axis-angle in radians, gripper in the robot's own convention."""
        observation, _, success, truncated, _ = self.env.step(np.asarray(action, np.float32))
        return Seen(self._image(observation), bool(success), bool(truncated), self._failure())

    @property
    def source(self):
        """The object to be picked or moved; None in tasks with drawers."""
        return getattr(self.world, 'obj', None) or getattr(self.world, 'episode_source_obj', None)

    @property
    def target(self):
        """The object it is to be near; None where it is only picked."""
        return getattr(self.world, 'episode_target_obj', None)

    def close(self) -> None:
        """Free the renderer."""
        self.env.close()

    def _failure(self) -> str:
        if self.source is None:
            return 'other'
        # as SimplerEnv judges a grasp; its statistics have it for picking only
        holding = bool(self.world.agent.check_grasp(self.source, max_angle=80))
        self._grasped |= holding
        if not self._grasped:
            return 'missed grasp'
        if holding:  # what was to be picked only was not lifted
            return 'other' if self.target is None else 'late drop'
        return 'early drop'

    def _image(self, observation) -> np.ndarray:
        return observation['image'][CAMERAS[self.robot]]['rgb']


def robot_of(name: str) -> str:
    """Return whose task it is: `google` or `widowx`."""
    return 'google' if name.startswith('google') else 'widowx'


def make_task(name: str):
    """Return the task: ManiSkill 3 for the WidowX, SimplerEnv for the Google Robot.

    Raises:
        SimplerError: what it needs is not installed.

    """
    return ManiSkillTask(name) if name in MANISKILL else SimplerEnvTask(name)


class WidowXGripper:
    """Openness 0..1 to -1 or 1, flipping only after WIDOWX_STICKY disagreeing steps."""

    def __init__(self):
        self.closed, self.disagreeing = False, 0

    def __call__(self, openness: float) -> float:
        """Return the command for this step."""
        wanted = openness < 0.5
        self.disagreeing = self.disagreeing + 1 if wanted != self.closed else 0
        if self.disagreeing >= WIDOWX_STICKY:
            self.closed, self.disagreeing = wanted, 0
        return -1.0 if self.closed else 1.0


class GoogleGripper:
    """Openness to a relative command, held for GOOGLE_STICKY steps: previous minus present openness."""

    def __init__(self):
        self.previous, self.held, self.left = None, 0.0, 0

    def __call__(self, openness: float) -> float:
        """Return the command for this step."""
        relative = 0.0 if self.previous is None else self.previous - openness
        self.previous = openness
        if abs(relative) > 0.5 and self.left == 0:
            self.held, self.left = relative, GOOGLE_STICKY
        if self.left == 0:
            return relative
        self.left -= 1
        return self.held


class TemporalAverage:
    """Plain mean of what the last selected chunks predicted for now: the paper's ensembling after selection."""

    def __init__(self, window: int = 4):
        self.window, self.chunks = window, []

    def __call__(self, chunk: np.ndarray) -> np.ndarray:
        """Take the selected ``(H, 7)`` chunk; return the ``(7,)`` action to execute."""
        self.chunks = [chunk, *self.chunks][:self.window]
        return np.mean([c[age] for age, c in enumerate(self.chunks) if age < len(c)], axis=0)


def axis_angle(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Return the (3,) rotation vector [rad] of Rz(yaw) Ry(pitch) Rx(roll)."""
    from vgps_bringup.arm.kinematics import rotation_vector
    from vgps_msgs_py.robot_state import rotation_from_euler
    return np.asarray(rotation_vector(rotation_from_euler(roll, pitch, yaw)))
