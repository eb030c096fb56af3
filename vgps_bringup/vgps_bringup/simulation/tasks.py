"""The tasks, named after the paper's: what lies on the table, where it may lie, and when the task is done.

A task of your own is a `Task` in your own package, found by name through the entry-point group `vgps.tasks`:

    [project.entry-points.'vgps.tasks']
    put_cup_on_shelf = 'our_lab_tasks:PUT_CUP_ON_SHELF'

    vgps-run simulation task:=put_cup_on_shelf
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from math import cos, pi, sin

import mujoco

from vgps_bringup.simulation import model

_MATERIALS = {  # matt colours of objects and goals
    'eggplant': '0.36 0.10 0.46', 'stem': '0.25 0.55 0.20', 'carrot': '0.95 0.47 0.10', 'leaves': '0.30 0.62 0.22',
    'steel': '0.70 0.72 0.76', 'handle': '0.18 0.38 0.75', 'green': '0.20 0.62 0.28', 'yellow': '0.95 0.82 0.18',
    'wicker': '0.93 0.77 0.40', 'wicker_inside': '0.80 0.62 0.30', 'plate': '0.90 0.92 0.95',
    'plate_rim': '0.35 0.55 0.80', 'cloth': '0.78 0.25 0.30', 'cloth_stripe': '0.92 0.86 0.82',
}


def _cone(name: str, length: float, start: float, end: float) -> str:
    """MJCF of a truncated cone along x, radius `start` at -length/2 and `end` at +length/2 [m]."""
    ring = [(cos(2 * pi * i / 16), sin(2 * pi * i / 16)) for i in range(16)]
    points = [f'{side * length / 2:.5f} {radius * c:.5f} {radius * s:.5f}'
              for side, radius in ((-1, start), (1, end)) for c, s in ring]
    return f'<mesh name="{name}" inertia="shell" vertex="{" ".join(points)}"/>'


_MESHES = _cone('carrot_body', 0.088, 0.0165, 0.0085) + _cone('plate_dish', 0.010, 0.050, 0.068)

_EGGPLANT = """
<body name="object"><freejoint name="object"/>
  <geom name="object" class="object" group="3" type="capsule" size="0.019" fromto="-0.026 0 0 0.026 0 0" mass="0.09"/>
  <body>
    <geom class="looks" type="ellipsoid" size="0.030 0.0205 0.0195" pos="0.012 0 0" material="eggplant"/>
    <geom class="looks" type="ellipsoid" size="0.030 0.0165 0.0165" pos="-0.014 0 0" material="eggplant"/>
    <geom class="looks" type="ellipsoid" size="0.009 0.0135 0.0135" pos="-0.036 0 0" material="stem"/>
    <geom class="looks" type="capsule" size="0.0035" fromto="-0.042 0 0 -0.055 0 0.004" material="stem"/>
  </body>
</body>"""
_CARROT = """
<body name="object"><freejoint name="object"/>
  <geom name="object" class="object" group="3" type="capsule" size="0.0165" fromto="-0.030 0 0 0.030 0 0" mass="0.08"/>
  <body>
    <geom class="looks" type="mesh" mesh="carrot_body" pos="0.002 0 0" material="carrot"/>
    <geom class="looks" type="sphere" size="0.0165" pos="-0.040 0 0" material="carrot"/>
    <geom class="looks" type="sphere" size="0.0085" pos="0.046 0 0" material="carrot"/>
    <geom class="looks" type="capsule" size="0.004" fromto="-0.055 0 0 -0.078 0.006 0.005" material="leaves"/>
    <geom class="looks" type="capsule" size="0.004" fromto="-0.055 0 0 -0.080 -0.005 0.002" material="leaves"/>
  </body>
</body>"""
_SPOON = """
<body name="object"><freejoint name="object"/>
  <geom name="object" class="object" group="3" type="capsule" size="0.0150" fromto="-0.042 0 0 0.042 0 0" mass="0.10"/>
  <body>
    <geom class="looks" type="capsule" size="0.0140" fromto="-0.042 0 0 0.018 0 0" material="handle"/>
    <geom class="looks" type="capsule" size="0.0060" fromto="0.018 0 0 0.034 0 0" material="steel"/>
    <geom class="looks" type="ellipsoid" size="0.024 0.0165 0.0080" pos="0.050 0 0" material="steel"/>
  </body>
</body>"""
_GREEN_CUBE = """
<body name="object"><freejoint name="object"/>
  <geom name="object" class="object" type="box" size="0.0175 0.0175 0.0175" material="green" mass="0.06"/>
</body>"""
_YELLOW_CUBE = """
<body name="goal" mocap="true">
  <geom name="goal" class="fixed" type="box" size="0.0225 0.0225 0.0175" pos="0 0 0.0175" material="yellow"/>
</body>"""
_BASKET = """
<body name="goal" mocap="true">
  <geom name="goal" class="fixed" type="box" size="0.062 0.078 0.002" pos="0 0 0.002" material="wicker_inside"/>
  <geom class="fixed" type="box" size="0.004 0.078 0.0275" pos="0.066 0 0.0275" material="wicker"/>
  <geom class="fixed" type="box" size="0.004 0.078 0.0275" pos="-0.066 0 0.0275" material="wicker"/>
  <geom class="fixed" type="box" size="0.070 0.004 0.0275" pos="0 0.082 0.0275" material="wicker"/>
  <geom class="fixed" type="box" size="0.070 0.004 0.0275" pos="0 -0.082 0.0275" material="wicker"/>
</body>"""
_PLATE = """
<body name="goal" mocap="true">
  <geom name="goal" class="fixed" group="3" type="cylinder" size="0.066 0.005" pos="0 0 0.005"/>
  <body>
    <geom class="looks" type="mesh" mesh="plate_dish" pos="0 0 0.005" euler="0 -1.5708 0" material="plate_rim"/>
    <geom class="looks" type="cylinder" size="0.054 0.0006" pos="0 0 0.0102" material="plate"/>
  </body>
</body>"""
_CLOTH = """
<body name="goal" mocap="true">
  <geom name="goal" class="fixed" type="box" size="0.060 0.075 0.0015" pos="0 0 0.0015" material="cloth"/>
  <body>
    <geom class="looks" type="box" size="0.060 0.006 0.0003" pos="0 0.045 0.0031" material="cloth_stripe"/>
    <geom class="looks" type="box" size="0.060 0.006 0.0003" pos="0 -0.045 0.0031" material="cloth_stripe"/>
  </body>
</body>"""


@dataclass(frozen=True)
class Task:
    """One task: bodies `object` and `goal`, their ranges at a reset, and the region that means success.

    Lengths are metres in the arm's base frame, angles radians.
    """

    instruction: str  # what policy and critic are told
    scene: str  # MJCF of the bodies 'object' (free) and 'goal' (placed at a reset, then fixed)
    object_x: tuple[float, float]  # where the object may lie
    object_y: tuple[float, float]
    object_yaw: float  # largest turn of the object's long axis from the base's x axis
    goal_x: tuple[float, float]  # where the goal may stand
    goal_y: tuple[float, float]
    half_length: float  # of the object, along its long axis
    rest_height: float  # of the object's centre on the table
    grasp_height: float  # of the gripper when it closes
    placed_height: tuple[float, float]  # of the object's centre when it is at the goal
    placed_reach: tuple[float, float]  # largest |dx|, |dy| of the object's centre from the goal's
    near_reach: float  # released within this distance of the goal but not on it: misplaced, beyond: dropped outside
    carry_height: float  # of the gripper on the way to the goal, high enough for its wall
    release_height: float  # of the gripper when it opens over the goal
    assets: str = ''  # MJCF <mesh> and <material> elements that `scene` uses beyond those here

    def build(self) -> mujoco.MjModel:
        """Return the compiled world of this task."""
        materials = ''.join(f'<material name="{name}" rgba="{colour} 1" specular="0.1" shininess="0.2"/>'
                            for name, colour in _MATERIALS.items())
        return model.build(self.scene, _MESHES + materials + self.assets)


_SHIPPED = {
    'put_eggplant_in_basket': Task(
        instruction='put eggplant in basket', scene=_EGGPLANT + _BASKET,
        object_x=(0.22, 0.34), object_y=(0.08, 0.18), object_yaw=0.30, goal_x=(0.26, 0.31), goal_y=(-0.10, -0.06),
        half_length=0.045, rest_height=0.019, grasp_height=0.0245, placed_height=(0.0, 0.045),
        placed_reach=(0.062, 0.078), near_reach=0.10, carry_height=0.125, release_height=0.105),
    'put_carrot_on_plate': Task(
        instruction='put carrot on plate', scene=_CARROT + _PLATE,
        object_x=(0.22, 0.34), object_y=(0.08, 0.18), object_yaw=0.30, goal_x=(0.25, 0.32), goal_y=(-0.09, -0.03),
        half_length=0.050, rest_height=0.0165, grasp_height=0.0245, placed_height=(0.015, 0.045),
        placed_reach=(0.055, 0.055), near_reach=0.085, carry_height=0.08, release_height=0.037),
    'put_spoon_on_cloth': Task(
        instruction='put spoon on cloth', scene=_SPOON + _CLOTH,
        object_x=(0.22, 0.34), object_y=(0.08, 0.18), object_yaw=0.30, goal_x=(0.25, 0.32), goal_y=(-0.09, -0.03),
        half_length=0.056, rest_height=0.0150, grasp_height=0.0245, placed_height=(0.008, 0.035),
        placed_reach=(0.055, 0.070), near_reach=0.09, carry_height=0.08, release_height=0.030),
    'stack_green_on_yellow': Task(
        instruction='stack green block on yellow block', scene=_GREEN_CUBE + _YELLOW_CUBE,
        object_x=(0.22, 0.34), object_y=(0.07, 0.17), object_yaw=0.20, goal_x=(0.25, 0.32), goal_y=(-0.08, -0.01),
        half_length=0.0175, rest_height=0.0175, grasp_height=0.0245, placed_height=(0.046, 0.060),
        placed_reach=(0.0225, 0.0225), near_reach=0.05, carry_height=0.10, release_height=0.0615),
}


class TaskError(ValueError):
    """A task of another package cannot be used; the text says why."""


class _Tasks(Mapping[str, Task]):
    """The shipped tasks and those of other installed packages; the latter are loaded when they are asked for."""

    def _found(self) -> dict:
        found = dict(_SHIPPED)
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            first = found.setdefault(entry.name, entry)
            # one package may be seen twice, as source and as installed
            if first is not entry and getattr(first, 'value', '') != entry.value:
                raise TaskError(f'two packages provide the task {entry.name!r}; the second is {entry.value}')
        return found

    def __getitem__(self, name: str) -> Task:
        """Return a task; KeyError where there is none of this name, TaskError where its package fails."""
        task = self._found()[name]
        if isinstance(task, Task):
            return task
        try:
            loaded = task.load()
        except Exception as error:  # whatever a foreign package raises when it is imported
            raise TaskError(f'task {name!r} ({task.value}): {type(error).__name__}: {error}') from error
        if not isinstance(loaded, Task):
            raise TaskError(f'task {name!r} ({task.value}) is a {type(loaded).__name__}, not a Task')
        return loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())

    def __contains__(self, name: object) -> bool:
        return name in self._found()


ENTRY_POINT_GROUP = 'vgps.tasks'
TASKS = _Tasks()
DEFAULT_TASK = 'put_eggplant_in_basket'
