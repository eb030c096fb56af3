"""LeRobot data sets, v2.1 and v3 (Parquet tables and video files), without the lerobot package.

`action` must be seven numbers in this project's convention (metres, radians, openness); else it is malformed.
"""
import io
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from vgps_training.data.episode import Episode, Malformed, check


class VideoFrames(Sequence):
    """Frames of one episode within a video file, decoded on first access, all at once (seeking costs as much)."""

    def __init__(self, path: Path, start: float, length: int, fps: float):
        self.path, self.start, self.length, self.fps = path, start, length, fps
        self._frames: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB. Raises ValueError where the video ends too early."""
        if self._frames is None:
            self._frames = self._decode()
        return self._frames[index]

    def _decode(self) -> list[np.ndarray]:
        frames, tolerance = [], 0.5 / self.fps
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            container.seek(int(self.start / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time < self.start - tolerance:
                    continue
                frames.append(frame.to_ndarray(format='rgb24'))
                if len(frames) == self.length:
                    return frames
        raise ValueError(f'{self.path} holds {len(frames)} of {self.length} frames from {self.start:.2f} s')


class StoredFrames(Sequence):
    """Frames kept as encoded images in the table."""

    def __init__(self, cells: list[dict]):
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB."""
        return np.asarray(Image.open(io.BytesIO(self.cells[index]['bytes'])).convert('RGB'))


def is_lerobot(folder: Path) -> bool:
    """Tell whether a folder is a LeRobot data set."""
    return (folder / 'meta/info.json').exists()


def read(folder: Path, camera: str = '') -> Iterator[Episode | Malformed]:
    """Yield the episodes. `camera` is an `observation.images.*` feature; by default the first one.

    An episode is a success unless a `success` or `next.success` column says otherwise at its last step: published
    data sets are demonstrations. Raises ValueError for a version or a camera that is not there.
    """
    info = json.loads((folder / 'meta/info.json').read_text())
    version = info['codebase_version']
    if not version.startswith(('v2.1', 'v3.')):
        raise ValueError(f'{folder}: LeRobot {version}; this reader knows v2.1 and v3.0')
    cameras = [name for name, feature in info['features'].items() if feature['dtype'] in ('video', 'image')]
    if not cameras or (camera and camera not in cameras):
        raise ValueError(f"{folder}: camera '{camera}' is not among {cameras}")
    camera = camera or cameras[0]
    episodes = _episodes_v2(folder, info, camera) if version.startswith('v2.1') else _episodes_v3(folder, info, camera)
    for index, table, video, start, task in episodes:
        source = f'{folder}#{index}'
        if isinstance(table, Exception):
            yield Malformed(source, f'{type(table).__name__}: {table}')
        else:
            yield _episode(table, video, start, task, camera, info['fps'], source)


def _episode(table, video: Path | None, start: float, task: str, camera: str, fps: float,
             source: str) -> Episode | Malformed:
    try:
        actions = np.array(table.column('action').to_pylist(), np.float32)
    except (KeyError, ValueError, TypeError) as error:
        return Malformed(source, f'action column: {error}')
    if video is not None:
        if not video.exists():
            return Malformed(source, f'video {video.name} is missing')
        frames: Sequence = VideoFrames(video, start, len(actions), fps)
    else:
        frames = StoredFrames(table.column(camera).to_pylist())
    success = True
    for name in ('success', 'next.success'):
        if name in table.column_names:
            success = bool(np.ravel(table.column(name)[-1].as_py())[0])
    return check(Episode(frames, actions, task, success, source))


def _episodes_v2(folder: Path, info: dict, camera: str):
    tasks = {line['task_index']: line['task'] for line in _json_lines(folder / 'meta/tasks.jsonl')}
    for line in _json_lines(folder / 'meta/episodes.jsonl'):
        index = line['episode_index']
        place = {'episode_chunk': index // info['chunks_size'], 'episode_index': index}
        try:
            table = pq.read_table(folder / info['data_path'].format(**place))
            video = None
            if info['features'][camera]['dtype'] == 'video':
                video = folder / info['video_path'].format(video_key=camera, **place)
            yield index, table, video, 0.0, tasks[table.column('task_index')[0].as_py()]
        except (OSError, KeyError, ValueError) as error:
            yield index, error, None, 0.0, ''


def _episodes_v3(folder: Path, info: dict, camera: str):
    tasks_table = pq.read_table(folder / 'meta/tasks.parquet').to_pylist()
    text = 'task' if tasks_table and 'task' in tasks_table[0] else '__index_level_0__'  # the text is pandas' index
    tasks = {row['task_index']: row[text] for row in tasks_table}
    path, file_table, starts = None, None, []
    for meta in sorted((folder / 'meta/episodes').rglob('*.parquet')):
        for row in pq.read_table(meta).to_pylist():
            index = row['episode_index']
            try:
                here = folder / info['data_path'].format(chunk_index=row['data/chunk_index'],
                                                         file_index=row['data/file_index'])
                if here != path:
                    file_table, path = pq.read_table(here), here
                    starts = file_table.column('episode_index').to_pylist()
                first = starts.index(index)
                table = file_table.slice(first, bisect_right(starts, index) - first)
                video, start = None, 0.0
                if info['features'][camera]['dtype'] == 'video':
                    video = folder / info['video_path'].format(
                        video_key=camera, chunk_index=row[f'videos/{camera}/chunk_index'],
                        file_index=row[f'videos/{camera}/file_index'])
                    start = row[f'videos/{camera}/from_timestamp']
                yield index, table, video, start, tasks[table.column('task_index')[0].as_py()]
            except (OSError, KeyError, ValueError) as error:
                yield index, error, None, 0.0, ''


def _json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
