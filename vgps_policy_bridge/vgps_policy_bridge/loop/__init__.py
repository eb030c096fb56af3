"""The loop of an episode: one step after the other, goals, limits, reasons. Nothing here imports ROS."""
