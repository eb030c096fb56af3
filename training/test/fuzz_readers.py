"""Every reader against mutated data: nothing but named errors, no hang, bounded memory.

    python test/fuzz_readers.py --count 2000     # prints one line per reader
"""
import json
import logging
import resource
import shutil
import signal
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import msgpack
import numpy as np
import torch
from bag_factory import BagFactory
from lerobot_factory import write_v2, write_v3
from rlds_factory import example, folder, record, steps
from rosbags.rosbag2 import StoragePlugin

from vgps_critic import ActionSpace, Critic
from vgps_critic.config import CheckpointError
from vgps_critic.flax_names import expected_leaves
from vgps_critic.import_reference import import_reference
from vgps_critic.outlook import FEATURES, Outlook, Probes, Tracker
from vgps_msgs_py import command_line
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policies.small import checkpoint as small
from vgps_policy_bridge.policies.small.config import SmallConfig
from vgps_training.data.episode import DataError, Episode
from vgps_training.data.sources import read_episodes
from vgps_training.run.storage import CHECKPOINTS, RunError, load_state, save_state

SECONDS = 10  # of CPU for one input: the machine may be busy with other things
WAITING = 60  # [s] with no CPU used: what waits for ever is found too
TINY = {'num_filters': 4, 'image_size': 64, 'stage_sizes': (1,), 'hidden_dims': (4,)}
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


def critic(path):
    made = Critic.untrained(**TINY)
    made.save(path)
    width, language = made.network.encoder.output_dim, made.config.network.language_dim
    Outlook(made.hash, ('push',), np.ones((1, language), np.float32), np.zeros((1, width), np.float32),
            np.eye(width, dtype=np.float32), np.zeros(len(FEATURES) + 1, np.float32), -50.0,
            probes=Probes(np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 7), np.float32), np.zeros(2, np.int32),
                          np.array([True, False]))).save(path)


def reference(path):
    tree = {}
    for name, leaf in expected_leaves(Critic.untrained(**TINY).network.config).items():
        *folders, last = name.split('/')
        node = tree
        for folder_ in folders:
            node = node.setdefault(folder_, {})
        node[last] = msgpack.ExtType(1, msgpack.packb((leaf.shape, 'float32', bytes(4 * int(np.prod(leaf.shape))))))
    networks = {'modules_actor': {'a': [1, 2.5, None, True]}, 'modules_critic': tree}
    (path / 'checkpoint').write_bytes(msgpack.packb({'state': {'step': 7, 'target_params': networks}}))


def small_policy(path):
    small.save(path / 'policy.safetensors', small.build_network(SmallConfig(
        'flow', image_size=32, channels=4, width=8, horizon=1)))


def run_state(path):
    folder_ = path / CHECKPOINTS / '0000007'
    folder_.mkdir(parents=True)
    save_state(folder_, {'step': 7, 'network': {'w': torch.zeros(8)}, 'names': ['a', 'b']})


def episodes(path) -> str:
    """Read every frame there is; `DataError` and its like are for the caller."""
    used = refused = 0
    for episode in read_episodes(path):
        try:
            if isinstance(episode, Episode):
                for frame in episode.frames:
                    assert frame.dtype == np.uint8 and frame.ndim == 3
                assert np.isfinite(episode.actions).all()
                used += 1
                continue
        except ValueError as error:  # a broken picture costs its episode
            assert type(error).__name__ in ('DataError', 'ImageError'), repr(error)
        refused += 1
    return f'{used} used' if not refused else 'named'


def judge(path) -> str:
    loaded, outlook = Critic.load(path), Outlook.load(path)
    encoded = loaded.encode(np.zeros((64, 64, 3), np.uint8), np.zeros(512, np.float32))
    assert np.isfinite(loaded.score(encoded, np.zeros((1, 7), np.float32))).all()
    if outlook is not None:
        Tracker(outlook).judge(-1.0, 0.0, 0.0)
        outlook.distance(np.zeros(outlook.means.shape[1], np.float32), outlook.embeddings[0])
        if outlook.probes is not None:
            outlook.probes.ask(_Blind(), outlook.instructions)
    return 'used'


class _Blind:
    """Stands in for a critic where only the probes' own sizes are asked."""

    def encode(self, image, text):
        assert image.dtype == np.uint8 and image.ndim == 3 and isinstance(text, str)

    def score(self, encoded, actions):
        assert actions.shape == (1, 7)
        return np.zeros((2, 1))


def imported(path) -> str:
    import_reference(path, path / 'out', action_space=ActionSpace.named('bridge'), image_size=64)
    return 'used'


def proposed(path) -> str:
    network, _ = small.load(path / 'policy.safetensors')
    assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
    return 'used'


READERS = {  # name -> (writes a good input, reads it)
    'bags, MCAP': (bag(StoragePlugin.MCAP), episodes), 'bags, sqlite3': (bag(StoragePlugin.SQLITE3), episodes),
    'RLDS': (rlds, episodes), 'LeRobot v2.1': (lerobot(write_v2), episodes),
    'LeRobot v3.0': (lerobot(write_v3), episodes), 'critic': (critic, judge), 'reference checkpoint': (
        reference, imported), 'small policy': (small_policy, proposed),
    'training state': (run_state, lambda path: 'used' if load_state(path) else 'named')}
NAMED = (DataError, FileNotFoundError, CheckpointError, PolicyError, RunError)


def spoil(values, random: np.random.Generator):
    """Return JSON with one value replaced, down a random branch; texts that hold JSON are gone into."""
    if isinstance(values, dict) and values and random.random() < 0.9:
        key = list(values)[random.integers(len(values))]
        return {**values, key: spoil(values[key], random)}
    if isinstance(values, list) and values and random.random() < 0.5:
        at = random.integers(len(values))
        return [*values[:at], spoil(values[at], random), *values[at + 1:]]
    if isinstance(values, str) and values.startswith('{'):
        return json.dumps(spoil(json.loads(values), random))
    return HOSTILE[random.integers(len(HOSTILE))]


def mutate(path: Path, random: np.random.Generator) -> None:
    """Spoil one file: bytes, its length, or a value of its JSON."""
    files = sorted(p for p in path.rglob('*') if p.is_file())
    file = files[random.integers(len(files))]
    data = bytearray(file.read_bytes())
    if file.suffix in ('.json', '.jsonl', '.safetensors') and random.random() < 0.7:
        parts = [line + b'\n' for line in data.splitlines()] if file.suffix == '.jsonl' else [bytes(data)]
        which = random.integers(max(len(parts), 1))
        try:
            if file.suffix == '.safetensors':  # its head: its length, its JSON, the numbers
                end = 8 + struct.unpack('<Q', data[:8])[0]
                head = json.dumps(spoil(json.loads(data[8:end]), random)).encode()
                parts = [struct.pack('<Q', len(head)) + head + data[end:]]
            else:
                parts[which] = json.dumps(spoil(json.loads(parts[which]), random)).encode() + b'\n'
        except (ValueError, IndexError, struct.error):  # spoiled before
            return
        file.write_bytes(b''.join(parts))
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
    file.write_bytes(sealed(data) if '.tfrecord-' in file.name and random.random() < 0.8 else data)


def sealed(data: bytes) -> bytes:
    """Return records with the checksums of what is in them now; else no mutation would get past the first check."""
    out, at = b'', 0
    while at + 16 <= len(data):
        stop = at + 12 + struct.unpack('<Q', data[at:at + 8])[0]
        out, at = out + record(bytes(data[at + 12:stop])), stop + 4
    return out


def outcome(read, path: Path) -> str:
    """Read everything there is and return what happened."""
    def late(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGPROF, late)
    signal.alarm(WAITING)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return read(path)
    except NAMED:
        return 'refused'
    except TimeoutError:
        return f'!! longer than {SECONDS} s'
    except BaseException as error:
        return f'!! {type(error).__name__}: {str(error)[:80]}'
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def fuzz(name: str, count: int, seed: int = 0, keep: Path | None = None) -> tuple[Counter, float]:
    """Return what happened to `count` mutated inputs of a reader, and the slowest one's CPU seconds."""
    random, found, slowest, (write, read) = np.random.default_rng(seed), Counter(), 0.0, READERS[name]
    with tempfile.TemporaryDirectory() as scratch:
        good = Path(scratch, 'good')
        good.mkdir()
        write(good)
        shutil.copytree(good, Path(scratch, 'read'))
        assert outcome(read, Path(scratch, 'read')) in ('2 used', 'used'), outcome(read, Path(scratch, 'read'))
        for number in range(count):
            spoiled = Path(scratch, str(number))  # a path of its own: readers keep files open by their names
            shutil.copytree(good, spoiled)
            for _ in range(random.integers(1, 4)):
                mutate(spoiled, random)
            began = time.process_time()
            result = outcome(read, spoiled)
            slowest = max(slowest, time.process_time() - began)
            found[result] += 1
            if result.startswith('!!') and keep is not None:
                shutil.copytree(spoiled, keep / f'{name}-{number}', dirs_exist_ok=True)
            shutil.rmtree(spoiled)
    return found, slowest


def main(*, count: int = 2000, reader: tuple[Literal[tuple(READERS)], ...] = tuple(READERS),
         keep: Path | None = None) -> None:
    """Print one line per reader.

    Args:
        count: inputs for each reader
        reader: which of them
        keep: folder for inputs that got past the readers

    """
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    for name in reader:
        results, seconds = fuzz(name, count, keep=keep)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f'{name:20s} {count} inputs: {dict(results)}; slowest {seconds:.2f} s of CPU, peak {peak} MiB',
              flush=True)


if __name__ == '__main__':
    command_line.read(main, 'fuzz_readers', description=__doc__)
