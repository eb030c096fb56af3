"""Where every link of the arm is: how far above the table, how far from the others.

The shapes are boxes, capsules and cylinders around the wx250s' links (servos, brackets, fingers), on the joints of
``kinematics.py``; MuJoCo finds their poses and overlaps, without a renderer. What the gripper holds, cables and
anything but the table's plane and the arm itself are unknown here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import mujoco
import numpy as np

from vgps_bringup.arm.arms import FINGER_OPEN
from vgps_msgs_py.vocabulary import ControllerReason as Reason

FINGER_REACH = 0.0234     # m that the fingertips are ahead of the gripper's frame
WRIST_REACH = 0.1586      # m that the wrist's axis is behind the gripper's frame
TOLERANCE = 0.001         # m: rounding of the inverse kinematics and of the shapes' edges
_SEEN_FROM = 0.005        # m: links further apart than this are not reported
_SAMPLE = 0.04            # rad between two looks along a path: 3 cm at the fingertips of a stretched arm

# The base stands on the table and the upper arm's foot cannot leave its height: the table is asked about what moves.
_ABOVE_TABLE = ('elbow', 'forearm', 'wrist', 'hand', 'left_finger', 'right_finger')
_NAMES = {'base': 'base', 'waist': 'shoulder block', 'shoulder': 'upper arm', 'elbow': 'forearm',
          'forearm': 'wrist roll', 'wrist': 'wrist', 'hand': 'gripper', 'left_finger': 'left finger',
          'right_finger': 'right finger'}
_SHAPES = f"""
<mujoco model="wx250s_shapes">
  <compiler angle="radian"/>
  <default><geom mass="0.1" margin="{_SEEN_FROM}"/></default>
  <worldbody>
    <body name="base">
    <geom type="box" size="0.075 0.055 0.012" pos="-0.02 0 0.012"/>
    <geom type="box" size="0.045 0.040 0.022" pos="-0.005 0 0.040"/>
    <body name="waist" pos="0 0 0.072"><joint axis="0 0 1"/>
    <geom type="cylinder" size="0.038 0.010" pos="0 0 -0.006"/>
    <geom type="box" size="0.020 0.044 0.024" pos="0 0 0.024"/>
    <body name="shoulder" pos="0 0 0.03865"><joint axis="0 1 0"/>
    <geom type="cylinder" size="0.018 0.036" euler="1.5708 0 0"/>
    <geom type="box" size="0.014 0.024 0.105" pos="0.005 0 0.125"/>
    <geom type="box" size="0.034 0.024 0.012" pos="0.027 0 0.235"/>
    <body name="elbow" pos="0.04975 0 0.25"><joint axis="0 1 0"/>
    <geom type="cylinder" size="0.017 0.032" euler="1.5708 0 0"/>
    <geom type="capsule" size="0.020" fromto="0.02 0 0 0.150 0 0"/>
    <body name="forearm" pos="0.175 0 0"><joint axis="1 0 0"/>
    <geom type="box" size="0.030 0.018 0.018" pos="0.022 0 0"/>
    <geom type="box" size="0.022 0.028 0.016" pos="0.062 0 0"/>
    <body name="wrist" pos="0.075 0 0"><joint axis="0 1 0"/>
    <geom type="cylinder" size="0.014 0.028" euler="1.5708 0 0"/>
    <geom type="box" size="0.024 0.018 0.017" pos="0.024 0 0"/>
    <body name="hand" pos="0.065 0 0"><joint axis="1 0 0"/>
    <geom type="box" size="0.020 0.021 0.016" pos="0.022 0 0"/>
    <geom type="box" size="0.007 0.052 0.011" pos="0.047 0 0"/>
    <site name="fingertip" pos="{0.093575 + FINGER_REACH} 0 0"/>
    <body name="left_finger" pos="0.066 0 0"><joint type="slide" axis="0 1 0"/>
    <geom type="box" size="0.0335 0.011 0.008" pos="0.0175 0.001 0"/></body>
    <body name="right_finger" pos="0.066 0 0"><joint type="slide" axis="0 -1 0"/>
    <geom type="box" size="0.0335 0.011 0.008" pos="0.0175 -0.001 0"/></body>
    </body></body></body></body></body></body></body>
  </worldbody>
  <contact>
    <exclude body1="base" body2="waist"/><exclude body1="base" body2="shoulder"/>
    <exclude body1="elbow" body2="wrist"/><exclude body1="forearm" body2="hand"/>
    <exclude body1="wrist" body2="left_finger"/><exclude body1="wrist" body2="right_finger"/>
    <exclude body1="left_finger" body2="right_finger"/>
  </contact>
</mujoco>
"""


class UnsafePathError(ValueError):
    """No safe way was found; `reason` is TABLE or SELF_COLLISION, the text says which link would be where."""

    def __init__(self, reason: Reason, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Clearance:
    """How much room one pose of the arm leaves."""

    height: float   # m, of the lowest point of any link above the base plane
    link: str       # which link that is
    gap: float      # m between the two links that are closest; negative where they overlap, 5 mm where none are close
    pair: str       # which links these are


class CollisionModel:
    """The arm's shapes. Holds MuJoCo's work space, so use one instance per thread."""

    def __init__(self) -> None:
        self._model = model = mujoco.MjModel.from_xml_string(_SHAPES)
        self._data = mujoco.MjData(model)
        self._bodies = [model.body(i).name for i in model.geom_bodyid]
        self._tip = model.site('fingertip').id
        moving = np.array([name in _ABOVE_TABLE for name in self._bodies])
        self._moving = np.flatnonzero(moving)
        types, sizes = model.geom_type[moving], model.geom_size[moving]
        self._box, self._capsule = types == mujoco.mjtGeom.mjGEOM_BOX, types == mujoco.mjtGeom.mjGEOM_CAPSULE
        self._sizes = np.where(self._box[:, None], sizes, 0.0)
        self._radius, self._half = (np.where(self._box, 0.0, sizes[:, i]) for i in (0, 1))

    def fingertip(self, joint_positions: np.ndarray) -> np.ndarray:
        """Return the (3,) point between the fingertips [m] for (6,) joint positions."""
        self._place(joint_positions, FINGER_OPEN)
        return np.array(self._data.site_xpos[self._tip])

    def look(self, joint_positions: np.ndarray, finger: float = FINGER_OPEN) -> Clearance:
        """Return the Clearance of (6,) joint positions [rad] with each finger `finger` metres from the centre."""
        self._place(joint_positions, finger)
        mujoco.mj_collision(self._model, self._data)
        up = self._data.geom_xmat[self._moving, 6:9]              # (shapes, 3) the vertical in each shape's axes
        along = np.abs(up[:, 2])
        across = np.where(self._capsule, 1.0, np.sqrt(np.maximum(0.0, 1.0 - along ** 2)))
        depth = (np.abs(up) * self._sizes).sum(axis=1) + along * self._half + across * self._radius
        bottom = self._data.geom_xpos[self._moving, 2] - depth
        lowest = int(bottom.argmin())
        gap, pair = _SEEN_FROM, ''
        if self._data.ncon:
            closest = int(self._data.contact.dist.argmin())
            gap = float(self._data.contact.dist[closest])
            pair = ' and '.join(_NAMES[self._bodies[i]] for i in self._data.contact.geom[closest])
        return Clearance(float(bottom[lowest]), _NAMES[self._bodies[self._moving[lowest]]], gap, pair)

    def check_path(self, points: Sequence[np.ndarray], floor: float, finger: float = FINGER_OPEN) -> None:
        """Look along straight joint-space lines through (N, 6) `points` [rad]; `floor` is the table's height [m].

        A link that is below the table or in another link at the start may come out of there, and go no deeper before.

        Raises:
            UnsafePathError: a link would go below the table or into another link; names which.

        """
        out: tuple[float, float] | None = None
        for first, second in pairwise(points):
            samples = max(2, int(np.ceil(np.abs(second - first).max() / _SAMPLE)) + 1)
            for share in np.linspace(0.0, 1.0, samples):
                here = self.look(first + share * (second - first), finger)
                # What each may not fall below: what it was at the start, until it has come out of there.
                out = (here.height, here.gap) if out is None else out
                if here.height < min(floor, out[0]) - TOLERANCE:
                    depth = (floor - here.height) * 1e3
                    raise UnsafePathError(Reason.TABLE, f'the {here.link} would be {depth:.0f} mm below '
                                                        f'the table ({floor:.3f} m, from min_height)')
                if here.gap < min(0.0, out[1]) - TOLERANCE:
                    raise UnsafePathError(Reason.SELF_COLLISION, f'{here.pair} would be {-here.gap * 1e3:.0f} mm into '
                                                                 'each other')
                out = (floor if here.height >= floor else out[0]), (0.0 if here.gap >= 0.0 else out[1])

    def _place(self, joint_positions: np.ndarray, finger: float) -> None:
        self._data.qpos[:6], self._data.qpos[6:] = joint_positions, finger
        mujoco.mj_kinematics(self._model, self._data)
