"""The simulated WidowX behind the arm's seam: topics joint_states and joint_command, relative to the node.

The frame_id of its joint states names the scene. With another scene the arm stands elsewhere, which is no fault; it is
said in the very message that holds the new positions, so that no order of arrival can mistake one for the other.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vgps_bringup.arm.arms import Reading, reading_from_joint_state
from vgps_bringup.arm.gripper import GripperLoop
from vgps_bringup.arm.kinematics import JOINT_NAMES


class SimulatedArm:
    """Talks to simulation_node through `node`, whose executor also calls `on_reading`."""

    message = ''

    def __init__(self, node: Any, on_reading: Callable[[Reading], None]):
        # ROS stays out of the module's top: the arm package is imported where there is none.
        from sensor_msgs.msg import JointState
        self._node, self._message_type = node, JointState
        self._on_reading = on_reading
        self._scene: str | None = None
        self._fingers = GripperLoop()      # tells fingers on their way from fingers that hold something
        self._reading: Reading | None = None
        self._commanded: np.ndarray | None = None    # (6,) rad, until the fingers were told to hold
        self._openness: float | None = None    # what the fingers were told last
        self._publisher = node.create_publisher(JointState, 'joint_command', 10)
        node.create_subscription(JointState, 'joint_states', self._on_joint_states, 10)

    @property
    def ready(self) -> bool:
        """Always: a simulation needs no initialisation."""
        return True

    def _on_joint_states(self, message: Any) -> None:
        reading = reading_from_joint_state(message.name, message.position, message.effort)
        if reading is not None:
            self._reading = reading
            self._fingers.watch(reading.finger, time.monotonic())
            before, self._scene = self._scene, message.header.frame_id
            self._on_reading(replace(reading, relocated=before is not None and before != self._scene))

    def command(self, joint_positions: np.ndarray, openness: float | None) -> None:
        """Go to (6,) joint positions [rad] and gripper openness (0 closed, 1 open); None leaves the fingers alone."""
        if openness is not None:
            self._commanded = joint_positions
            self._fingers.set_goal(openness, time.monotonic())
        elif self._commanded is not None:    # fingers that may still be on their way
            self._commanded = joint_positions
        present = 1.0 if self._reading is None else self._reading.openness
        self._publish(joint_positions, openness if openness is not None else
                      present if self._openness is None else self._openness)

    def _publish(self, joint_positions: np.ndarray, openness: float) -> None:
        self._openness = openness
        message = self._message_type(name=[*JOINT_NAMES, 'gripper'], position=[*map(float, joint_positions), openness])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def hold(self) -> None:
        """Let fingers on their way stay where they are; the simulated servo does not tire of holding an object."""
        if self._commanded is None or self._reading is None or not np.isfinite(self._reading.finger):
            return
        if self._fingers.moving(time.monotonic()):
            self._publish(self._commanded, self._reading.openness)
        self._commanded = None

    def tick(self, now: float) -> None:
        """Nothing recurs."""

    def recover(self) -> None:
        """Nothing can break."""

    def close(self) -> None:
        """Nothing is held."""
