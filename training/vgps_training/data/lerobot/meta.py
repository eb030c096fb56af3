"""The metadata of a LeRobot data set: what it holds, and in which files the rows and images of each episode are."""
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vgps_msgs_py.safetensors_header import left_behind
from vgps_training.data.checks import no_colours
from vgps_training.data.episode import CameraChoiceError, DataError
from vgps_training.data.lerobot.video import Window
from vgps_training.data.naming import judging

VERSIONS = ('v2.0', 'v2.1', 'v3.')


@dataclass(frozen=True)
class Entry:
    """An episode as the metadata list it."""

    index: int
    length: int | None              # rows, None where the metadata do not say
    tasks: tuple[str, ...]          # texts, where the metadata give them
    judged: tuple[tuple[str, object], ...] = ()  # what the metadata say of its outcome, by name; null where they do not
    file: Path | None = None        # with its rows; v3: where the metadata say they are
    video: Path | None = None       # None for images in the table
    window: Window = field(default=Window(0.0, None))


class Info:
    """`meta/info.json`, checked. Raises DataError where it cannot be used."""

    def __init__(self, folder: Path):
        self.folder = folder
        values = read_json(folder / 'meta/info.json')
        try:
            self.version = str(values['codebase_version'])
            self.fps = float(values['fps'])
            self.features = {str(k): v for k, v in values['features'].items() if isinstance(v, dict)}
            self.chunks = int(values.get('chunks_size') or 1000)
            self.data_path = str(values['data_path'])
            self.video_path = values.get('video_path')
            self.episodes = values.get('total_episodes')
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            found = f'lacks {error}' if isinstance(error, KeyError) else f'holds {type(error).__name__}: {error}'
            raise DataError(f'{folder}/meta/info.json {found}') from error
        if not self.version.startswith(VERSIONS):
            raise DataError(f'{folder}: LeRobot {self.version}; this reader knows v2.0, v2.1 and v3.0')
        if not (0 < self.fps < 10_000 and 0 < self.chunks):
            raise DataError(f'{folder}/meta/info.json: fps {self.fps:g}, chunks_size {self.chunks}')
        self.cameras = [name for name, f in self.features.items() if f.get('dtype') in ('video', 'image')]
        self.old = self.version.startswith('v2')

    def camera(self, wanted: str) -> str:
        """Return the camera's feature by its full or last name; raises DataError where the choice is open."""
        listed = ', '.join(self.cameras) or 'none'
        depth = [c for c in self.cameras if self.is_depth(c)]
        if wanted:
            found = [c for c in self.cameras if wanted in (c, re.split('[./]', c)[-1], c.removeprefix('observation.'))]
            if len(found) != 1:
                raise DataError(f"{self.folder}: no camera '{wanted}'; cameras: {listed}")
        else:
            found = [c for c in self.cameras if c not in depth]
            if len(found) > 1:
                raise CameraChoiceError(
                    f'{self.folder} has several cameras; choose the one that the robot will use with --camera '
                    f'(vgps-train: --data.camera): {listed}', self.folder, found)
        if not found or found[0] in depth:
            raise DataError(f'{self.folder} has no colour camera; image features: {listed}')
        return found[0]

    def is_depth(self, camera: str) -> bool:
        """Tell whether a camera's pictures are distances or a mask."""
        feature = self.features[camera]
        details = {**feature, **{k: v for part in ('info', 'video_info') if isinstance(feature.get(part), dict)
                                 for k, v in feature[part].items()}}
        return (any(details.get(k) is True for k in ('is_depth_map', 'video.is_depth_map'))
                or 'depth' in camera.lower() or no_colours(camera.rpartition('.')[2]) is not None)

    def place(self, template, **values) -> Path:
        """Return a file of the data set by its path template; raises DataError for one that leads out of it."""
        def fill(match: re.Match) -> str:
            if match[1] not in values:
                raise DataError(f"{self.folder}/meta/info.json: path '{template}' asks for '{match[1]}'")
            value = values[match[1]]
            return f'{value:0{int(match[2])}d}' if match[2] and isinstance(value, int) else str(value)
        if not isinstance(template, str):
            raise DataError(f'{self.folder}/meta/info.json gives no path for {", ".join(values)}')
        relative = re.sub(r'\{(\w+)(?::0?(\d{1,2})d)?\}', fill, template)
        if '{' in relative or relative.startswith('/') or '..' in Path(relative).parts or '\0' in relative:
            raise DataError(f"{self.folder}/meta/info.json: path '{template[:80]}' is not one within the data set")
        return self.folder / relative


def read_json(path: Path):
    """Return a JSON file's content; raises DataError."""
    try:
        return json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f'{path} cannot be read: {error}') from error


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return a Parquet file's table; raises DataError."""
    if not path.is_file():
        raise DataError(f'data file {path.name} is missing')
    try:
        return pq.ParquetFile(path).read(columns=columns)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(left_behind(path) or f'data file {path.name} cannot be read: {error}') from error


def tasks(info: Info) -> dict[int, str]:
    """Return the instruction texts by index, {} where the data set lists none."""
    path = info.folder / ('meta/tasks.jsonl' if info.old else 'meta/tasks.parquet')
    if not path.exists():
        return {}
    rows = _lines(path) if info.old else read_parquet(path).to_pylist()
    found = {}
    for row in rows:
        keys = ('task', '__index_level_0__', 'index', 'name')  # the text may be the table's index
        text = next((row[key] for key in keys if isinstance(row.get(key), str)), None)
        index = row.get('task_index')
        if text is None or not isinstance(index, int):
            raise DataError(f'{path}: no task and task_index in {str(row)[:80]}')
        if found.setdefault(index, text) != text:
            raise DataError(f"{path}: task_index {index} is '{found[index]}' and '{text}'")
    return found


def entries(info: Info, camera: str) -> Iterator[Entry | DataError]:
    """Yield the episodes in the order of the metadata."""
    seen = set()
    rows = list(_episode_rows(info))
    success, others = judging(list(dict.fromkeys(name for row in rows for name in row)))
    telling = [success] * (success is not None) + [n for n in others if any(row.get(n) is not None for row in rows)]
    for row in rows:
        try:
            index, length = row['episode_index'], row.get('length')
            if isinstance(index, bool) or int(index) != index or not 0 <= index < 2**31 or index in seen:
                raise DataError(f'episode index {str(index)[:40]} is listed twice or is not a number')
            seen.add(index)
            listed = row.get('tasks') or []
            listed = [listed] if isinstance(listed, str) else listed
            common = {'index': int(index), 'length': None if length is None else int(length),
                      'tasks': tuple(text for text in listed if isinstance(text, str)),
                      'judged': tuple((name, row.get(name)) for name in telling)}
            video = info.features[camera]['dtype'] == 'video'
            if info.old:
                values = {'episode_chunk': int(index) // info.chunks, 'episode_index': int(index)}
                yield Entry(**common, file=info.place(info.data_path, **values),
                            video=info.place(info.video_path, video_key=camera, **values) if video else None)
                continue
            place, window = None, Window(0.0, None)
            if video:
                where = f'videos/{camera}/'
                place = info.place(info.video_path, video_key=camera, chunk_index=int(row[f'{where}chunk_index']),
                                   file_index=int(row[f'{where}file_index']))
                start, stop = float(row[f'{where}from_timestamp']), row.get(f'{where}to_timestamp')
                stop = start + int(length) / info.fps if stop is None and length is not None else stop
                window = Window(start, None if stop is None else float(stop))
            yield Entry(**common, video=place, window=window, file=info.place(
                info.data_path, chunk_index=int(row['data/chunk_index']), file_index=int(row['data/file_index'])))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            yield error if isinstance(error, DataError) else DataError(
                f'the metadata of episode {str(row.get("episode_index"))[:40]} ' + (
                    f'lack {error}' if isinstance(error, KeyError) else f'hold {type(error).__name__}: {error}'))


def _episode_rows(info: Info) -> Iterator[dict]:
    if info.old:
        yield from _lines(info.folder / 'meta/episodes.jsonl')
        return
    files = sorted((info.folder / 'meta/episodes').rglob('*.parquet'))
    if not files:
        raise DataError(f'{info.folder}/meta/episodes holds no table of episodes')
    for path in files:
        try:
            table = read_parquet(path)
        except DataError as error:
            raise DataError(f'{info.folder}: the list of episodes in meta/episodes cannot be used: {error}') from error
        # statistics fill hundreds of columns that nobody needs here
        yield from table.select([n for n in table.column_names if not n.startswith('stats/')]).to_pylist()


def _lines(path: Path) -> list[dict]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f'{path} cannot be read: {str(error)[:200]}') from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f'{path}: a line is not an object')
    return rows


def row_ranges(info: Info) -> dict[int, list[tuple[Path, np.ndarray]]]:
    """Return, for each episode of a v3 set, the files with rows of it and which rows: file indices may be stale."""
    found: dict[int, list[tuple[Path, np.ndarray]]] = {}
    for path in sorted((info.folder / 'data').rglob('*.parquet')):
        try:
            column = read_parquet(path, ['episode_index']).column('episode_index').to_numpy()
        except (DataError, KeyError, ValueError):
            continue  # named when an episode asks for the file
        order = np.argsort(column, kind='stable')
        values, starts = np.unique(column[order], return_index=True)
        for value, rows in zip(values, np.split(order, starts[1:])):
            if np.isfinite(value):
                found.setdefault(int(value), []).append((path, rows))
    return found
