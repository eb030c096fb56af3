"""All recorded episodes below a folder as one page: ``vgps-report FOLDER`` writes ``FOLDER/episodes.html``.

The page holds its pictures and needs no script: the filters are style rules. Its links are relative, so that the folder
can be moved or sent.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2

from vgps_bringup.episode_pages import page
from vgps_bringup.episode_pages.facts import condition, refusal_sentence, summarize
from vgps_bringup.episode_pages.plots import jpeg_uri
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord
from vgps_msgs_py.bags.storage import BagError

NAME = 'episodes.html'
WIDTH = 260  # pixels of a thumbnail
FILTERS = ('task', 'condition', 'outcome', 'reason')


@dataclass(frozen=True)
class Card:
    """One episode as the page shows it."""

    values: dict[str, tuple[str, ...]]  # filter -> what the episode is listed under
    summary: dict                       # of `facts.summarize`
    recorded: int                       # [ns]
    bag: str                            # relative to the page
    link: str                           # to the episode's own page, relative; '' where there is none
    picture: str                        # data URI; '' without images


def write(folder: Path, bags: Iterable[Path], camera: str | None = None) -> tuple[Path, list[Card], list[str]]:
    """Write the page; return its path, its episodes, newest first, and which recordings it lacks, and why."""
    cards, problems = [], []
    for path in bags:
        try:
            bag = Bag(path)
            found = [_card(bag, episode, folder, camera) for episode in bag.episodes if episode.steps]
            cards += found
            problems += [] if found else [f'{path}: no episode with control steps']
        except BagError as error:
            problems.append(str(error))
    cards.sort(key=lambda card: -card.recorded)
    choices = {name: sorted({value for card in cards for value in card.values[name]}) for name in FILTERS}
    marks = [[f'{name}{choices[name].index(value)}' for name in FILTERS for value in card.values[name]]
             for card in cards]
    page.write(folder / NAME, 'overview', title=f'Episodes in {folder.resolve().name}', choices=choices,
               cards=list(zip(cards, marks)), problems=problems,
               successes=sum(card.summary['outcome'] == 'success' for card in cards))
    return folder / NAME, cards, problems


def _card(bag: Bag, episode: EpisodeRecord, folder: Path, camera: str | None) -> Card:
    summary = summarize(bag, episode)
    reasons = [*summary['reasons'], *summary['refused'], *filter(None, [summary['failure']])]
    own = (bag.path if bag.path.is_dir() else bag.path.parent) / 'report' / 'index.html'
    several = sum(bool(other.steps) for other in bag.episodes) > 1  # that page shows one of them, not all
    return Card(
        {'task': (episode.task or episode.instruction or '–',), 'condition': (condition(summary),),
         'outcome': (episode.outcome,), 'reason': tuple(dict.fromkeys(reasons))},
        {**summary, 'refusal': refusal_sentence(summary['commands'], summary['refused'])}, episode.started,
        _relative(bag.path, folder), _relative(own, folder) if own.is_file() and not several else '',
        _picture(bag, episode, camera))


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _picture(bag: Bag, episode: EpisodeRecord, camera: str | None) -> str:
    """Return the frame of the last step that has one: how it ended. The camera's trouble costs the picture alone."""
    try:
        frames = {frame.stamp: frame for frame in bag.frames(camera, wanted={step.stamp for step in episode.steps})}
        for step in reversed(episode.steps):
            if step.stamp in frames:
                image = frames[step.stamp].image()
                height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
                return jpeg_uri(cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA))
    except (BagError, ValueError):
        pass
    return ''
