import os

import pytest

# Before rclpy is imported anywhere: tests of two packages may run at the same time.
os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 200))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_LOCALHOST_ONLY'] = '1'
os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'  # as strict as Humble, which checks the type of every number
os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.fixture
def system(monkeypatch):
    """Return policy_node among its peers (node_system.System)."""
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from node_system import System
    system = System(monkeypatch)
    yield system
    system.close()
