"""The commands that run this package's nodes: ready for Ctrl-C before anything heavy is imported."""

from vgps_msgs_py import start

policy_node = start.node('vgps_policy_bridge.policy_node')
