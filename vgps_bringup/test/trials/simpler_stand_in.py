"""SimplerEnv as far as the runner touches it: the shapes, keys and names that its two Google Robot tasks have."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np

TABLE = 'google_pick_coke_can_1_v4'


class Body:
    """A box of SAPIEN 2."""

    def __init__(self, position, half=(0.06, 0.03, 0.03)):
        self.pose = Pose(position)
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
        self._shape = SimpleNamespace(geometry=SimpleNamespace(vertices=corners, scale=np.ones(3)),
                                      get_local_pose=lambda: Pose((0, 0, 0)))

    def get_collision_shapes(self):
        return [self._shape]


class Pose:
    def __init__(self, p, rotation=None):
        self.p, self.rotation = np.array(p, np.float32), np.eye(3) if rotation is None else rotation

    def to_transformation_matrix(self):
        pose = np.eye(4, dtype=np.float32)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.p
        return pose

    def __mul__(self, other):
        return Pose(self.rotation @ other.p + self.p, self.rotation @ other.rotation)


class Env:
    """gymnasium's wrapper: only ``unwrapped`` knows the task. The hand moves a third of the way it is told."""

    limit = 80

    def __init__(self, name, root):
        self.unwrapped = world = SimpleNamespace(control_freq=3, scene_root=root, scene_name=TABLE, robot_uid='google')
        self.closed, self.actions, self.held = False, [], False
        base = Pose((0.35, 0.2, 0.08), np.diag([-1.0, -1.0, 1.0]))  # faces the table
        world.agent = SimpleNamespace(robot=SimpleNamespace(pose=base), check_grasp=self._check_grasp)
        world.get_language_instruction = lambda: 'pick coke can'
        self.thing = Body((-0.25, 0.3, 0.9))
        if 'near' in name:
            world.get_language_instruction = lambda: 'move sponge near apple'
            world.episode_source_obj, world.episode_target_obj = self.thing, Body((-0.13, 0.0, 0.9))
        else:
            world.obj = self.thing

    def _check_grasp(self, actor, max_angle):
        assert actor is self.thing and max_angle == 80
        return self.held

    def _observation(self):
        rgb = np.full((512, 640, 3), len(self.actions), np.uint8)
        return {'image': {'base_camera': {'rgb': rgb[:128, :128] + 100}, 'overhead_camera': {'rgb': rgb}}}

    def reset(self, seed=None, options=None):
        self.seed, self.actions, self.held, self.closedness = seed, [], False, 0.0
        self.unwrapped.tcp = SimpleNamespace(pose=Pose((-0.09, 0.42, 1.04), np.diag([1.0, -1.0, -1.0])))
        self.thing.pose = Pose((-0.25, 0.3, 0.9))
        return self._observation(), {'episode_id': 3}

    def step(self, action):
        assert action.shape == (7,) and action.dtype == np.float32
        self.actions.append(action)
        world = self.unwrapped
        moved = world.agent.robot.pose.rotation @ action[:3] / 3
        hand = world.tcp.pose
        world.tcp.pose = Pose(hand.p + moved, hand.rotation)
        self.closedness = np.clip(self.closedness + action[6] / 3, 0, 1)
        near = np.linalg.norm(world.tcp.pose.p - self.thing.pose.p) < 0.03
        self.held = bool(self.closedness > 0.6 and (self.held or near))
        if self.held:
            self.thing.pose = Pose(self.thing.pose.p + moved)
        target = getattr(world, 'episode_target_obj', None)
        success = self.thing.pose.p[2] > 0.92 if target is None else \
            np.linalg.norm((self.thing.pose.p - target.pose.p)[:2]) < 0.2
        statistics = {'grasped': self.held} if target is None else {'moved_correct_obj': self.held}
        return (self._observation(), float(success), np.bool_(success), len(self.actions) >= self.limit,
                {'success': np.bool_(success), 'episode_stats': statistics})

    def close(self):
        self.closed = True


def install(monkeypatch, folder, **fields):
    """Make ``import simpler_env`` find the stand-in, with the table's file below ``folder``; return what it made."""
    (folder / 'stages').mkdir(parents=True)
    (folder / 'stages' / f'{TABLE}.glb').touch()
    made = []

    def make(name):
        made.append(Env(name, str(folder)))
        return made[-1]

    module = ModuleType('simpler_env')
    module.ENVIRONMENTS = ['google_robot_pick_coke_can', 'google_robot_move_near']
    module.make = fields.get('make', make)
    monkeypatch.setitem(sys.modules, 'simpler_env', module)
    return made
