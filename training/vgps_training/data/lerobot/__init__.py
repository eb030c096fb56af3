"""LeRobot data sets, v2.0, v2.1 and v3.0, without the lerobot package."""
from vgps_training.data.lerobot.reader import is_lerobot, read

__all__ = ['is_lerobot', 'read']
