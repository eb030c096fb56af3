"""Recordings: their storage, the episodes in them, a writer, and the message definitions that explain them. No ROS."""
