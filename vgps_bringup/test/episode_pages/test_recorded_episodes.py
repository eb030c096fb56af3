"""Reports of whole and of damaged recordings."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from evaluation_bags import Messages, count_readings, write_bag

from vgps_bringup.episode_pages.latency import added_latency, latency_table, model_milliseconds
from vgps_bringup.episode_pages.overlay import Values, absence
from vgps_bringup.episode_pages.report import comparison_report, episode_report
from vgps_msgs_py.bags.reader import Bag

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def messages():
    return Messages()


@pytest.fixture(scope='module')
def bag_folder(tmp_path_factory, messages):
    return write_bag(tmp_path_factory.mktemp('bags') / 'episode-1', messages=messages)


def test_model_time_counts_the_longer_of_policy_and_encoder(bag_folder):
    step = Bag(bag_folder).episodes[0].steps[0]
    assert model_milliseconds(step) == pytest.approx(max(40, 20) + 2.2)
    assert added_latency(step) == pytest.approx(61 - 42.2)
    rows = {row.name: row for row in latency_table(Bag(bag_folder).episodes[0])}
    assert rows['candidates → decision'].p50 == pytest.approx(8.0)
    assert rows['period of a step'].p50 == pytest.approx(200.0, abs=0.1)


def test_what_camera_and_way_take_until_the_policy_has_the_frame_is_not_counted_as_added(bag_folder):
    step = Bag(bag_folder).episodes[0].steps[0]
    timed = SimpleNamespace(stages=[*step.candidates.stages, 'frame_age'],
                            stage_milliseconds=[*step.candidates.stage_milliseconds, 9.0])
    assert added_latency(replace(step, candidates=timed)) == pytest.approx(61 - 42.2 - 9)


def test_the_report_folder_is_complete_and_self_contained(tmp_path, bag_folder):
    summary = episode_report(bag_folder, tmp_path / 'report', label='steered')
    html = (tmp_path / 'report/index.html').read_text()
    assert 'http://' not in html.replace('http://www.w3.org', '') and 'https://' not in html
    assert '<script' not in html and 'data:video/mp4;base64,' in html and 'frame missing' in html
    assert 'Stand-in: critic_node' in html and summary['stand_ins']
    with av.open(str(tmp_path / 'report/video.mp4')) as video:
        frames = [f.to_ndarray(format='rgb24') for f in video.decode(video=0)]
    assert len(frames) > 48 and frames[0].shape[0] % 2 == 0
    assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).mean() > 5
    assert json.loads((tmp_path / 'report/summary.json').read_text())['outcome'] == 'success'


def test_a_truncated_bag_still_gets_its_report_with_the_reason_on_it(tmp_path, bag_folder):
    folder = shutil.copytree(bag_folder, tmp_path / 'copy')
    file = next(folder.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:-400])  # no index, no end
    episode_report(folder, tmp_path / 'report')
    assert 'Partial recording' in (tmp_path / 'report/index.html').read_text()


def test_the_last_step_of_a_judged_episode_is_not_called_a_gap_in_the_recording(bag_folder):
    episode = Bag(bag_folder).episodes[0]
    shared = Values.of(episode)
    assert shared.last == len(episode.steps) - 1
    assert 'ended before it was decided' in absence(episode.steps[-1], True)
    assert 'no decision recorded' in absence(episode.steps[2], False)
    assert Values.of(replace(episode, outcome='running')).last is None


def test_conditions_are_compared_side_by_side(tmp_path, messages, monkeypatch):
    bags = {'plain policy': write_bag(tmp_path / 'a', messages=messages, steps=4, outcome=2, episode_id='a'),
            'steered': write_bag(tmp_path / 'b', messages=messages, steps=6, episode_id='b')}
    passes = count_readings(monkeypatch)
    text = comparison_report(bags, tmp_path / 'out')
    assert len(passes) == 3 * len(bags), 'the messages of each, and its frames for each of the two videos'
    assert 'plain policy: FAILURE' in text and 'steered: SUCCESS' in text
    html = (tmp_path / 'out/index.html').read_text()
    assert '../a/report/index.html' in html and (tmp_path / 'a/report/index.html').exists()
    with av.open(str(tmp_path / 'out/video.mp4')) as video:
        assert video.streams.video[0].width > video.streams.video[0].height * 0.8
    height, width = cv2.imread(str(tmp_path / 'out/filmstrip.jpg')).shape[:2]
    assert width > 2.8 * height  # both conditions at three moments, each picture half as wide as high
