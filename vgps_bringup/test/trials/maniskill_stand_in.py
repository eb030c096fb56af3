"""ManiSkill 3 as far as its WidowX tasks are touched here: the shapes, types and names that they have."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

from vgps_msgs_py.robot_state import DOWN

START = np.array([-0.15, 0.0, 1.02])


def pose(position, rotation=None):
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3], matrix[:3, 3] = np.eye(3) if rotation is None else rotation, position
    return SimpleNamespace(p=torch.tensor(matrix[None, :3, 3]), sp=SimpleNamespace(
        to_transformation_matrix=lambda: matrix))


class Thing:
    """A box that lies about."""

    def __init__(self, half):
        self.half, self.position = np.array(half), np.zeros(3)

    @property
    def pose(self):
        return pose(self.position)

    def get_first_collision_mesh(self, to_world_frame):
        assert to_world_frame
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * self.half + self.position
        return SimpleNamespace(vertices=corners, bounds=np.array([corners.min(0), corners.max(0)]))


class Env:
    """gymnasium's wrapper around a world in which the hand does as it is told at once."""

    def __init__(self, identity, **options):
        assert options['obs_mode'] == 'rgb+segmentation'
        self.scenes, self.actions, self.closed = [], [], False
        self.unwrapped = world = SimpleNamespace(source_obj_name='thing', target_obj_name='goal')
        world.objs = {'thing': Thing((0.04, 0.01, 0.01)), 'goal': Thing((0.06, 0.06, 0.002))}
        world.get_language_instruction = lambda: ['put the spoon on the towel']
        world.agent = SimpleNamespace(
            is_grasping=lambda thing: torch.tensor([self.held]),
            controller=SimpleNamespace(controllers={'arm': SimpleNamespace(_target_pose=None)}),
            robot=SimpleNamespace(
                pose=pose((0, 0, 0.85)), get_qvel=lambda: torch.zeros(1, 8),
                get_qpos=lambda: torch.tensor([[0.0] * 6 + [self.finger] * 2])))
        self._place()

    def _place(self, hand=START):
        self.hand, self.finger, self.held, self.ever = np.array(hand, float), 0.037, False, False
        self._links()

    def _links(self):
        robot = self.unwrapped.agent.robot
        side = np.array([0, self.finger, 0])
        places = {'ee_gripper_link': self.hand, 'gripper_bar_link': self.hand, 'left_finger_link': self.hand + side,
                  'right_finger_link': self.hand - side}
        robot.links = [SimpleNamespace(name=name, pose=pose(at, DOWN), _objs=[]) for name, at in places.items()]
        robot.links_map = {link.name: link for link in robot.links}

    def _observation(self):
        rgb = torch.full((1, 60, 80, 3), len(self.actions) % 200, dtype=torch.uint8)
        return {'sensor_data': {'3rd_view_camera': {'rgb': rgb}}}

    def reset(self, seed, options):
        world = self.unwrapped
        assert options['episode_id'].tolist() == [0] and world.xyz_configs.shape == (1, 2, 3)
        self.scenes.append((world.xyz_configs.numpy()[0], world.quat_configs.numpy()[0]))
        self.actions = []
        for thing, position in zip(world.objs.values(), self.scenes[-1][0]):
            thing.position = position.astype(float)
        self._place()
        return self._observation(), {}

    def step(self, action):
        assert action.shape == (1, 7) and action.dtype == np.float32 and action[0, 6] in (-1, 1)
        self.actions.append(action[0])
        thing, goal = self.unwrapped.objs.values()
        self.hand = self.hand + action[0, :3]
        self.finger = 0.015 if action[0, 6] < 0 else 0.037
        near = np.linalg.norm(self.hand - thing.position - [0, 0, 0.012]) < 0.02
        self.held = self.finger < 0.02 and (self.held or near)
        self.ever |= self.held
        if self.held:
            thing.position = thing.position + action[0, :3]
        elif thing.position[2] > goal.position[2]:
            thing.position[2] = goal.position[2] + 0.01
        self._links()
        success = self.ever and not self.held and np.linalg.norm((thing.position - goal.position)[:2]) < 0.06
        return (self._observation(), 0.0, False, torch.tensor([len(self.actions) >= 60]),
                {'success': torch.tensor([success]), 'is_src_obj_grasped': torch.tensor([self.ever])})

    def close(self):
        self.closed = True


def install(monkeypatch):
    """Make ``import gymnasium, mani_skill.envs`` find the stand-in; return the environments that it made."""
    made = []

    def make(identity, **options):
        made.append(Env(identity, **options))
        return made[-1]

    gymnasium, package, envs = (ModuleType(name) for name in ('gymnasium', 'mani_skill', 'mani_skill.envs'))
    gymnasium.make, package.envs = make, envs
    for module in (gymnasium, package, envs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made
