import pytest

def test_import():
    import vgps_msgs.msg
