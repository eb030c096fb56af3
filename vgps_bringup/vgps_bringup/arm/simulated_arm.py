"""The simulated WidowX behind the arm's seam: topics joint_states and joint_command, relative to the node.

The frame_id of its joint states names the scene. With another scene the arm stands elsewhere, which is no fault; it is
said in the very message that holds the new positions, so that no order of arrival can mistake one for the other.
"""

from dataclasses import replace

from vgps_bringup.arm.arms import reading_from_joint_state
from vgps_bringup.arm.kinematics import JOINT_NAMES


class SimulatedArm:
    """Talks to simulation_node through `node`, whose executor also calls `on_reading`."""

    message = ''

    def __init__(self, node, on_reading):
        # ROS stays out of the module's top: the arm package is imported where there is none.
        from sensor_msgs.msg import JointState
        self._node, self._message_type = node, JointState
        self._on_reading, self._scene = on_reading, None
        self._publisher = node.create_publisher(JointState, 'joint_command', 10)
        node.create_subscription(JointState, 'joint_states', self._on_joint_states, 10)

    @property
    def ready(self):
        """Always: a simulation needs no initialisation."""
        return True

    def _on_joint_states(self, message):
        reading = reading_from_joint_state(message.name, message.position, message.effort)
        if reading is not None:
            before, self._scene = self._scene, message.header.frame_id
            self._on_reading(replace(reading, relocated=before is not None and before != self._scene))

    def command(self, joint_positions, openness):
        """Go to (6,) joint positions [rad] and gripper openness (0 closed, 1 open)."""
        message = self._message_type(name=[*JOINT_NAMES, 'gripper'], position=[*map(float, joint_positions), openness])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def tick(self, now):
        """Nothing recurs."""

    def recover(self):
        """Nothing can break."""

    def close(self):
        """Nothing is held."""
