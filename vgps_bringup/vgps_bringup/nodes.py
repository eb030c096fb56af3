"""The commands that run this package's nodes: ready for Ctrl-C before anything heavy is imported."""

from vgps_msgs_py import start

widowx_node = start.node('vgps_bringup.arm.widowx_node')
heartbeat_node = start.node('vgps_bringup.arm.heartbeat_node')
decision_image_node = start.node('vgps_bringup.episode_pages.decision_image_node')
simulation_node = start.node('vgps_bringup.simulation.simulation_node')
recorder_node = start.node('vgps_bringup.recording.recorder_node')
replay_node = start.node('vgps_bringup.recording.replay_node')
