"""A recorded episode opens in Rerun; the shipped Foxglove layout finds what a recorded bag holds."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from evaluation_bags import Messages, episode_messages

from vgps_bringup.commands import report
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.writer import BagWriter

LAYOUT = Path(__file__).parents[2] / 'config' / 'foxglove_layout.json'


@pytest.fixture(scope='module')
def bag_folder(tmp_path_factory):
    messages, folder = Messages(), tmp_path_factory.mktemp('bags') / 'one'
    writer = BagWriter(folder, messages.types)
    for where, message, received in episode_messages(messages):
        if where.type.endswith('/ControllerState'):
            message.joint_positions = message.joint_command = np.array([0.0, -0.6, 0.8, 0.0, 1.0, 0.1])
        writer.write(where, messages.serialize(message), received)
    writer.close()
    return folder


def test_the_rerun_file_holds_images_arm_candidates_values_and_reasons(bag_folder, monkeypatch, capsys):
    pytest.importorskip('rerun', reason='rerun-sdk is not installed')
    chunks = pytest.importorskip('rerun.chunk', reason='this rerun-sdk cannot read its files back')
    monkeypatch.setattr(sys, 'argv', ['vgps-report', str(bag_folder), '--rerun'])
    report.main()
    said = capsys.readouterr().out
    assert '8 steps with candidates' in said and 'rerun ' in said and not (bag_folder / 'report/index.html').exists()
    rows = Counter()
    for chunk in chunks.RrdReader(bag_folder / 'report/episode.rrd').stream():
        rows[chunk.entity_path] += chunk.num_rows
    assert rows['/camera'] == 48 and rows['/arm/candidates'] == rows['/arm/chosen'] == 8
    assert 8 <= rows['/arm/links'] <= 16 and rows['/reasons'] == 8  # states after the outcome belong to no episode
    assert rows['/values/best'] == 8 and rows['/values/never'] >= 8  # a static row of its colour, and one a step


def test_without_the_library_one_sentence_says_what_to_install(bag_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    monkeypatch.setattr(sys, 'argv', ['vgps-report', str(bag_folder), '--rerun', '--output', str(tmp_path / 'new')])
    with pytest.raises(SystemExit, match='pip install rerun-sdk'):
        report.main()


def test_the_foxglove_layout_finds_its_topics_and_fields_in_a_recorded_bag(bag_folder):
    bag = Bag(bag_folder)
    by_topic = {topic: message for found in bag.messages.values() for _, message, topic in found}
    paths = re.findall(r'"(/vgps/\w+)((?:\.\w+)+)', LAYOUT.read_text())  # fields; services and live pictures have none
    assert {topic for topic, _ in paths} >= {'/vgps/decision', '/vgps/controller_state'}
    for topic, fields in paths:
        message = by_topic[topic]
        for field in filter(None, fields.split('.')):
            message = getattr(message, field)
    assert json.loads(LAYOUT.read_text())['layout']
