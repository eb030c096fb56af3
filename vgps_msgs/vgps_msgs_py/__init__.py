"""Conversions between vgps_msgs / sensor_msgs and numpy arrays, and what every node does the same way."""
