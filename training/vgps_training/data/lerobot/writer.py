"""Write episodes as a LeRobot v3.0 data set, which lerobot itself opens and this project's reader reads back."""
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vgps_training.data.episode import DataError, Episode
from vgps_training.data.lerobot.columns import SLOTS

FRAMES_PER_FILE = 20_000   # of a video and a table: some 100 MB of 256 x 256 pixels
STATISTICS_SIDE = 160      # pixels of a picture's longer side that its statistics look at
QUANTILES = {'q01': 0.01, 'q10': 0.1, 'q50': 0.5, 'q90': 0.9, 'q99': 0.99}
NUMBERS = {'timestamp': pa.float32(), 'frame_index': pa.int64(), 'episode_index': pa.int64(), 'index': pa.int64(),
           'task_index': pa.int64()}


@dataclass
class Writer:
    """A data set under construction; `close` writes the metadata that make it one.

    All episodes have the cameras, their pictures' sizes, the states and the extra columns of the first.
    """

    folder: Path
    fps: float
    camera: str = ''                                    # name of the first picture feature, by default the source's
    robot: str = 'widowx'
    tasks: dict[str, int] = field(default_factory=dict)
    _rows: list[pa.Table] = field(default_factory=list)
    _episodes: list[dict] = field(default_factory=list)
    _columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _cameras: list['_Camera'] = field(default_factory=list)
    _in_file: int = FRAMES_PER_FILE  # frames in the present file: the first episode begins one
    _file: int = -1
    _total: int = 0

    def __post_init__(self):
        self.folder.mkdir(parents=True)  # a data set is never overwritten

    @property
    def features(self) -> tuple[str, ...]:
        """The pictures' features, in the order of an episode's cameras; empty before the first one."""
        return tuple(camera.feature for camera in self._cameras)

    @property
    def episodes(self) -> int:
        """How many were added."""
        return len(self._episodes)

    def add(self, episode: Episode) -> None:
        """Append an episode whose outcome is known. Raises DataError where it does not fit the ones before."""
        columns = self._values(episode)
        if self._columns and (differing := columns.keys() ^ (self._columns.keys() - NUMBERS.keys())):
            raise DataError(f'it differs from the first episode in having or lacking {", ".join(sorted(differing))}')
        sources = {episode.camera: episode.frames, **dict(episode.beside)}
        cameras = self._cameras or self._new_cameras(sources)
        if len(cameras) != len(sources):
            raise DataError(f'it has {len(sources)} cameras ({", ".join(sources)}), the first episode '
                            f'{len(cameras)} ({", ".join(camera.feature for camera in cameras)})')
        # all of them before one is written: half an episode must not stay in the video
        pictures = [camera.fitting(frames) for camera, frames in zip(cameras, sources.values())]
        self._cameras = cameras
        if self._in_file >= FRAMES_PER_FILE:
            self._next_file()
        count, number, start = len(episode.actions), len(self._episodes), self._in_file
        for camera, frames in zip(cameras, pictures):
            camera.write(frames)
        task = self.tasks.setdefault(episode.instruction, len(self.tasks))
        columns |= {'timestamp': np.arange(count) / self.fps, 'frame_index': np.arange(count),
                    'episode_index': np.full(count, number), 'index': self._total + np.arange(count),
                    'task_index': np.full(count, task)}
        self._rows.append(pa.table({name: _column(name, values) for name, values in columns.items()}))
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        place = {'chunk_index': 0, 'file_index': self._file}
        window = {'from_timestamp': start / self.fps, 'to_timestamp': (start + count) / self.fps}
        self._episodes.append({
            'episode_index': number, 'tasks': [episode.instruction], 'length': count,
            **{f'data/{k}': v for k, v in place.items()}, 'dataset_from_index': self._total,
            'dataset_to_index': self._total + count,
            **{f'videos/{name}/{k}': v for name in self.features for k, v in (place | window).items()},
            'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0})
        self._in_file += count
        self._total += count

    def close(self) -> None:
        """Finish. Raises DataError where no episode was added."""
        if not self._episodes:
            raise DataError('no episode could be exported')
        self._finish_file()
        meta = self.folder / 'meta'
        (meta / 'episodes/chunk-000').mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), meta / 'episodes/chunk-000/file-000.parquet')
        tasks = pa.table({'task_index': list(self.tasks.values()), 'task': list(self.tasks)})
        pq.write_table(tasks.replace_schema_metadata({'pandas': json.dumps({  # lerobot takes the index for the text
            'index_columns': ['task'], 'column_indexes': [], 'columns': [
                {'name': 'task_index', 'field_name': 'task_index', 'pandas_type': 'int64', 'numpy_type': 'int64',
                 'metadata': None},
                {'name': 'task', 'field_name': 'task', 'pandas_type': 'unicode', 'numpy_type': 'object',
                 'metadata': None}], 'pandas_version': '2.0.0'})}), meta / 'tasks.parquet')
        statistics = {name: _described(np.concatenate(parts).reshape(self._total, -1).astype(np.float64))
                      for name, parts in self._columns.items()}
        statistics |= {camera.feature: camera.statistics() for camera in self._cameras}
        (meta / 'stats.json').write_text(json.dumps(statistics))
        (meta / 'info.json').write_text(json.dumps(self._information(), indent=2))  # last: it makes this a data set

    def _values(self, episode: Episode) -> dict[str, np.ndarray]:
        count = len(episode.actions)
        if episode.success is None:
            raise DataError('outcome was never judged')
        values = {'action': np.asarray(episode.actions, np.float32),
                  'next.success': (np.arange(count) == count - 1) & bool(episode.success)}
        if episode.states is not None:
            values['observation.state'] = np.asarray(episode.states, np.float32)
        for name, extra in episode.extras:
            if name not in self._columns and self._columns:
                continue  # the first episode had none
            width = self._columns[name][0].shape[1:] if self._columns else extra.shape[1:]
            if extra.ndim == 2:  # as many candidates as in the first episode
                missing = max(0, width[0] - extra.shape[1])
                extra = np.pad(extra[:, :width[0]], ((0, 0), (0, missing)), constant_values=np.nan)
            values[name] = extra
        for name, parts in self._columns.items():
            if name.startswith('steering.') and name not in values:
                nothing = np.nan if parts[0].dtype.kind == 'f' else -1
                values[name] = np.full((count, *parts[0].shape[1:]), nothing, parts[0].dtype)
        return values

    def _new_cameras(self, sources: dict[str, Sequence[np.ndarray]]) -> list['_Camera']:
        names = [camera_name(source) for source in sources]
        names[0] = self.camera or names[0]
        if len(set(names)) < len(names):
            raise DataError(f'its cameras {", ".join(sources)} would both be called {names[0]}: give one a --name')
        return [_Camera(f'observation.images.{name}', frames[0].shape[:2])
                for name, frames in zip(names, sources.values())]

    def _next_file(self) -> None:
        if self._rows:
            self._finish_file()
        self._file += 1
        self._in_file = 0
        for camera in self._cameras:
            path = self.folder / f'videos/{camera.feature}/chunk-000/file-{self._file:03d}.mp4'
            camera.video = _Video(path, self.fps, camera.shape)

    def _finish_file(self) -> None:
        for camera in self._cameras:
            camera.video.close()
        path = self.folder / f'data/chunk-000/file-{self._file:03d}.parquet'
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(self._rows), path)
        self._rows.clear()

    def _information(self) -> dict:
        features = {camera.feature: camera.information(self.fps) for camera in self._cameras}
        for name, parts in self._columns.items():
            kind = NUMBERS[name].to_pandas_dtype() if name in NUMBERS else parts[0].dtype
            features[name] = {'dtype': np.dtype(kind).name,
                              'shape': list(parts[0].shape[1:]) or [1],
                              'names': list(SLOTS) if name in ('action', 'observation.state') else None}
        return {'codebase_version': 'v3.0', 'robot_type': self.robot, 'total_episodes': len(self._episodes),
                'total_frames': self._total, 'total_tasks': len(self.tasks), 'chunks_size': 1000,
                'data_files_size_in_mb': 100, 'video_files_size_in_mb': 200, 'fps': self.fps,
                'splits': {'train': f'0:{len(self._episodes)}'},
                'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
                'video_path': 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
                'features': features}


@dataclass
class _Camera:
    """One picture feature: its size, the video in which it is being written, how often each level was seen."""

    feature: str
    shape: tuple[int, int]  # height, width of the source
    video: '_Video | None' = None
    frames: int = 0
    levels: np.ndarray = field(default_factory=lambda: np.zeros((3, 256), np.int64))

    def fitting(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return an episode's pictures, decoded; raises DataError where one is of another size."""
        pictures = []
        for step, picture in enumerate(frames):
            if picture.shape[:2] != self.shape:
                raise DataError(f'its images of {self.feature} are {picture.shape[1]} x {picture.shape[0]} at step '
                                f'{step}, those before {self.shape[1]} x {self.shape[0]}')
            pictures.append(picture)
        return pictures

    def write(self, pictures: list[np.ndarray]) -> None:
        """Append pictures that fit."""
        every = -(-max(self.shape) // STATISTICS_SIDE)
        for picture in pictures:
            for channel, counts in enumerate(self.levels):
                counts += np.bincount(picture[::every, ::every, channel].ravel(), minlength=256)
            self.video.write(picture)
        self.frames += len(pictures)

    def information(self, fps: float) -> dict:
        """Return the feature as info.json describes it."""
        height, width = (n + n % 2 for n in self.shape)
        return {'dtype': 'video', 'shape': [height, width, 3], 'names': ['height', 'width', 'channels'],
                'info': {'video.height': height, 'video.width': width, 'video.codec': 'h264',
                         'video.pix_fmt': 'yuv420p', 'video.is_depth_map': False, 'video.fps': fps,
                         'video.channels': 3, 'has_audio': False}}

    def statistics(self) -> dict[str, list]:
        """Return the statistics of the levels, 0..1 by channel, as lerobot lays them out."""
        values, total = np.arange(256) / 255, self.levels.sum(1)
        mean = self.levels @ values / total
        seen = [np.flatnonzero(counts) for counts in self.levels]
        found = {'min': [values[s[0]] for s in seen], 'max': [values[s[-1]] for s in seen], 'mean': mean,
                 'std': np.sqrt(np.maximum(self.levels @ values**2 / total - mean**2, 0))}
        for name, share in QUANTILES.items():
            found[name] = [values[np.searchsorted(np.cumsum(counts), share * counts.sum())] for counts in self.levels]
        return {name: [[[float(x)]] for x in numbers] for name, numbers in found.items()} | {'count': [self.frames]}


class _Video:
    """One file of constant rate, every second frame a key frame as lerobot writes them: any frame is near.

    With so many key frames the search for motion saves next to nothing: the fastest preset needs a third of the time
    for files a quarter to a half larger, at the same error.
    """

    def __init__(self, path: Path, fps: float, shape: tuple[int, int]):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), 'w')
        self._stream = self._container.add_stream('libx264', rate=Fraction(fps).limit_denominator(1000))
        self._stream.height, self._stream.width = (n + n % 2 for n in shape)
        self._stream.pix_fmt = 'yuv420p'
        self._stream.options = {'crf': '18', 'g': '2', 'bf': '0', 'preset': 'ultrafast'}

    def write(self, picture: np.ndarray) -> None:
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(_even(picture), format='rgb24')))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def camera_name(source: str) -> str:
    """Return a feature's name for a camera: the telling parts of its topic or feature."""
    parts = [p for p in re.split(r'[^A-Za-z0-9_]+', source) if p not in (
        '', 'vgps', 'image', 'image_raw', 'image_rect', 'images', 'compressed', 'color', 'observation')]
    return '_'.join(parts).lower() or 'image'


def _even(picture: np.ndarray) -> np.ndarray:
    """Return a picture of even sides, as 4:2:0 video needs; the last row or column is repeated."""
    height, width = picture.shape[:2]
    if not (height % 2 or width % 2):
        return picture
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), 'edge'))


def _column(name: str, values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values, NUMBERS.get(name))
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _described(values: np.ndarray) -> dict[str, list]:
    return {'min': values.min(0).tolist(), 'max': values.max(0).tolist(), 'mean': values.mean(0).tolist(),
            'std': values.std(0).tolist(), 'count': [len(values)],
            **{name: np.quantile(values, share, 0).tolist() for name, share in QUANTILES.items()}}
