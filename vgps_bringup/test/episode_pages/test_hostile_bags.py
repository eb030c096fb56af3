"""A bag is somebody else's file: no text in it becomes markup or a path, and no number ends a report."""

import re

import numpy as np
import pytest
from evaluation_bags import Messages, episode_messages, topic

from vgps_bringup.episode_pages import page, plots
from vgps_bringup.episode_pages.report import comparison_report, episode_report
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.bags.writer import BagWriter

pytestmark = pytest.mark.slow

SCRIPTS = ['<script>alert(1)</script>', '<a x><script>alert(1)</script>',
           '<span class="tag"><img src=x onerror=alert(1)>',
           '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", 'javascript:alert(1)', '{{ 7 * 7 }}{% raw %}',
           '</style></pre></svg><script>alert(1)</script>', r'$\frac{', '--><script>alert(1)</script><!--']


@pytest.fixture(scope='module')
def messages():
    return Messages()


def write(folder, messages, text='', **fields):
    """Write an episode in whose messages every text is this one, and the given fields are as given."""
    bag = BagWriter(folder, messages.types)
    for where, message, received in episode_messages(messages, steps=3):
        if where.type.endswith('/Image'):
            continue                # videos take their time
        for name, value in vars(message).items():
            if text and isinstance(value, str) and name not in ('episode_id', '__msgtype__', 'encoding'):
                setattr(message, name, text)
            elif text and isinstance(value, list) and value and isinstance(value[0], str):
                setattr(message, name, [text + str(i) for i in range(len(value))])
        for name, value in fields.items():
            kind, name = name.split('_', 1)
            if where.type.endswith(kind) and hasattr(message, name):
                setattr(message, name, value)
        bag.write(where, messages.serialize(message), received)
    bag.close()
    return folder


def assert_inert(html):
    """Parse the page as a browser does; it has no element and no attribute that could run anything."""
    from html.parser import HTMLParser

    class Inspector(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ('script', 'iframe', 'object', 'embed', 'base', 'form'), tag
            for name, value in attributes:
                assert not name.startswith('on'), (tag, name, value)
                if name in ('href', 'src', 'xlink:href'):
                    assert re.match(r'data:(image|video)/|data:,$|#|[^:]*$', value or ''), (tag, value[:80])
    Inspector().feed(html)
    assert '49' not in re.sub(r'<svg.*?</svg>|data:[^"]*', '', html, flags=re.DOTALL).partition('<main>')[2][:400]


@pytest.mark.parametrize('text', SCRIPTS)
def test_no_text_of_a_bag_becomes_markup(tmp_path, messages, text):
    folder = write(tmp_path / 'bag', messages, text)
    episode_report(folder, tmp_path / 'out', label=text)
    assert_inert((tmp_path / 'out/index.html').read_text())


@pytest.mark.parametrize('text', SCRIPTS[:4])
def test_no_name_of_a_condition_or_folder_becomes_markup(tmp_path, messages, text):
    folder = write(tmp_path / 'javascript:alert(1)', messages, text)
    comparison_report({text: folder, 'other': folder}, tmp_path / 'out', note=text)
    html = (tmp_path / 'out/index.html').read_text()
    assert_inert(html)
    assert 'href="../javascript%3Aalert' in html


@pytest.mark.parametrize('text', SCRIPTS)
def test_every_template_escapes_what_it_is_given(tmp_path, text):
    table = page.Table((text, text), [(text, page.Link(text, text)), (page.Outcome(text), None)], (0,))
    drawn = plots.svg(plots.curves_figure({text: (np.arange(3), np.arange(3))}, text))
    page.write(tmp_path / 'a.html', 'trials', title=text, finished=1, planned=2, rates=drawn, success=table,
               failures=table, pairs=[{'title': text, 'kind': text, 'film': 'x.mp4', 'curves': drawn}], method=text)
    page.write(tmp_path / 'b.html', 'rejudged', title=text, recordings=1, episodes=1, settings=1, times_real_time=2.0,
               agreement={'same': 1, 'of': 2}, verdicts=[text], problems=[text], choices=table, grids=[drawn],
               episode_curves=[(text, drawn)], more_curves=1, done=drawn, worst=[('data:image/png;base64,', text)],
               sheets=[('data:image/png;base64,', text)])
    for name in ('a.html', 'b.html'):
        assert_inert((tmp_path / name).read_text())


@pytest.mark.parametrize('fields', [
    {'Episode_outcome': 99}, {'SteeringDecision_reason': 200}, {'TaskState_failure': 77},
    {'ActionCandidates_num_candidates': 2**32 - 1}, {'ActionCandidates_horizon': 10**9},
    {'SteeringDecision_num_candidates': 4_000_000_000}, {'SteeringDecision_chosen': 10**9},
    {'SteeringDecision_chosen': -5}, {'SteeringDecision_num_members': 0}, {'SteeringDecision_value': float('nan')}])
def test_numbers_that_cannot_be_are_named_and_the_rest_is_shown(tmp_path, messages, fields):
    folder = write(tmp_path / 'bag', messages, **fields)
    summary = episode_report(folder, tmp_path / 'out')
    name = next(iter(fields))
    possible = name.endswith('_value') or (name.startswith('TaskState') and not Bag(folder).of_type('TaskState'))
    assert len(summary['problems']) == (1 if possible else 2), 'the missing images, and this'
    assert 'Values' in (tmp_path / 'out/index.html').read_text()


def test_a_topic_of_another_kind_is_no_image(tmp_path, messages):
    bag = BagWriter(write(tmp_path / 'one', messages).with_name('two'), messages.types)
    for where, message, received in episode_messages(messages, steps=2):
        bag.write(where, messages.serialize(message), received)
        if where.type.endswith('/Image'):
            bag.write(topic('other_image', where.type), b'\0\1\0\0' + b'\xff' * 30, received)
    bag.close()
    assert episode_report(tmp_path / 'two', tmp_path / 'out')['commands'] == 2
