"""RLDS / TFDS folders of TFRecord shards (Bridge V2, Fractal, Open-X), without TensorFlow."""
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from vgps_training.data.checks import check, flat_rewards
from vgps_training.data.encoded import decode, read as read_bytes
from vgps_training.data.episode import PLAIN, DataError, Episode, Frames, Malformed, Reading
from vgps_training.data.lerobot.meta import read_json
from vgps_training.data.naming import ended_in_words, judging
from vgps_training.data.standardise import Standard, standard
from vgps_training.data.tfrecord import TFRecordError, map_file, parse_example, records

VERSION = re.compile(r'\d+\.\d+\.\d+')  # of a data set: the name of its folder
LONGEST = 4096  # [bytes] of a text about an episode
PICTURES = (b'\xff\xd8\xff', b'\x89PNG', b'RIFF')  # how encoded images begin


class EncodedFrames(Frames):
    """JPEG or PNG images that stay in the record file until asked for."""

    def __init__(self, path: str, slices: np.ndarray):
        self.path, self.slices = path, slices  # (T, 2) int64 offset and length: 16 bytes a frame, there are millions

    def __len__(self) -> int:
        return len(self.slices)

    def since(self, step: int) -> 'EncodedFrames':
        """Return the frames from a step on."""
        return EncodedFrames(self.path, self.slices[step:])

    def same(self) -> list[bool]:
        """Compare each frame's bytes with those of the one before."""
        data, found = map_file(self.path), []
        for (start, size), (after, length) in pairwise(self.slices.tolist()):
            found.append(size == length and data[start:start + size] == data[after:after + length])
        return found

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB."""
        offset, length = self.slices[index].tolist()
        return decode(read_bytes(self.path, offset, length))


def set_name(path: Path) -> str:
    """Return what a data set is called: by a folder that is one version of it, name/version."""
    return f'{path.absolute().parent.name}/{path.name}' if VERSION.fullmatch(path.name) else path.name


def is_rlds(folder: Path) -> bool:
    """Tell whether a folder is one version of a TFDS data set."""
    return (folder / 'dataset_info.json').exists() and (folder / 'features.json').exists()


def one_version(folder: Path) -> None:
    """Raise DataError where a folder holds several versions of a data set, which are the same episodes again."""
    found = [c.name for c in sorted(folder.iterdir()) if VERSION.fullmatch(c.name) and is_rlds(c)]
    if len(found) > 1:
        raise DataError(f'{folder} holds several versions of one data set, the same episodes again: give one of '
                        f'{", ".join(found)}')


def read(folder: Path, split: str = 'train', reading: Reading = PLAIN) -> Iterator[Episode | Malformed]:
    """Yield the episodes of a split, in file order. TFDS data are demonstrations: success unless a feature says not.

    The shards are those that dataset_info.json lists; one that is missing, or holds fewer episodes than it should, is
    named, and what a download left half-written is not read.

    Raises DataError for a data set without standardisation, FileNotFoundError for a split without files.
    """
    for task in tasks(folder, split, reading):
        yield from _shard_episodes(*task)


def tasks(folder: Path, split: str, reading: Reading) -> list[tuple[Path, int | str | None, str, Reading]]:
    """Return what `read_shard` takes for every shard of a split, in order. Raises as `read`."""
    folder = Path(folder)
    info = read_json(folder / 'dataset_info.json')
    name = info.get('name') if isinstance(info, dict) else None
    standard(name)
    return [(shard, expected, name, reading) for shard, expected in _shards(folder, info, name, split)]


def read_shard(task: tuple[Path, int | str | None, str, Reading]) -> list[Episode | Malformed]:
    """Return the episodes of one shard; their frames stay in the file."""
    return list(_shard_episodes(*task))


def _shard_episodes(shard: Path, expected: int | str | None, name: str,
                    reading: Reading) -> Iterator[Episode | Malformed]:
    if isinstance(expected, str):
        yield Malformed(str(shard), expected)
        return
    rule, count = standard(name), 0
    try:
        for index, (offset, length, whole) in enumerate(records(shard)):
            source = f'{shard}#{index}'
            yield (_episode(shard, offset, length, rule, source, reading) if whole else Malformed(
                source, 'its checksum is wrong: download this shard again'))
            count += 1
    except (TFRecordError, OSError) as error:
        yield Malformed(str(shard), str(error))
    if expected is not None and count != expected:
        yield Malformed(str(shard), f'{count} of the {expected} episodes that dataset_info.json lists are here'
                        if count < expected else
                        f'{count} episodes are here where dataset_info.json lists {expected}: another download?')


def _shards(folder: Path, info: dict, name: str, split: str) -> list[tuple[Path, int | str | None]]:
    """Return (file, number of episodes or None, or what is wrong with it), in order."""
    named = re.compile(rf'{re.escape(name)}-{re.escape(split)}\.tfrecord-(\d{{5}})-of-(\d{{5}})')
    present = {(int(m[1]), int(m[2])): f for f in folder.iterdir() if (m := named.fullmatch(f.name)) and f.is_file()}
    try:
        listed = next((part.get('shardLengths') for part in info.get('splits', ()) if part.get('name') == split), None)
        lengths = None if listed is None else [int(n) for n in listed]
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f'{folder}/dataset_info.json: splits: {error}') from error
    if not present:
        known = ', '.join(sorted({m[1] for f in folder.iterdir()
                                  if (m := re.fullmatch(rf'{re.escape(name)}-(\w+)\.tfrecord-.*', f.name))})) or 'none'
        kind = info.get('fileFormat', 'tfrecord')
        raise FileNotFoundError(f'{folder}: no files {name}-{split}.tfrecord-*; splits here: {known}' + (
            f'; dataset_info.json says fileFormat {kind}, only tfrecord is read' if kind != 'tfrecord' else ''))
    if lengths is None:
        totals = {total for _, total in present}
        if len(totals) > 1:
            raise DataError(f'{folder}: shards of {", ".join(map(str, sorted(totals)))} lie side by side and '
                            'dataset_info.json does not say which belong to the split')
        lengths = [None] * totals.pop()
    total = len(lengths)
    if total > 100_000:
        raise DataError(f'{folder}: {total} shards are more than any data set has')
    return [(present[i, total], n) if (i, total) in present else
            (folder / f'{name}-{split}.tfrecord-{i:05d}-of-{total:05d}',
             f'shard {i} of {total} is missing' + (f' ({n} episodes)' if n is not None else ''))
            for i, n in enumerate(lengths)]


def _episode(path: Path, offset: int, length: int, rule: Standard, source: str,
             reading: Reading) -> Episode | Malformed:
    data = map_file(str(path))
    try:
        features = parse_example(data, offset, length)
        camera = _camera(features, data, rule, reading)
        slices = features[f'steps/{camera}']
        if isinstance(slices, np.ndarray):
            raise DataError(f"'{camera}' holds numbers, not encoded images: write it with tfds.features.Image")
        total, steps = len(slices), {}
        if not total:
            raise DataError('it has no steps')
        broken = [i for i, (start, _) in enumerate(slices) if not data[start:start + 4].startswith(PICTURES)]
        if broken:
            raise DataError(f"step {broken[0]} has no image of '{camera}' ({len(broken)} of {total} steps): "
                            f'{slices[broken[0]][1]} bytes that are not JPEG, PNG or WebP')
        for key, value in features.items():
            if key.startswith('steps/') and isinstance(value, np.ndarray) and value.size % total == 0:
                steps[key.removeprefix('steps/')] = value.reshape(total, -1)
        for name, place in (('is_first', 0), ('is_last', total - 1)):
            if name in steps and (told := np.flatnonzero(steps[name])).size and (told != place).any():
                raise DataError(f'{name} is set at step {told[told != place][0]} of {total}: two episodes in one '
                                'record')
        over = steps['is_terminal'].ravel() == 1 if 'is_terminal' in steps else np.zeros(total, bool)
        if len(again := np.flatnonzero(over[:-1] & ~over[1:])):
            raise DataError(f'is_terminal is set at step {again[0]} of {total}, and steps go on: two episodes in one '
                            'record')
        instruction = _instruction(features, data, rule)
        actions = rule.actions(steps)
        states = _states(steps, rule)
        success, notes = _success(features, f'steps/{rule.success}', data)
    except KeyError as error:
        misfit = f'steps/{error.args[0]}' in features
        return Malformed(source, f'feature {error} ' + (
            f'does not have a value for each of its {total} steps' if misfit else 'is missing'))
    except (ValueError, TypeError, IndexError, ZeroDivisionError, UnicodeDecodeError) as error:
        return Malformed(source, str(error) if isinstance(error, DataError) else f'{type(error).__name__}: {error}')
    frames = EncodedFrames(str(path), np.array(slices[:len(actions)], np.int64).reshape(-1, 2))
    episode = Episode(frames, actions, instruction, success, source, None if states is None else states[:len(actions)],
                      camera, rule.rate, notes)
    if 'action' in steps and len(actions) > 2:  # what was recorded counts, not what relabelling made of it
        if reading.first_zero_step == 'drop' and not steps['action'][0].any():
            episode = replace(
                episode, frames=frames.since(1), actions=actions[1:], states=None if states is None else
                episode.states[1:], notes=(
                    *notes, 'first step dropped: its action is zero throughout, gripper included'))
        reading = replace(reading, first_zero_step='keep')
    return check(episode, reading)


def _camera(features: dict, data, rule: Standard, reading: Reading) -> str:
    """Return the image feature to read, without 'steps/'; raises DataError naming the cameras."""
    if not reading.camera and f'steps/{rule.image}' in features:
        return rule.image
    cameras = [key.removeprefix('steps/') for key, value in features.items() if key.startswith('steps/observation/')
               and isinstance(value, list) and value and data[value[0][0]:value[0][0] + 4].startswith(PICTURES)]
    found = [c for c in cameras if reading.camera in (c, c.rpartition('/')[2])]
    if len(found) != 1:
        raise DataError(f"feature '{reading.camera or rule.image}' is missing; cameras: {', '.join(cameras) or 'none'}")
    return found[0]


def _instruction(features: dict, data, rule: Standard) -> str:
    """Return the one instruction of an episode; raises DataError where there are others, or none to be read."""
    name = f'steps/{rule.instruction}'
    if isinstance(features.get(name), np.ndarray) or (name not in features and any('embedding' in k for k in features)):
        raise DataError(f"'{rule.instruction}' is not a text: embeddings alone do not give the instruction")
    texts = {bytes(data[start:start + size]) for start, size in features[name]}
    if len(texts) != 1:
        raise DataError(f'{len(texts)} instructions within one episode')
    try:
        return texts.pop().decode()
    except UnicodeDecodeError as error:
        raise DataError(f"'{rule.instruction}' is not UTF-8 text") from error


def _success(features: dict, ruled: str, data) -> tuple[bool, tuple[str, ...]]:
    """Return (an outcome, the last where there is one for every step; notes); raises DataError for what is none."""
    own = [key for key in features if '/' not in key or (
        key.count('/') == 1 and key.startswith(('steps/', 'episode_metadata/')))]  # deeper ones judge skills
    by_word = {key.rpartition('/')[2]: key for key in sorted(own, key=lambda key: -key.count('/'))}
    name, others = judging(list(by_word))
    if ruled not in features and name is None and others:
        raise DataError(f"'{by_word[others[0]]}' tells how it ended, but in an unknown form; write it as 'success'")
    judged = features.get(ruled, features.get(by_word.get(name)))
    if judged is None or not len(judged):
        for key, value in features.items():
            if not key.startswith('steps/') and isinstance(value, list) and len(value) == 1 and value[0][1] < LONGEST:
                text = bytes(data[value[0][0]:sum(value[0])]).decode(errors='replace')
                if said := ended_in_words(text):  # DROID's paths do
                    return said[0], (f"its outcome is by '{key}', which says '{said[1]}'",)
        rewards = features.get('steps/reward')
        return True, flat_rewards(rewards) if isinstance(rewards, np.ndarray) else ()
    if not isinstance(judged, np.ndarray):
        raise DataError(f'its success is a text ({len(judged)} times), neither true nor false')
    if (last := judged.ravel()[-1]) not in (0, 1):
        raise DataError(f'its success is {last:g}, neither true nor false')
    return bool(last), ()


def _states(steps: dict[str, np.ndarray], rule: Standard) -> np.ndarray | None:
    """Return BridgeData's state (T, 7), without the column of zeros that some conversions pad it with."""
    state = steps.get(rule.state)
    if state is not None and state.shape[1] == 8 and not state[:, 6].any():
        state = np.delete(state, 6, 1)
    return state.astype(np.float32) if state is not None and state.shape[1] == 7 else None
