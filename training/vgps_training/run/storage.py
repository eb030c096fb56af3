"""Files of a run. A reader, or a kill at any instant, sees what was there before a save or what the save wrote.

run/checkpoints/0012000/{state.pt,critic/}     one save; renamed into place when it is complete
run/critic -> checkpoints/0012000/critic       the newest critic, a symbolic link: replaced in one call
run/best   -> checkpoints/0008000/critic       the best one by validation
"""
import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from vgps_critic.whole_files import sync, whole

STATE, CRITIC, BEST, CHECKPOINTS = 'state.pt', 'critic', 'best', 'checkpoints'
KEEP_LAST = 3           # saves that are always kept, against a damaged newest one
KEEP_EVERY = 100_000    # updates; the first save beyond each multiple is kept for good

logger = logging.getLogger(__name__)


class RunError(RuntimeError):
    """A run cannot begin, continue or be saved; the text says why and what to do."""


def save_state(folder: Path, state: dict) -> None:
    """Write one state file, or leave the old one untouched. Raises RunError where it cannot be written."""
    try:
        with whole(folder / STATE) as temporary, temporary.open('wb') as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise RunError(f'{folder / STATE} cannot be written ({error}): make room, then give the same command again; '
                       'the state before it is kept') from error


def load_state(folder: Path) -> dict | None:
    """Return the newest state that can be read, or None where the run has none.

    A damaged one is passed over with a warning. Raises RunError where every state is damaged: to begin again in
    silence would look like a run that continued.
    """
    paths = [checkpoint / STATE for checkpoint in reversed(checkpoints(folder))]
    paths += [folder / STATE] if (folder / STATE).exists() else []
    for path in paths:
        try:
            return torch.load(path, map_location='cpu', weights_only=True)
        except Exception as error:  # the unpickler raises whatever the damage looks like to it
            logger.warning('%s is damaged (%s): the state before it is used', path, type(error).__name__)
    if paths:
        raise RunError(f'{folder}: no state can be read, the newest is {paths[0]}. Restore one, or choose another '
                       '--out to begin again')
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of complete saves, oldest first."""
    names = (folder / CHECKPOINTS).glob('[0-9]*')
    return sorted((path for path in names if path.name.isdigit()), key=lambda path: int(path.name))


class Storage:
    """Writes a run's saves in the background and holds the folder's lock while it is open."""

    def __init__(self, folder: Path):
        """Take the lock. Raises RunError where another process trains in this folder."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / '.lock').open('a+')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            raise RunError(f'{folder} is in use by {self._lock.read().strip() or "another process"}: wait for it, stop '
                           'it, or choose another --out') from error
        self._lock.truncate(0)
        self._lock.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        self._lock.flush()
        self._writer = ThreadPoolExecutor(1, 'save')
        self._pending: Future | None = None

    def load(self) -> dict | None:
        """Return what `load_state` returns; saves newer than it, which are damaged, are put aside."""
        state = load_state(self.folder)
        for path in checkpoints(self.folder):
            if state is None or int(path.name) > state['step']:
                good = self.folder / CHECKPOINTS / f'{state["step"]:07d}' / CRITIC if state else None
                if good is not None and good.exists():
                    self._link(CRITIC, good)  # before the damaged one goes: at no instant is there no critic
                path.rename(path.with_name(f'damaged-{path.name}'))
        return state

    def save(self, state: dict, write_critic: Callable[[Path], object], best: bool = False) -> None:
        """Write a state, a copy that nobody changes, and the critic beside it, while the caller goes on.

        Args:
            state: with its `step`.
            write_critic: writes a critic into the folder it is given.
            best: the link `best` points to this save.

        Raises:
            RunError: the save before this one failed.

        """
        self.wait()
        self._pending = self._writer.submit(self._save, state, write_critic, best)

    def check(self) -> None:
        """Raise RunError if a save has failed, without waiting."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is on the disk. Raises RunError where it could not be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Finish writing and release the lock; a second call does nothing."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._lock.close()

    def _save(self, state: dict, write_critic: Callable[[Path], object], best: bool) -> None:
        name = f'{state["step"]:07d}'
        target, temporary = self.folder / CHECKPOINTS / name, self.folder / CHECKPOINTS / f'.{name}.tmp'
        try:
            target.parent.mkdir(exist_ok=True)
            for leftover in target.parent.glob('.*'):  # of a kill
                shutil.rmtree(leftover)
            temporary.mkdir()
            save_state(temporary, state)
            write_critic(temporary / CRITIC)
            for path in [*(temporary / CRITIC).iterdir(), temporary / CRITIC, temporary]:
                sync(path)
            if target.exists():  # the same update, saved again after its validation
                target.rename(target.with_name(f'.{name}.old'))
            temporary.rename(target)
            sync(target.parent)
            for link in (CRITIC, BEST) if best else (CRITIC,):
                self._link(link, target / CRITIC)
            self._prune()
        except (OSError, RuntimeError, ValueError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, RunError):
                raise
            raise RunError(f'update {state["step"]} cannot be saved in {self.folder} ({error}): make room or repair '
                           'the disk, then give the same command again; the saves before it are kept') from error

    def _link(self, name: str, target: Path) -> None:
        link, temporary = self.folder / name, self.folder / f'.{name}.link'
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.relative_to(self.folder))
        if link.is_dir() and not link.is_symlink():  # a run of an older version holds the critic itself
            link.rename(self.folder / f'{name}.before')
        temporary.replace(link)

    def _prune(self) -> None:
        found = checkpoints(self.folder)
        kept = set(found[-KEEP_LAST:])
        kept |= {(self.folder / link).resolve().parent for link in (CRITIC, BEST) if (self.folder / link).exists()}
        milestones: dict[int, Path] = {}
        for path in found:
            milestones.setdefault(int(path.name) // KEEP_EVERY, path)
        milestones.pop(0, None)
        kept = {path.resolve() for path in {*kept, *milestones.values()}}
        for path in found:
            if path.resolve() not in kept:
                old = path.with_name(f'.{path.name}.old')
                path.rename(old)  # what is half removed must not look like a save
                shutil.rmtree(old)
