"""vgps-doctor names each fault that is put in, and says what to do about it."""

import datetime
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_bringup.commands import doctor
from vgps_bringup.system.doctor import workstation
from vgps_bringup.system.doctor.findings import FAULT, OK, WARNING, Finding, summary, table, to_json
from vgps_bringup.system.doctor.running import Camera, Joints, Observed, judge

NAMES = (*JOINT_NAMES, 'gripper', 'left_finger', 'right_finger')
REST = (-0.13, -0.76, 0.44, -0.02, 1.76, -0.16, 0.0, 0.03, -0.03)


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)


def healthy(**changes):
    arrivals = [0.1 * i for i in range(50)]
    seen = Observed('/vgps', 5.0, nodes=['policy_node', 'critic_node', 'widowx_node'],
                    publishers={'command': ['critic_node']}, camera_topic='/vgps/image_raw',
                    camera=Camera(stamps=[1e9 + a for a in arrivals], ages=[0.02] * 50, arrivals=arrivals,
                                  encoding='rgb8', size=(64, 48), first=picture(0), last=picture(1)),
                    joints=Joints([0.01 * i for i in range(500)], NAMES, REST, 9, 1))
    for path, value in changes.items():
        target, _, name = path.rpartition('__')
        setattr(getattr(seen, target) if target else seen, name, value)
    return seen


def complaints(seen):
    return [f for f in judge(seen) if f.status in (FAULT, WARNING)]


def test_a_healthy_system_has_no_complaints():
    assert complaints(healthy()) == []
    assert any('inside its limits' in f.found for f in judge(healthy()))


FAULTS = [
    ({'nodes': ['policy_node', 'widowx_node']}, FAULT, 'critic_node not in /vgps'),
    ({'nodes': ['policy_node', 'critic_node', 'widowx_node', 'widowx_node']}, FAULT, 'widowx_node runs twice'),
    ({'publishers': {'command': ['critic_node', 'joystick']}}, FAULT, '2 publishers: critic_node, joystick'),
    ({'camera__arrivals': []}, FAULT, 'nobody publishes it, raw or compressed'),
    ({'camera__arrivals': [], 'camera_offers': ['/vgps/image_raw/compressed']}, FAULT,
     'nobody publishes it, but /vgps/image_raw/compressed is there'),
    ({'camera__arrivals': [], 'camera_offers': ['/vgps/image_raw']}, FAULT, 'although it is published'),
    ({'camera__arrivals': [0.5 * i for i in range(10)]}, FAULT, '2.0 Hz'),
    ({'camera__error': "image encoding 'yuv422' is not one of rgb8"}, FAULT, 'yuv422'),
    ({'camera__ages': [3.0] * 50}, FAULT, '3.00 s old'),
    ({'camera__ages': [-7.5] * 50}, FAULT, '7.50 s in the future'),
    ({'camera__stamps': [0.0] * 50}, FAULT, 'zero'),
    ({'camera__stamps': [1e9] * 50}, FAULT, 'the same on every frame'),
    ({'camera__arrivals': [0.05 * i + (i > 20) * 0.82 for i in range(50)]}, WARNING, 'a gap of 0.9 s'),
    ({'joints__efforts': 0}, WARNING, '0 for 9 joints'),
    ({'joints__positions': REST[:5]}, FAULT, '9 names, of which 9 differ, and 5 positions'),
    ({'joints__names': (*NAMES[:-1], 'waist')}, FAULT, 'of which 8 differ'),
    ({'unreadable': Counter({'RMWError: cannot deserialize': 3})}, WARNING, '3 could not be read'),
    ({'camera__last': np.full((48, 64, 3), 3, np.uint8)}, FAULT, 'one colour'),
    ({'camera__last': np.repeat(picture()[..., :1], 3, axis=2)}, WARNING, 'grey'),
    ({'camera__last': picture(0)}, WARNING, 'identical to the bit'),
    ({'joints__arrivals': []}, FAULT, 'none in 5 s'),
    ({'joints__arrivals': [0.2 * i for i in range(25)]}, FAULT, '5 Hz'),
    ({'joints__names': NAMES[:3] + NAMES[4:], 'joints__positions': REST[:3] + REST[4:]}, FAULT, 'forearm_roll missing'),
    ({'joints__positions': (-np.pi,) * 9}, FAULT, 'the bus could not be read'),
    ({'joints__positions': (0.0, -1.93, 1.62, 0, 0.8, 0, 0, 0.02, -0.02)}, WARNING, 'shoulder by 0.045 rad, elbow by'),
    ({'min_height': 0.3}, WARNING, 'below min_height 30.0 cm'),
    ({'joints__publishers': 2}, FAULT, '2 publishers on one topic'),
    ({'diagnostics': {'critic_node: critic': (2, 'ACTION_SPACE_MISMATCH')}}, FAULT, 'ACTION_SPACE_MISMATCH'),
]


@pytest.mark.parametrize('changes, status, words', FAULTS, ids=[words for _, _, words in FAULTS])
def test_each_fault_of_a_system_is_found_and_nothing_else(changes, status, words):
    found = complaints(healthy(**changes))
    assert [f.status for f in found] == [status] and words in found[0].found
    assert found[0].remedy


def test_ros_distributions_end():
    day = datetime.date(2026, 11, 25)
    assert workstation.ros('jazzy', day).status == OK
    assert 'until 2026-12-31 only' in workstation.ros('kilted', day).found
    assert 'maintenance ended' in workstation.ros('humble', datetime.date(2027, 6, 1)).found
    assert workstation.ros('foxy', day).status == WARNING and workstation.ros('', day).status == FAULT


@pytest.mark.parametrize('environment, distribution, status', [
    ({}, 'jazzy', WARNING), ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, 'jazzy', OK),
    ({'ROS_LOCALHOST_ONLY': '1'}, 'humble', OK), ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, 'humble', WARNING),
    ({'ROS_SECURITY_ENABLE': 'true'}, 'jazzy', OK), ({'ROS_LOCALHOST_ONLY': '1'}, 'jazzy', OK),
    ({'ROS_LOCALHOST_ONLY': '1', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}, 'jazzy', WARNING),
    ({'ROS_LOCALHOST_ONLY': '1', 'ROS_STATIC_PEERS': '10.0.0.7'}, 'jazzy', WARNING),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'local'}, 'jazzy', WARNING), ({'ROS_DOMAIN_ID': '233'}, 'jazzy', FAULT),
    ({'ROS_DOMAIN_ID': '-1'}, 'humble', FAULT), ({'ROS_DOMAIN_ID': 'robot'}, 'jazzy', FAULT)])
def test_who_can_command_the_arm_is_said(environment, distribution, status):
    found = workstation.discovery(environment, distribution)
    assert found.status == status and bool(found.remedy) is (status != OK)


def test_a_middleware_that_is_not_installed_is_named(tmp_path):
    index = tmp_path / 'share/ament_index/resource_index/rmw_typesupport'
    index.mkdir(parents=True)
    assert workstation.middleware({'AMENT_PREFIX_PATH': str(tmp_path)}).status == FAULT
    (index / 'rmw_fastrtps_cpp').touch()
    chosen = {'AMENT_PREFIX_PATH': str(tmp_path), 'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}
    found = workstation.middleware(chosen)
    assert (found.status, 'installed are rmw_fastrtps_cpp' in found.found) == (FAULT, True)
    assert 'rmw-cyclonedds' in found.remedy
    (index / 'rmw_cyclonedds_cpp').touch()
    assert workstation.middleware(chosen).status == OK


@pytest.mark.parametrize('stream, preferred, status', [
    ('utf-8', 'UTF-8', OK), ('utf8', 'ISO-8859-1', WARNING), ('ascii', 'UTF-8', WARNING), ('', 'UTF-8', WARNING)])
def test_a_shell_that_lacks_letters_is_named(stream, preferred, status):
    assert workstation.text_encoding(stream, preferred).status == status


@pytest.mark.parametrize('code, words', [
    ("raise ImportError('the _rclpy_pybind11 C extension is not there')", 'another Python'),
    ("print('domainId is over 232'); raise SystemExit(1)", 'ROS_DOMAIN_ID='),
    ("import os, sys; print('Expected RMW implementation', file=sys.stderr); os._exit(102)", 'RMW_IMPLEMENTATION'),
    ('import os; os.abort()', 'make setup')])
def test_a_ros_that_does_not_start_is_a_fault_with_a_remedy_and_ends_nobody(code, words):
    found = workstation.ros_starts(code)
    assert found.status == FAULT and words in found.remedy


def test_numpy_and_torch_that_do_not_fit_each_other_are_named(monkeypatch):
    assert workstation.arrays().status == OK
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert workstation.arrays().status == FAULT


def test_whatever_ends_the_look_at_the_running_system_what_was_found_before_is_said(monkeypatch):
    fine, broken = Finding('ROS starts', OK, ''), Finding('ROS starts', FAULT, 'none', 'make setup')
    monkeypatch.setattr(doctor, '_running', lambda options: 1 / 0)
    for first, words in ((fine, 'ZeroDivisionError'), (broken, 'nothing was observed')):
        monkeypatch.setattr(doctor.workstation, 'examine', lambda *_, first=first: [first])
        found = doctor.examine(doctor.Doctor(running=True))
        assert found[0] == first and words in found[1].found
        assert json.loads(to_json(found))['findings'][1]['subject'] == 'running system'


def test_nodes_that_start_with_another_python_are_found(tmp_path):
    script = tmp_path / 'lib' / 'vgps_critic' / 'critic_node'
    script.parent.mkdir(parents=True)
    script.write_text('#!/usr/bin/python3\n')
    found = workstation.interpreter(str(tmp_path), here='/home/lab/v-gps/.venv')
    assert found.status == FAULT and '/usr/bin/python3' in found.found
    for blank in ('', ' '):
        name = f'/home/lab/v{blank}gps/.venv/bin/python3'
        script.write_text(f'#!/bin/sh\n\'\'\'exec\' "{name}" "$0" "$@"\n\' \'\'\'\n' if blank else f'#!{name}\n')
        assert workstation.interpreter(str(tmp_path), here=f'/home/lab/v{blank}gps/.venv').status == OK
        assert 'which is not there' in workstation.interpreter(str(tmp_path), here='/home/new/.venv').found
    assert workstation.interpreter('', here='/x').status == FAULT


def test_dependencies_out_of_bounds_and_missing_are_named(monkeypatch):
    monkeypatch.setattr(workstation.importlib.metadata, 'requires',
                        lambda name: ['numpy>=99', 'surely-not-there', "octo; extra == 'octo'"])
    found = workstation.dependencies(['anything']).found
    assert 'needed >=99' in found and 'surely-not-there is missing' in found and 'octo' not in found


def test_machine_faults(tmp_path):
    assert workstation.disk(tmp_path, free=1e8).status == FAULT
    assert workstation.disk(tmp_path / 'not' / 'yet', free=1e12).status == OK
    slow = iter([0.0, 1000.0])
    assert workstation.write_speed(tmp_path, 1 << 20, lambda: next(slow)).status == FAULT
    assert workstation.load(20.0, 2).status == WARNING and workstation.load(0.5, 2).status == OK
    assert workstation.graphics_card(cuda=False, driver=True).status == WARNING
    assert workstation.graphics_card(cuda=False, driver=False).status == OK
    assert workstation.clock_synchronised('no').status == WARNING
    assert workstation.python((3, 9, 1)).status == FAULT and workstation.python((3, 14, 0)).status == OK
    assert workstation.shared_memory({}, tmp_path).status == WARNING
    assert [f.status for f in workstation.interbotix(tmp_path / 'ttyDXL', module=False)] == [FAULT, FAULT]
    (tmp_path / 'share' / 'rqt_gui').mkdir(parents=True)
    assert 'rqt_image_view' in workstation.rqt(str(tmp_path)).found


@pytest.mark.slow
def test_models_that_are_not_there_are_faults():
    assert workstation.critic('/no/such/folder').status == FAULT
    assert workstation.policy_server('ws://127.0.0.1:1').status == FAULT


def test_shipped_critic_and_recordings_are_right_here(tmp_path):
    assert workstation.critic('default').status == OK
    assert workstation.bag_writer(tmp_path).status == OK, workstation.bag_writer(tmp_path)


def test_a_check_that_breaks_is_a_line_of_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(workstation, 'load', lambda: 1 / 0)
    found = list(workstation.examine(tmp_path, '', '', False, True))
    assert any('ZeroDivisionError' in f.found for f in found) and len(found) > 8


def test_table_says_the_status_in_words_and_json_is_for_support():
    findings = [Finding('camera', FAULT, 'no frame', 'plug it in'), Finding('clock', OK, 'synchronised')]
    text = table(findings, colour=False)
    assert 'FAULT' in text and '-> plug it in' in text and '\033' not in text
    assert '1 FAULT' in summary(findings) and 'Fix' in summary(findings)
    assert json.loads(to_json(findings))['findings'][0]['remedy'] == 'plug it in'
    assert not Path('report.json').exists()
