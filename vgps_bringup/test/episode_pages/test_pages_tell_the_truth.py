"""Refused commands, values that cannot be, durations and origins: what stands in several places is the same."""

import json
import math
import re

import numpy as np
import pytest
from evaluation_bags import FRAME, LASTS, START, Messages, episode_messages

from vgps_bringup.episode_pages.facts import VALUE_BAND, describe
from vgps_bringup.episode_pages.latency import latency_table
from vgps_bringup.episode_pages.overlay import WARN, Values, draw_panel
from vgps_bringup.episode_pages.report import episode_report
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.writer import BagWriter
from vgps_msgs_py.vocabulary import ArmState, ControllerReason

pytestmark = pytest.mark.slow

REFUSED = (2, 3, 4, 7)  # steps whose image was stale


@pytest.fixture(scope='module')
def messages():
    return Messages()


def write(folder, messages, change=lambda message: message, late=0, **options):
    """Write an episode, its outcome ``late`` [ns]; ``change`` returns each message, another, or None for none."""
    writer = BagWriter(folder, messages.types)
    for where, message, received in episode_messages(messages, **options):
        if (message := change(message)) is not None:
            over = message.__msgtype__.endswith('Episode') and message.outcome
            writer.write(where, messages.serialize(message), received + (late if over else 0))
    writer.close()
    return folder


def stale(message):
    """An old controller: refuses some steps and repeats the latency of the step before."""
    if message.__msgtype__.endswith('ControllerState') and message.step in REFUSED:
        message.reason, message.state = ControllerReason.STALE_IMAGE, ArmState.READY
    return message


@pytest.fixture(scope='module')
def refused(tmp_path_factory, messages):
    folder = write(tmp_path_factory.mktemp('bags') / 'episode', messages, stale)
    return folder, episode_report(folder)


def test_page_json_and_terminal_agree_on_refusals_by_reason(refused):
    folder, summary = refused
    sentence = '4 of 8 commands refused: STALE_IMAGE'
    written = json.loads((folder / 'report/summary.json').read_text())
    html = (folder / 'report/index.html').read_text()
    assert written['refused'] == summary['refused'] == {'STALE_IMAGE': 4} and sentence in written['remarks']
    assert sentence in html and sentence in describe('episode', summary)


def test_refused_steps_have_no_latency_and_the_page_says_how_many(refused):
    folder, summary = refused
    episode, = Bag(folder).episodes
    rows = {row.name: row for row in latency_table(episode)}
    assert summary['image_to_command_ms']['n'] == rows['image stamp → joint command'].count == 4
    assert rows['added by ROS: the difference'].count == 4
    html = (folder / 'report/index.html').read_text()
    assert '4 of 8 images led to no joint command and have no latency.' in html


def test_commands_the_controller_never_took_are_found_by_its_count_of_refusals(tmp_path, messages):
    def untimely(message):  # the states keep the number of the step before
        if message.__msgtype__.endswith('ControllerState'):
            message.refused = int(message.step >= 3)
            if message.step == 3:
                message.step, message.state, message.reason = 2, ArmState.READY, ControllerReason.OUT_OF_ORDER
        return message

    summary = episode_report(write(tmp_path / 'bag', messages, untimely))
    assert summary['refused'] == {'OUT_OF_ORDER': 1}


def test_several_reasons_are_counted_each(tmp_path, messages):
    def held(message):
        message = stale(message)
        if message.__msgtype__.endswith('ControllerState') and message.step == 5:
            message.reason, message.state = ControllerReason.JOINT_STEP, ArmState.READY
        return message

    summary = episode_report(write(tmp_path / 'bag', messages, held))
    assert summary['remarks'][0] == '5 of 8 commands refused: 4 STALE_IMAGE, 1 JOINT_STEP'


def test_values_that_no_return_can_have_are_counted(tmp_path, messages):
    low, high = VALUE_BAND
    assert low == pytest.approx(-50) and high == 0

    def beyond(message):
        if message.__msgtype__.endswith('SteeringDecision') and message.step in (1, 6) and len(message.q_values):
            message.q_values[:] = 9.75 if message.step == 1 else -63.0
        return message

    summary = episode_report(write(tmp_path / 'bag', messages, beyond))
    assert (summary['steps_outside_value_band'], summary['judged_steps']) == (2, 7)
    assert '2 of 7 scored steps hold values outside −50 … 0' in (tmp_path / 'bag/report/index.html').read_text()
    episode = Bag(tmp_path / 'bag').episodes[0]

    def warned(number):  # the decision image says so too
        panel = draw_panel(Values.of(episode), episode.steps[number], number)
        return bool((np.abs(panel.astype(int) - WARN).sum(axis=2) < 30).any())

    assert [warned(number) for number in (1, 2, 6)] == [True, False, True]


def test_values_within_the_band_need_no_remark(tmp_path, messages):
    assert episode_report(write(tmp_path / 'bag', messages))['remarks'] == []


def test_the_duration_is_that_between_the_announcements_whenever_they_were_recorded(tmp_path, messages):
    seconds = ((8 * 6 - 1) * FRAME + LASTS) * 1e-9

    def corrected(folder):
        writer = BagWriter(folder, messages.types)
        for where, message, received in episode_messages(messages):
            late = 700_000_000 if message.__msgtype__.endswith('Episode') and message.outcome else 0
            writer.write(where, messages.serialize(message), received + late)
            if message.__msgtype__.endswith('Episode') and message.outcome:
                message.outcome, message.header = 2, messages.header(received + 60_000_000_000)
                writer.write(where, messages.serialize(message), received + 60_000_000_000)  # the operator disagrees
        writer.close()
        return folder

    for folder in (write(tmp_path / 'plain', messages), corrected(tmp_path / 'corrected')):
        summary = episode_report(folder)
        assert summary['seconds'] == pytest.approx(seconds, abs=1e-3)
        assert f'{seconds:.1f} s' in (folder / 'report/index.html').read_text()
    assert summary['outcome'] == 'failure'


def test_a_step_under_way_at_the_end_is_not_counted_as_finished(tmp_path, messages):
    early = -100_000_000  # success is announced while the arm still moves for the last of 8 steps
    counted = {name: Bag(write(tmp_path / name, messages, late=late, outcome=outcome)).episodes[0].control_steps
               for name, late, outcome in (('moving', early, 1), ('over', 0, 1), ('timeout', early, 3))}
    assert counted == {'moving': 7, 'over': 8, 'timeout': 8}  # time is up only when every step is over


def test_every_count_leaves_out_the_step_that_was_under_way_at_the_end(tmp_path, messages):
    def beyond(message):
        if message.__msgtype__.endswith('SteeringDecision') and len(message.q_values):
            message.q_values[:] = 9.75
        return message

    folder = write(tmp_path / 'bag', messages, beyond, late=-100_000_000)
    summary = episode_report(folder)
    html = (folder / 'report/index.html').read_text()
    assert (summary['steps'], summary['under_way'], summary['commands'], summary['judged_steps']) == (7, 1, 7, 6)
    assert sum(summary['reasons'].values()) == summary['image_to_command_ms']['n'] == 7  # 6 steered, 1 fallback
    assert '6 of 6 scored steps hold values outside' in html and 'One more step was under way' in html
    assert 'SUCCESS, 7 steps' in describe('episode', summary)
    episode, = Bag(folder).episodes
    assert {row.count for row in latency_table(episode) if row.name == 'encode'} == {7}
    assert len(episode.steps) == 8  # nothing is lost: the step itself is still there, and drawn


def test_every_page_says_where_it_comes_from_and_what_nobody_said(tmp_path, messages):
    def anonymous(message):
        return None if message.__msgtype__.endswith('NodeConfiguration') else message

    folder = write(tmp_path / 'bag', messages, anonymous)
    episode_report(folder)
    foot = re.search('<footer>(.*)</footer>', (folder / 'report/index.html').read_text(), re.DOTALL).group(1)
    for name in ('recorded', 'policy', 'critic', 'K', 'β', 'seed', 'software', 'page made', 'by', 'on'):
        assert f'<b>{name}</b>' in foot
    assert '<b>software</b> unknown' in foot and '<b>critic</b> abc123' in foot and 'commit' in foot and 'load' in foot
    assert '2023-11-14' in foot and START == 1_700_000_000_000_000_000


def test_a_controller_of_today_sends_no_latency_for_a_step_it_refused(tmp_path, messages):
    def today(message):
        message = stale(message)
        if message.__msgtype__.endswith('ControllerState') and message.reason:
            message.image_to_command_ms = math.nan
        return message

    assert episode_report(write(tmp_path / 'bag', messages, today))['image_to_command_ms']['n'] == 4
