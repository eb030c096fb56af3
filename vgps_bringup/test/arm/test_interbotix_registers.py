"""InterbotixArm with Interbotix's object replaced by one that keeps registers and notes what it is told."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from vgps_bringup.arm.arms import Reading
from vgps_bringup.arm.gripper import GripperConfig
from vgps_bringup.arm.interbotix_arm import BUS_WATCHDOG, SERVOS, InterbotixArm
from vgps_bringup.arm.kinematics import JOINT_LOWER, JOINT_NAMES, JOINT_UPPER

POSE = np.zeros(6)


class Core:
    """Seven servos."""

    def __init__(self):
        self.registers = {'Hardware_Error_Status': [0] * 7, 'Present_Temperature': [30] * 7, 'Bus_Watchdog': [0] * 7}
        self.pwm, self.written, self.read = [], [], []

    def robot_get_robot_info(self, _kind, name):
        return SimpleNamespace(joint_names=list(JOINT_NAMES), joint_lower_limits=list(JOINT_LOWER),
                               joint_upper_limits=list(JOINT_UPPER), mode='position' if name == 'arm' else 'pwm',
                               profile_type='time')

    def robot_set_operating_modes(self, *arguments):
        self.written.append(('modes', arguments[1]))

    def robot_set_motor_registers(self, _kind, group, register, value):
        self.written.append((register, value))
        held = self.registers.setdefault(register, [0] * (7 if group == 'all' else 6))
        tripped = register == 'Bus_Watchdog' and held[0] in (-1, 255)
        if not tripped or value == 0:
            held[:] = [value] * len(held)

    def robot_get_motor_registers(self, _kind, _group, register):
        self.read.append((time.monotonic(), register))
        return self.registers.get(register, [])

    def robot_reboot_motors(self, *_arguments, **_names):
        self.written.append(('reboot', ''))

    def robot_write_commands(self, _group, _positions):
        pass

    def robot_write_joint_command(self, _name, pwm):
        self.pwm.append(pwm)


@pytest.fixture
def arm(monkeypatch):
    """An arm whose thread has been kept from starting: what it would do is called here."""
    monkeypatch.setattr(threading.Thread, 'start', lambda self: None)
    monkeypatch.setattr(threading.Thread, 'join', lambda self, timeout=None: None)
    pytest.importorskip('sensor_msgs.msg')
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(info=lambda text: None, error=lambda text: None),
                           create_subscription=lambda *arguments: None)
    health = []
    arm = InterbotixArm(node, 'wx250s', GripperConfig(), lambda reading: None, health.append)
    arm.health = health
    arm._robot = SimpleNamespace(core=Core(), arm=SimpleNamespace(capture_joint_positions=lambda: None))
    return arm


def measure(arm, finger):
    arm._on_joint_states(SimpleNamespace(name=[*JOINT_NAMES, 'left_finger'], position=[*POSE, finger], effort=[]))


def test_the_bus_watchdog_is_written_to_every_servo_after_the_modes_and_read_back(arm):
    arm._prepare(set_modes=True)
    core = arm._robot.core
    assert arm.ready
    assert core.registers['Bus_Watchdog'] == [BUS_WATCHDOG] * len(SERVOS)
    names = [name for name, _ in core.written]
    assert names.index('Bus_Watchdog') > max(i for i, name in enumerate(names) if name == 'modes')


@pytest.mark.parametrize(('held', 'words'), [([], 'no register Bus_Watchdog'), (['stuck'], 'reads')])
def test_a_bus_watchdog_that_cannot_be_read_back_is_refused_by_name(arm, held, words):
    core = arm._robot.core
    core.robot_get_motor_registers = lambda *arguments: [0] * 7 if held else []
    with pytest.raises(RuntimeError, match=words):
        arm._prepare()
    assert not arm.ready


@pytest.mark.parametrize('tripped', [-1, 255])
def test_a_tripped_bus_watchdog_is_named_and_cleared_by_the_operators_reset_alone(arm, tripped):
    arm._prepare()
    arm._robot.core.registers['Bus_Watchdog'] = [BUS_WATCHDOG] * 6 + [tripped]
    with pytest.raises(RuntimeError, match='Bus_Watchdog reads.*~/reset'):
        for turn in range(6):
            arm._poll(turn)
    arm.ready = False
    with pytest.raises(RuntimeError, match='~/reset'):
        arm._prepare()
    assert not arm.ready
    arm._reboot()
    assert arm.ready
    assert arm._robot.core.registers['Bus_Watchdog'] == [BUS_WATCHDOG] * 7


def test_a_driver_without_the_register_can_be_accepted_on_purpose(arm):
    del arm._robot.core.registers['Bus_Watchdog']
    arm._bus_watchdog = False
    arm._prepare()
    assert arm.ready
    assert 'Bus_Watchdog' not in [name for name, _ in arm._robot.core.written]


def test_the_fingers_push_no_more_when_stale_when_not_ready_and_on_a_hold(arm):
    arm._prepare()
    measure(arm, 0.035)
    arm.command(POSE, 0.0)
    now = time.monotonic()
    arm.tick(now)
    assert arm._robot.core.pwm[-1] == -350.0
    arm.hold()
    arm.tick(now)
    assert abs(arm._robot.core.pwm[-1]) < 1.0, 'on their way: they stay where they are'
    arm.command(POSE, 0.0)
    arm.tick(now)
    assert arm._robot.core.pwm[-1] == -350.0
    arm.tick(now + 1.0)
    assert arm._robot.core.pwm[-1] == 0.0, 'joint states a second old'
    measure(arm, 0.035)
    arm.tick(time.monotonic())
    assert arm._robot.core.pwm[-1] == -350.0
    arm.ready = False
    arm.tick(time.monotonic())
    assert arm._robot.core.pwm[-1] == 0.0


def test_servo_errors_and_temperatures_are_read_in_turn(arm):
    arm._prepare()
    arm._robot.core.registers['Hardware_Error_Status'] = [0] * 6 + [32]
    for turn in range(6):
        arm._poll(turn)
    read = [register for _, register in arm._robot.core.read]
    assert read.count('Hardware_Error_Status') == 3
    assert 'Present_Temperature' in read
    assert arm.health[-1].errors[-1] == 32


@pytest.mark.slow
def test_servos_are_asked_while_commands_come_without_a_pause(arm, monkeypatch):
    rclpy = pytest.importorskip('rclpy')
    arm._prepare()
    polled = []
    monkeypatch.setattr(arm, '_connect', lambda: SimpleNamespace(destroy_node=lambda: None))
    monkeypatch.setattr(arm, '_poll', polled.append)

    def spin_once(_node, timeout_sec):
        arm._commanded = time.monotonic()       # as on the way to a pose, 50 times a second
        time.sleep(0.005)
        if len(polled) >= 3:
            arm._closing.set()
    monkeypatch.setattr(rclpy, 'spin_once', spin_once)
    arm._run()
    assert polled == [0, 1, 2]


def test_a_reading_without_a_number_for_the_finger_is_a_named_fault():
    from arm_world import World

    from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason
    world = World()
    world.frames = False
    for _ in range(20):
        world.controller.on_reading(Reading(world.arm.positions, np.zeros(6), float('nan')), world.now)
        world.run(0.02)
    assert world.shown == (State.HOLDING, Reason.BAD_FINGER)
    assert world.arm.holds
    world.frames = True
    world.run(1.0)
    assert world.controller.state is State.READY
    assert world.controller.steps.gripper == 1.0


def test_efforts_that_were_there_and_are_gone_hold_the_arm_by_name():
    from arm_world import World

    from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason
    world = World()
    world.efforts = None
    world.run(0.5)
    assert world.shown == (State.HOLDING, Reason.NO_EFFORT)
    world.efforts = np.zeros(6)
    world.run(1.0)
    assert world.controller.state is State.READY


def test_an_arm_that_must_feel_what_is_in_the_way_does_not_move_without_efforts():
    from arm_world import World

    from vgps_bringup.arm.watchdog import WatchdogConfig
    from vgps_msgs_py.vocabulary import ArmState as State, ControllerReason as Reason
    world = World(watchdog_config=WatchdogConfig(require_efforts=True))
    world.efforts = None
    world.run(0.5)
    assert world.shown == (State.HOLDING, Reason.NO_EFFORT)
    world.send(0.01)
    assert world.arm.commands == []
