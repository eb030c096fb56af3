"""Check what was typed before anything is started or written. No ROS, no models, no network."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from vgps_msgs_py import command_line
from vgps_msgs_py.jobs import Engine

BAG_FILES = ('metadata.yaml', '*.mcap', '*.db3', '*.db3.zstd', '*.mcap.zstd')
LARGEST_SEED = 2**64 - 1  # ExecuteInstruction.seed
LONGEST_EPISODE = 2**32 - 1  # ExecuteInstruction.max_steps


class ArgumentError(ValueError):
    """An argument cannot be right; the text names cause and remedy in one sentence."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' where something known is similar, and what is known otherwise."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f'; did you mean {close[0]}?' if close else f'; there are {", ".join(known) or "none"}'


def whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ArgumentError unless ``low <= value <= high``."""
    if not low <= value <= high:
        limit = f'at least {low}' if high > 10**6 else f'{low} .. {high}'
        raise ArgumentError(f'{name} must be {limit}, not {value}')


def shard(text: str) -> None:
    """Check which part of a job array this is."""
    try:
        Engine(shard=text)
    except ValueError as error:
        raise ArgumentError(f'--shard: {error}') from error


def candidates(*counts: int) -> None:
    """Check numbers of candidates K."""
    from vgps_policy_bridge.policy import MAX_CANDIDATES
    for k in counts:
        whole('--k', k, 1, MAX_CANDIDATES)


def temperature(*values: float) -> None:
    """Check selection temperatures."""
    for beta in values:
        if not (math.isfinite(beta) and beta >= 0):
            raise ArgumentError(f'--beta must be a number of at least 0 (0 takes the best candidate), not {beta:g}')


def positive(name: str, value: float) -> None:
    """Raise ArgumentError unless a number is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ArgumentError(f'{name} must be a number above 0, not {value:g}')


def episode(seed: int, max_steps: int, least_steps: int = 1, episodes: int = 1) -> None:
    """Check what an episode takes; ``least_steps`` is 0 where that means the node's own limit."""
    whole('--seed', seed, 0, LARGEST_SEED)
    whole('--max-steps', max_steps, least_steps, LONGEST_EPISODE)
    whole('--episodes', episodes, 1, 10**6)


def task(name: str) -> None:
    """Check the name of a simulated task."""
    from vgps_bringup.simulation.tasks import TASKS
    if name not in TASKS:
        raise ArgumentError(f"no simulated task is called '{name}'{nearest(name, TASKS)}")


def policy(name: str) -> None:
    """Check the entry-point name of a policy."""
    from vgps_policy_bridge.policy import available_policies
    if name not in (known := available_policies()):
        raise ArgumentError(f"no policy is called '{name}'{nearest(name, known)}")


def critic(name: str) -> None:
    """Check a checkpoint as far as that goes without loading it; a hub id is left to whoever loads it."""
    from vgps_critic import foreign
    from vgps_critic.checkpoint import CONFIG, CURRENT
    if name in ('default', 'untrained'):
        return
    try:
        path = Path(name).expanduser()
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:    # too long, or the home of a user who is not there
        raise ArgumentError(f'{name[:200]!r} cannot be a critic: {str(error)[:200]}') from error
    if is_folder:
        if (path / CONFIG).is_file() or (path / CURRENT).is_file():
            return
        if known := foreign.describe(path):
            raise ArgumentError(f'{name} {known}')
        inside = sorted(found.parent for pattern in (f'*/{CONFIG}', f'*/*/{CONFIG}') for found in path.glob(pattern))
        raise ArgumentError(f'{name} is not a critic (it has no {CONFIG})' + (
            f'; did you mean {inside[0]}?' if inside else '; give the folder that vgps-train wrote, e.g. '
            'runs/iql/critic'))
    if path.is_file():
        raise ArgumentError(f'{name} {foreign.describe(path)}')
    owner = name.partition('/')[0]
    if name.count('/') == 1 and owner not in ('', '.', '..', '~') and not Path(owner).is_dir():
        return  # owner/name on the hub
    folders = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, folders, 1, 0.5)
    raise ArgumentError(f'there is no critic {name}; ' + (
        f'did you mean {path.parent / close[0]}?' if close else
        "give a folder, owner/name on the hub, or 'default' for the one that is shipped"))


def recording(*paths: Path) -> None:
    """Check that something that could be a bag is there."""
    if not paths:
        raise ArgumentError('give recordings: bags, or folders that hold them, e.g. runs')
    for path in paths:
        if path.exists():
            continue
        parent = path.parent
        beside = [p.name for p in parent.iterdir()] if parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, 1, 0.5)
        raise ArgumentError(f'there is no bag {path}' + (f'; did you mean {parent / near[0]}?' if near else
                                                         '; bags are folders with metadata.yaml, or .mcap and .db3'))


def recordings(paths: Iterable[Path]) -> list[Path]:
    """Return the bags among paths and below them: the folder of a demonstration holds several."""
    found: list[Path] = []
    for path in paths:
        if path.is_file() or is_bag(path):
            found.append(path)
            continue
        inside = sorted({file.parent for kind in BAG_FILES for file in path.rglob(kind)})
        if not inside:
            raise ArgumentError(f'{path} holds no bag ({", ".join(BAG_FILES)}), nor does any folder in it')
        found += inside
    return list(dict.fromkeys(found))


def is_bag(folder: Path) -> bool:
    """Tell whether a folder is itself a recording."""
    return any(next(folder.glob(kind), None) for kind in BAG_FILES)


def unused(path: Path, overwrite: bool) -> None:
    """Refuse to overwrite a report."""
    if path.exists() and not overwrite:
        raise ArgumentError(f'{path} exists already: choose another --output, or give --overwrite')


def new_folder(path: Path) -> None:
    """Check that a folder can be made there."""
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise ArgumentError(f'{part} is a file, so no folder can be made in it: choose another '
                                    '--output')
            return


def namespace(name: str) -> None:
    """Check the name of a ROS namespace."""
    if not re.fullmatch(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?', name):
        raise ArgumentError(f"'{name}' is not a ROS namespace: letters, digits and _ only, no digit first, e.g. vgps")


def or_exit(command: str, *steps: Callable[[], None]) -> None:
    """Run checks; end the program with one sentence at the first that fails."""
    try:
        for step in steps:
            step()
    except ArgumentError as error:
        command_line.refuse(command, error)
