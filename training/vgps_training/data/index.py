"""What must be known of a data set before its frames are read, kept from one start to the next.

A pass over every record (Bridge and Fractal: 235 GB) holds its bytes against their checksum and finds where the frames
lie, the actions, instructions and outcomes: a few percent of a percent of the bytes. It is made once, by all cores, and
memory-mapped by every process of every later start. It counts while the shards have the names, sizes and times they
had, and this version's readers. It lies in $XDG_CACHE_HOME/vgps (~/.cache/vgps); removing it is safe.
"""
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from vgps_msgs_py.embeddings import cache_folder
from vgps_msgs_py.jobs import forking
from vgps_training.data import bags, episode, lerobot, rlds, table
from vgps_training.data.encoded import EncodedTable
from vgps_training.data.episode import PLAIN, Episode, Malformed, Reading
from vgps_training.data.sources import folders_in
from vgps_training.data.table import Report, StepTable, read_table

PER_STEP = ('offset', 'size', 'actions')  # mapped: a start reads what it needs of them
PER_EPISODE = ('starts', 'file', 'instruction', 'success', 'dataset')


def read_indexed(paths: Sequence[str | Path], image_size: int, *, split: str = 'train', unjudged: str = 'skip',
                 failures: str = 'failures', progress: bool = True,
                 reading: Reading = PLAIN) -> tuple[StepTable, Report]:
    """Return what `read_table(lazy=True)` returns, from the index where there is one; else make it.

    Only RLDS data sets are indexed; with anything else among the paths, everything is read as before.
    """
    folders = [list(_rlds_folders(Path(path).expanduser())) for path in paths]
    options = {'split': split, 'unjudged': unjudged, 'failures': failures, 'reading': reading}
    if not all(folders) or any(None in group for group in folders):
        return read_table(paths, image_size, lazy=True, progress=progress, **options)
    key = _key(folders, options)
    index = cache_folder() / 'tables' / key
    with _alone(index):
        if not (index / 'table.json').exists():
            by_path = dict(zip(map(str, paths), folders))

            def episodes(path: str | Path, split: str, reading: Reading) -> Iterator[Episode | Malformed]:
                return _all_cores([rlds.tasks(folder, split, reading) for folder in by_path[str(path)]])

            made, report = read_table(paths, image_size, lazy=True, progress=progress, source=episodes, **options)
            _write(index, made, report)
    return _load(index, image_size)


def _rlds_folders(path: Path) -> Iterator[Path | None]:
    """Yield the RLDS folders under a path as `sources` finds them, and None for anything of another kind.

    Raises as `rlds.one_version`.
    """
    if rlds.is_rlds(path):
        yield path
    elif lerobot.is_lerobot(path) or bags.is_bag(path) or table.is_saved(path):
        yield None
    elif path.is_dir():
        rlds.one_version(path)
        for child in folders_in(path):
            yield from _rlds_folders(child)


def _key(folders: list[list[Path]], options: dict) -> str:
    files = [[(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
              for folder in group for file in sorted(folder.iterdir())] for group in folders]
    digest = hashlib.sha256(json.dumps([files, {**options, 'reading': asdict(options['reading'])}]).encode())
    for source in sorted(Path(episode.__file__).parent.rglob('*.py')):  # another reader may find other things
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _all_cores(folders: list[list[tuple]]) -> Iterator[Episode | Malformed]:
    """Read shards in as many processes as there are cores; yield their episodes in order."""
    tasks = [task for folder in folders for task in folder]
    with forking(), ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks)), get_context('fork')) as pool:
        for found in pool.map(rlds.read_shard, tasks):
            yield from found


@contextmanager
def _alone(index: Path) -> Iterator[None]:
    """Let one process on this machine make an index while the others wait for it."""
    index.parent.mkdir(parents=True, exist_ok=True)
    with index.with_name(f'{index.name}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(index: Path, made: StepTable, report: Report) -> None:
    temporary = index.with_name(f'.{index.name}.tmp')
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    frames = made.frames
    for name in PER_STEP[:2] + PER_EPISODE[1:2]:
        np.save(temporary / f'{name}.npy', getattr(frames, name))
    for name in ('actions', 'starts', 'instruction', 'success', 'dataset'):
        np.save(temporary / f'{name}.npy', getattr(made, name))
    if made.states is not None:
        np.save(temporary / 'states.npy', made.states)
    told = {name: getattr(report, name) for name in ('episodes', 'steps', 'skipped', 'examples', 'notes')}
    told['cameras'] = [[*camera, count] for camera, count in report.cameras.items()]
    texts = {'files': frames.files, 'instructions': made.instructions, 'sources': made.sources, 'report': told}
    (temporary / 'table.json').write_text(json.dumps(texts, ensure_ascii=False))
    temporary.replace(index)


def _load(index: Path, image_size: int) -> tuple[StepTable, Report]:
    texts = json.loads((index / 'table.json').read_text())
    arrays = {name: np.load(index / f'{name}.npy', mmap_mode='r') for name in PER_STEP}
    arrays.update((name, np.load(index / f'{name}.npy')) for name in PER_EPISODE)
    states = np.load(index / 'states.npy', mmap_mode='r') if (index / 'states.npy').exists() else None
    frames = EncodedTable(texts['files'], arrays['starts'], arrays.pop('file'), arrays.pop('offset'),
                          arrays.pop('size'), image_size)
    told = texts['report']
    report = Report(told['episodes'], told['steps'])
    report.skipped, report.notes, report.examples = Counter(told['skipped']), Counter(told['notes']), told['examples']
    report.cameras = Counter({(camera, rate): count for camera, rate, count in told['cameras']})
    return StepTable(frames, **arrays, instructions=tuple(texts['instructions']), sources=tuple(texts['sources']),
                     states=states), report
