"""RLDS / TFDS folders of TFRecord shards (Bridge V2, Fractal, Open-X), without TensorFlow."""
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vgps_training.data.encoded import decode
from vgps_training.data.encoded import read as read_bytes
from vgps_training.data.episode import Episode, Malformed, check
from vgps_training.data.standardise import Standard, standard
from vgps_training.data.tfrecord import TFRecordError, map_file, parse_example, records


class EncodedFrames(Sequence):
    """JPEG or PNG images that stay in the record file until asked for."""

    def __init__(self, path: str, slices: list[tuple[int, int]]):
        self.path, self.slices = path, np.array(slices, np.int64).reshape(-1, 2)  # 16 bytes a frame: there are millions

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB."""
        offset, length = self.slices[index].tolist()
        return decode(read_bytes(self.path, offset, length))


def is_rlds(folder: Path) -> bool:
    """Tell whether a folder is one version of a TFDS data set."""
    return (folder / 'dataset_info.json').exists() and (folder / 'features.json').exists()


def read(folder: Path, split: str = 'train') -> Iterator[Episode | Malformed]:
    """Yield the episodes of a split, in file order. TFDS data are demonstrations: success unless a feature says not.

    Raises ValueError for a data set without standardisation, FileNotFoundError for a split without files.
    """
    folder = Path(folder)
    name = json.loads((folder / 'dataset_info.json').read_text())['name']
    rule = standard(name)
    shards = sorted(folder.glob(f'{name}-{split}.tfrecord-*'))
    if not shards:
        raise FileNotFoundError(f'{folder}: no files {name}-{split}.tfrecord-*')
    for shard in shards:
        try:
            for index, (offset, length) in enumerate(records(shard)):
                yield _episode(shard, offset, length, rule, f'{shard}#{index}')
        except TFRecordError as error:
            yield Malformed(str(shard), str(error))


def _episode(path: Path, offset: int, length: int, rule: Standard, source: str) -> Episode | Malformed:
    data = map_file(str(path))
    try:
        features = parse_example(data, offset, length)
        steps = {}
        slices = features[f'steps/{rule.image}']
        total = len(slices)
        for key, value in features.items():
            if key.startswith('steps/') and isinstance(value, np.ndarray) and value.size % total == 0:
                steps[key.removeprefix('steps/')] = value.reshape(total, -1)
        start, size = features[f'steps/{rule.instruction}'][0]
        instruction = data[start:start + size].decode()
        actions = rule.actions(steps)
    except TFRecordError as error:
        return Malformed(source, str(error))
    except KeyError as error:
        return Malformed(source, f'feature {error} is missing')
    except (ValueError, IndexError, ZeroDivisionError, UnicodeDecodeError) as error:
        return Malformed(source, f'{type(error).__name__}: {error}')
    success = bool(features['success'][-1]) if isinstance(features.get('success'), np.ndarray) else True
    frames = EncodedFrames(str(path), slices[:len(actions)])
    return check(Episode(frames, actions, instruction, success, source))
