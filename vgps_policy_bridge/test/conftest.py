import pytest


@pytest.fixture
def system(monkeypatch):
    """Return policy_node among its peers (node_system.System)."""
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from node_system import System
    system = System(monkeypatch)
    yield system
    system.close()
