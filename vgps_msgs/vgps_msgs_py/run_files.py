"""Small notes that the processes of one user leave each other in /tmp: who holds which shared memory, who has ended."""

import atexit
import contextlib
import json
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')
# A process' own segment and its lock: nobody else ever takes the name. Ports (fastdds_port7411, its lock and its
# semaphore) have names that the next node takes over: removed while it does, it would be deaf for as long as it lives.
SEGMENT = re.compile(r'fast(dds|rtps)_[0-9a-f]{16}(_el)?')


def folder() -> Path | None:
    """Return the user's own folder, or None where somebody else has put something in its place."""
    path = Path(tempfile.gettempdir(), f'vgps-{os.getuid()}')
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            return path
    return None


# --- shared memory that a killed process leaves behind ---------------------------------------------------------------

def in_use() -> set[Path]:
    """Return the shared-memory files that some process has mapped or open: another robot's, say."""
    used = set()
    for process in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            used |= _mapped(process)
            for link in (process / 'fd').iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    used.add(Path(os.readlink(link)))
    return used


def note_shared_memory() -> None:
    """Write down which segments this process has made, for whoever starts after it was killed."""
    place = folder()
    if place is None:
        return
    with contextlib.suppress(OSError):
        files = {str(path): path.stat().st_ino for path in _own()}
        whole = place / f'{os.getpid()}.segments.part'    # a note that is cut off would stay for ever
        whole.write_text(json.dumps({'started': _started(os.getpid()), 'files': files}))
        whole.replace(whole.with_suffix(''))
        atexit.unregister(forget_shared_memory)    # once is enough
        atexit.register(forget_shared_memory)


@contextlib.contextmanager
def noting_shared_memory(period: float = 0.1) -> Iterator[None]:
    """Note again every `period` seconds: a node that loads a model for long may be killed meanwhile."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(period):
            note_shared_memory()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        note_shared_memory()


def forget_shared_memory() -> None:
    """Remove this process' note: it ends in good order. What is not gone by now is left to the next start."""
    if (place := folder()) is not None and not _own():
        (place / f'{os.getpid()}.segments').unlink(missing_ok=True)


def remove_leftovers() -> list[Path]:
    """Remove the segments of noted processes that are gone, unless somebody uses them; return what was removed."""
    place, removed, used = folder(), [], None
    for note in place.glob('*.segments') if place is not None else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads(note.read_text())
            if _started(int(note.stem)) == content['started']:
                continue  # it lives
            used = in_use() if used is None else used
            for name, inode in content['files'].items():
                path = Path(name)
                if path.parent == SHARED_MEMORY and SEGMENT.fullmatch(path.name) and path not in used \
                        and path.exists() and path.stat().st_ino == inode:
                    path.unlink()
                    removed.append(path)
            note.unlink()
    return removed


def _own() -> set[Path]:
    """Return this process' segments and their locks. It maps others' too, and holds open the locks of its own alone."""
    found = set()
    for link in Path('/proc/self/fd').iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            lock = Path(os.readlink(link))
            if lock.parent == SHARED_MEMORY and lock.name.endswith('_el') and SEGMENT.fullmatch(lock.name):
                found |= {lock, lock.with_name(lock.name[:-len('_el')])}
    return {path for path in found if path.exists()}


def _mapped(process: Path) -> set[Path]:
    return {Path(line.split()[-1]) for line in (process / 'maps').read_text().splitlines() if '/dev/shm/' in line}


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since boot: a number may be used again. None for one that has ended."""
    try:
        state, *facts = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
        return None if state in 'ZX' else facts[18]    # nobody may have asked yet how a killed one ended
    except (OSError, IndexError):
        return None


# --- which node of a system has ended --------------------------------------------------------------------------------

def note_end(namespace: str, node: str, code: int) -> None:
    """Write down that a node ended by itself, for clients that otherwise see all of them go at once."""
    if (place := _ends(namespace)) is not None:
        with contextlib.suppress(OSError), place.open('a') as stream:
            stream.write(json.dumps({'node': node, 'code': code, 'time': time.time()}) + '\n')


def ends_since(namespace: str, moment: float) -> dict[str, int]:
    """Return node -> exit code of what ended since then (Unix time), first things first."""
    found: dict[str, int] = {}
    if (place := _ends(namespace)) is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for line in place.read_text().splitlines():
                entry = json.loads(line)
                if entry['time'] >= moment:
                    found.setdefault(str(entry['node']), int(entry['code']))
    return found


def describe_ends(ends: dict[str, int]) -> str:
    """Return ``critic_node ended with code 1, widowx_node was killed (signal 9)``."""
    return ', '.join(f'{node} was killed (signal {-code})' if code < 0 else f'{node} ended with code {code}'
                     for node, code in ends.items())


def forget_ends(namespace: str) -> None:
    """Begin a new list."""
    if (place := _ends(namespace)) is not None:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


def _ends(namespace: str) -> Path | None:
    place = folder()
    name = re.sub(r'[^A-Za-z0-9_]', '_', namespace.strip('/'))[:100]
    return place / f'{os.environ.get("ROS_DOMAIN_ID", "0")}-{name}.ended' if place is not None else None
