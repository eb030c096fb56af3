"""`vgps-data pack`: every frame decoded and resized once, in shards that can be streamed (`packed.py`).

Shards are independent jobs: side by side, on several machines that share the folder, again after a kill.
"""
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from vgps_msgs_py import jobs
from vgps_msgs_py.jobs import Engine
from vgps_training.data import packed
from vgps_training.data.episode import DataError, Reading
from vgps_training.data.index import read_indexed
from vgps_training.data.table import Report, StepTable, begin, data_digest, finish, is_saved


@dataclass(frozen=True)
class PackConfig:
    """Decode and resize data sets into shards: for large data, many processes and object stores.

    Example: vgps-data pack bridge_dataset/1.0.0 --out packed --processes 16 --remote s3://bucket/set

    An interrupted call continues where it stopped. Next: vgps-train cal-ql --data packed
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]  # data sets, or folders that hold them
    out: Path                  # folder of the packed set
    image_size: int = 256      # side of the critic's input [pixels]
    split: str = 'train'       # which split of RLDS data sets
    reading: Annotated[Reading, tyro.conf.arg(name='')] = field(default_factory=Reading)  # which camera, which units
    unjudged: str = 'skip'     # what to do with episodes without an outcome: 'skip', or count as 'successes'
    remote: str = ''           # where you will keep the shards, such as s3://bucket/set; missing ones are fetched there
    processes: int = 1         # parallel processes on this machine
    shard: str = ''            # 'i/n': every n-th shard only, as task i (from 0) of a job array on a shared folder
    cluster: str = ''          # address of a Ray cluster that shares the folder, or 'auto'


def pack(config: PackConfig) -> None:
    """Write what is missing of this part, and the table around it when every shard is there.

    Raises DataError where the folder holds another set.
    """
    table, report = _read(config)
    names = shards(table, config.image_size)
    _check_same(config, table)
    mine = Engine(shard=config.shard).select(list(names))
    missing = [name for name in mine if not (config.out / name).exists()]
    jobs.run(_write, {name: (config, name) for name in missing},
             engine=Engine(config.processes, cluster=config.cluster))
    print(report.text())
    if all((config.out / name).exists() for name in names):
        complete(table, config.out, config.image_size, config.remote)
        print(f'packed: {len(names)} shards in {config.out}; train with --data {config.out}')
    else:
        print(f'packed: {len(mine)} shards of {len(names)} in {config.out}; who writes the last one completes the set')


def write(table: StepTable, folder: Path) -> None:
    """Pack a table here and now."""
    begin(folder)
    for name, steps in shards(table, table.image_size).items():
        write_shard(table, steps, folder / name, table.image_size)
    complete(table, folder, table.image_size)


def shards(table: StepTable, size: int) -> dict[str, np.ndarray]:
    """Return the steps of every shard."""
    count = packed.samples_per_shard(size)
    return {packed.shard_name(number): np.arange(first, min(first + count, len(table)))
            for number, first in enumerate(range(0, len(table), count))}


def write_shard(table: StepTable, steps: np.ndarray, path: Path, size: int) -> None:
    """Write the shard of these steps (n,)."""
    episodes = table.episode_of(steps)
    packed.write_shard(path, [
        (table.actions[step], int(episode), frame, table.instructions[table.instruction[episode]],
         int(step - table.starts[episode]), int(table.success[episode]))
        for step, episode, frame in zip(steps, episodes, table.images(steps))], size)


def complete(table: StepTable, folder: Path, size: int, remote: str = '') -> None:
    """Write what makes a table of a folder with every shard. Raises DataError where one is of a wrong size."""
    lengths = packed.sample_bytes(table.instructions, size)[table.per_step(table.instruction)]
    offset, told = np.empty(len(table), np.int64), []
    for name, steps in shards(table, size).items():
        ends = packed.starts(lengths[steps], size)
        offset[steps] = ends[:-1] + np.int64(packed.BEFORE_FRAME)
        told.append((name, len(steps), int(ends[-1])))
        if (folder / name).stat().st_size != ends[-1]:
            raise DataError(f'{folder / name} has another size than it must have: remove it and give the command again')
    np.save(folder / 'offset.npy', offset)
    (folder / 'index.json').write_text(json.dumps(packed.index(told, size)))
    finish(table, folder, packed={'image_size': size, 'samples': packed.samples_per_shard(size), 'remote': remote})


def _read(config: PackConfig) -> tuple[StepTable, Report]:
    return read_indexed(config.paths, config.image_size, split=config.split, unjudged=config.unjudged,
                        reading=config.reading)


_table = functools.lru_cache(maxsize=1)(_read)  # once in every process


def _write(job: tuple[PackConfig, str]) -> None:
    config, name = job
    table = _table(config)[0]
    write_shard(table, shards(table, config.image_size)[name], config.out / name, config.image_size)


def _check_same(config: PackConfig, table: StepTable) -> None:
    """Begin a folder, or see that it was begun with the same steps."""
    path = config.out / 'packing.json'
    wanted = json.dumps({'data': data_digest(table), 'image_size': config.image_size})
    if path.exists() and path.read_text() != wanted:
        raise DataError(f'{config.out} was begun with other data or another image size: choose another --out')
    if not path.exists():
        if is_saved(config.out):
            raise DataError(f'{config.out} holds a table: choose another --out or remove it')
        begin(config.out)
        path.write_text(wanted)
