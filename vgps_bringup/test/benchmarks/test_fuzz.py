"""What the fuzzer counts as a finding, and a short round of it against the shipped nodes."""

import os

import numpy as np
import pytest

pytest.importorskip('rclpy')
from sensor_msgs.msg import JointState

from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.kinematics import JOINT_UPPER
from vgps_bringup.benchmarks import fuzz, hostile
from vgps_bringup.benchmarks.fuzz_findings import Findings, table
from vgps_msgs.msg import ControllerState

NEUTRAL = np.array(ControllerConfig().neutral_joints)


@pytest.fixture
def watcher():
    """A fuzzer that watches and has started nothing."""
    watcher = fuzz.Fuzzer.__new__(fuzz.Fuzzer)
    watcher.name, watcher.found, watcher.last, watcher.watching = 'arm', Findings(recovered=0.0), None, False
    watcher.watching_since = 0.0
    watcher.on_joint_command(JointState(position=[*NEUTRAL.tolist(), 1.0]))
    assert watcher.found.clean
    return watcher


@pytest.mark.parametrize('positions', [
    [*NEUTRAL[:5].tolist(), float('nan'), 1.0], [*(JOINT_UPPER + 0.01).tolist(), 1.0], [*NEUTRAL.tolist(), 1.5],
    [*(NEUTRAL + [0.61, 0, 0, 0, 0, 0]).tolist(), 1.0], NEUTRAL[:5].tolist(), []])
def test_a_joint_command_outside_limits_or_above_the_step_is_a_finding(watcher, positions):
    watcher.on_joint_command(JointState(position=positions))
    assert watcher.found.outside == 1 and not watcher.found.clean


def test_a_motion_is_a_finding_only_where_nobody_called_for_one(watcher):
    watcher.on_joint_command(JointState(position=[*(NEUTRAL + 0.05).tolist(), 1.0]))
    assert watcher.found.clean
    watcher.watching = True
    watcher.on_joint_command(JointState(position=[*NEUTRAL.tolist(), 1.0]))
    assert watcher.found.uncalled == 1 and not watcher.found.clean


def test_a_state_that_was_thrown_is_not_taken_for_the_controllers_own(watcher):
    watcher.state = None
    watcher.on_state(ControllerState(accepted=2**30))    # as bytes that happen to be a message
    assert watcher.state is None and watcher.found.taken == 0
    own = ControllerState(accepted=3)
    own.header.frame_id = ControllerConfig().base_frame
    watcher.on_state(own)
    assert watcher.state is own


def test_what_never_works_again_and_who_died_is_in_the_table():
    text = table({('arm', 'idle'): Findings(thrown=7, deaths=['widowx_node (-11)'] * 2)})
    assert '2 × widowx_node (-11)' in text and 'NEVER' in text


def test_hostile_messages_can_be_made_of_every_type_and_some_bytes_are_none():
    rng = np.random.default_rng(0)
    for kind, _, _ in hostile.TOPICS:
        made = [hostile.message(kind, rng) for _ in range(30)]
        assert len({str(message) for message in made}) > 20
        assert {type(hostile.garbage(kind, rng)) for _ in range(30)} == {bytes}


@pytest.mark.ros
@pytest.mark.long
@pytest.mark.skipif(not os.environ.get('AMENT_PREFIX_PATH'), reason='the workspace is not sourced')
def test_two_thousand_hostile_messages_move_nothing_end_nothing_and_leave_an_arm_that_works():
    found = fuzz.fuzz(2000, seed=1, systems=('arm',))
    assert set(found) == {('arm', phase) for phase in fuzz.PHASES}
    assert all(f.clean for f in found.values()), table(found)
    assert found['arm', 'homing'].commands > 10    # the arm was alive all the while
