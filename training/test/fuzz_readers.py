"""Every reader against mutated data: nothing but named errors, no hang, bounded memory.

    python test/fuzz_readers.py --count 2000     # prints one line per reader
"""
import argparse
import json
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from bag_factory import BagFactory
from lerobot_factory import write_v2, write_v3
from rlds_factory import example, folder, steps
from rosbags.rosbag2 import StoragePlugin

from vgps_training.data.episode import DataError, Episode
from vgps_training.data.sources import read_episodes

SECONDS = 10  # for one input
HOSTILE = (0, 1, -1, 2**31, 2**63, 1e308, float('nan'), '', None, [], {}, [[]] * 9, '../..', '{0.__class__}', True)


def source(seed=0, count=6):
    random = np.random.default_rng(seed)
    actions = random.normal(0, 0.01, (count, 7)).astype(np.float32)
    actions[:, 6] = 1
    return random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2), actions


def bag(storage):
    def write(path):
        made = BagFactory(path / 'bag', storage)
        for name in ('a', 'b'):
            made.whole_episode(name, 'push', 1)
        made.close()
    return write


def rlds(path):
    payloads = [example(steps(*source(seed), success=np.ones(1, np.int64))) for seed in (1, 2)]
    folder(path / 'vgps/1.0.0', 'vgps', payloads)


def lerobot(write):
    return lambda path: write(path / 'set', [(*source(seed), 0, True) for seed in (1, 2)], ['push'])


READERS = {'bags, MCAP': bag(StoragePlugin.MCAP), 'bags, sqlite3': bag(StoragePlugin.SQLITE3), 'RLDS': rlds,
           'LeRobot v2.1': lerobot(write_v2), 'LeRobot v3.0': lerobot(write_v3)}


def mutate(path: Path, random: np.random.Generator) -> None:
    """Spoil one file: bytes, its length, or a value of its JSON."""
    files = sorted(p for p in path.rglob('*') if p.is_file())
    file = files[random.integers(len(files))]
    data = bytearray(file.read_bytes())
    if file.suffix in ('.json', '.jsonl') and data and random.random() < 0.7:
        try:
            values = json.loads(data.splitlines()[0] if file.suffix == '.jsonl' else data)
        except ValueError:  # spoiled before
            return
        at = values
        while isinstance(at, dict) and at:  # down a random branch
            key = list(at)[random.integers(len(at))]
            if isinstance(at[key], dict) and at[key] and random.random() < 0.6:
                at = at[key]
            else:
                at[key] = HOSTILE[random.integers(len(HOSTILE))]
                break
        file.write_text(json.dumps(values))
        return
    kind = random.integers(4)
    if kind == 0:
        del data[int(random.integers(len(data) + 1)):]
    elif kind == 1 and len(data) > 8:
        at = int(random.integers(len(data) - 8))
        data[at:at + 8] = (b'\xff' * 8, bytes(8), b'\x7f' + b'\xff' * 7)[random.integers(3)]
    else:
        for at in random.integers(0, max(len(data), 1), int(random.integers(1, 20))):
            if data:
                data[at] = random.integers(256)
    file.write_bytes(data)


def outcome(path: Path) -> str:
    """Read everything there is and return what happened."""
    def late(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        used = refused = 0
        for episode in read_episodes(path):
            if isinstance(episode, Episode):
                try:
                    for frame in episode.frames:
                        assert frame.dtype == np.uint8 and frame.ndim == 3
                except DataError:
                    refused += 1
                    continue
                except ValueError as error:  # ImageError: a broken picture costs its episode
                    assert type(error).__name__ == 'ImageError', repr(error)
                    refused += 1
                    continue
                assert np.isfinite(episode.actions).all()
                used += 1
            else:
                refused += 1
        return f'{used} used' if not refused else 'named'
    except (DataError, FileNotFoundError):
        return 'refused'
    except TimeoutError:
        return '!! longer than 10 s'
    except BaseException as error:
        return f'!! {type(error).__name__}: {str(error)[:80]}'
    finally:
        signal.alarm(0)


def fuzz(name: str, count: int, seed: int = 0, keep: Path | None = None) -> tuple[Counter, float]:
    """Return what happened to `count` mutated inputs of a reader, and the slowest one's seconds."""
    random, found, slowest = np.random.default_rng(seed), Counter(), 0.0
    with tempfile.TemporaryDirectory() as scratch:
        good, spoiled = Path(scratch, 'good'), Path(scratch, 'spoiled')
        good.mkdir()
        READERS[name](good)
        assert outcome(good) == '2 used', outcome(good)
        for number in range(count):
            shutil.rmtree(spoiled, ignore_errors=True)
            shutil.copytree(good, spoiled)
            for _ in range(random.integers(1, 4)):
                mutate(spoiled, random)
            began = time.perf_counter()
            result = outcome(spoiled)
            slowest = max(slowest, time.perf_counter() - began)
            found[result] += 1
            if result.startswith('!!') and keep is not None:
                shutil.copytree(spoiled, keep / f'{name}-{number}', dirs_exist_ok=True)
    return found, slowest


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--count', type=int, default=2000)
    parser.add_argument('--reader', choices=list(READERS), nargs='*', default=list(READERS))
    parser.add_argument('--keep', type=Path, help='folder for inputs that got past the readers')
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    for reader in options.reader:
        results, seconds = fuzz(reader, options.count, keep=options.keep)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f'{reader:14s} {options.count} inputs: {dict(results)}; slowest {seconds:.2f} s, peak {peak} MiB',
              flush=True)
