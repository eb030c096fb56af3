"""Recording, reading, re-judging and trials. No module here imports ROS; ``recorder_node`` is the thin node."""
