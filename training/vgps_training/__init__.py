"""Offline training of value functions from robot data: Cal-QL, IQL. No ROS."""
