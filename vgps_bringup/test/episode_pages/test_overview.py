"""The page over a folder of recordings: every episode, filters without a script, links that survive being moved."""

import re
import sys
from pathlib import Path

import pytest
from evaluation_bags import Messages, write_bag

from vgps_bringup.commands import report
from vgps_bringup.episode_pages.report import episode_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    messages, folder = Messages(), tmp_path_factory.mktemp('work') / 'runs'
    write_bag(folder / 'monday/first', messages=messages, episode_id='first', steps=6)
    write_bag(folder / 'monday/"><b>second', messages=messages, episode_id='"><b>second', steps=3, outcome=2)
    episode_report(folder / 'monday/first')
    (folder / 'broken').mkdir()
    (folder / 'broken/broken.mcap').write_bytes(b'garbage')
    return folder


def call(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, 'argv', ['vgps-report', *map(str, words)])
    report.main()


def test_every_episode_is_on_the_page_and_what_is_not_is_named(runs, monkeypatch, capsys):
    call(monkeypatch, runs)
    said = capsys.readouterr()
    assert '2 episodes, 1 successes' in said.out and 'vgps-evaluate bag' in said.out and 'broken.mcap' in said.err
    html = (runs / 'episodes.html').read_text()
    assert html.count('<article') == 2 and html.count('data:image/jpeg;base64,') == 2 and 'broken.mcap' in html
    assert '<script' not in html and 'https://' not in html and '"><b>' not in html
    link, = re.findall(r'<a href="([^"]+)"', html)
    assert not link.startswith('/') and (runs / link).is_file()


def test_each_filter_names_every_value_and_hides_the_rest_by_a_style_rule(runs, monkeypatch):
    call(monkeypatch, runs)
    html = (runs / 'episodes.html').read_text()
    articles = re.findall(r'<article class="run ([^"]+)">', html)
    for name, wanted in (('outcome', {'success', 'failure'}), ('condition', {'steered'}),
                         ('reason', {'steered', 'frame missing'}), ('task', {'put_eggplant_in_basket'})):
        options = dict(re.findall(rf'<option class="({name}\d+)">([^<]*)</option>', html))
        assert set(options.values()) == wanted
        for mark in options:
            assert f'main:has(option.{mark}:checked) .run:not(.{mark})' in html
            assert any(mark in marks.split() for marks in articles)


def test_a_page_for_each_recording_is_made_where_there_is_none(tmp_path, monkeypatch):
    folder = write_bag(tmp_path / 'runs/one', steps=2)
    call(monkeypatch, tmp_path / 'runs', '--each')
    assert (folder / 'report/index.html').is_file()
    assert 'one/report/index.html' in (tmp_path / 'runs/episodes.html').read_text()


def test_what_belongs_to_one_episode_is_refused_for_a_folder(runs, monkeypatch):
    with pytest.raises(SystemExit, match='for one of them'):
        call(monkeypatch, runs, '--output', Path('x'))
