"""A WidowX 250 (WX250s) in MuJoCo: tasks, cameras, oracles and a scripted demonstrator. No ROS in here."""

from vgps_bringup.simulation.oracle import TaskState
from vgps_bringup.simulation.tasks import TASKS, Task
from vgps_bringup.simulation.widowx import SimulatedWidowX

__all__ = ['TASKS', 'SimulatedWidowX', 'Task', 'TaskState']
