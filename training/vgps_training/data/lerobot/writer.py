"""Write episodes as a LeRobot v3.0 data set, which lerobot itself opens and this project's reader reads back."""
import json
import re
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
SAMPLED_FRAMES = 200       # for the statistics of the pictures
QUANTILES = {'q01': 0.01, 'q10': 0.1, 'q50': 0.5, 'q90': 0.9, 'q99': 0.99}
NUMBERS = {'timestamp': pa.float32(), 'frame_index': pa.int64(), 'episode_index': pa.int64(), 'index': pa.int64(),
           'task_index': pa.int64()}


@dataclass
class Writer:
    """A data set under construction; `close` writes the metadata that make it one.

    All episodes have the pictures' size, the states and the extra columns of the first.
    """

    folder: Path
    fps: float
    camera: str = ''                                    # name of the picture feature, by default the source's
    robot: str = 'widowx'
    tasks: dict[str, int] = field(default_factory=dict)
    _rows: list[pa.Table] = field(default_factory=list)
    _episodes: list[dict] = field(default_factory=list)
    _sampled: list[np.ndarray] = field(default_factory=list)
    _columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _shape: tuple[int, int] | None = None
    _video: '_Video | None' = None
    _file: int = -1
    _total: int = 0

    def __post_init__(self):
        self.folder.mkdir(parents=True)  # a data set is never overwritten

    def add(self, episode: Episode) -> None:
        """Append an episode whose outcome is known. Raises DataError where it does not fit the ones before."""
        columns = self._values(episode)
        if self._columns and (differing := columns.keys() ^ (self._columns.keys() - NUMBERS.keys())):
            raise DataError(f'it differs from the first episode in having or lacking {", ".join(sorted(differing))}')
        shape = np.shape(episode.frames[0])[:2]
        if self._shape is None:
            self._shape = shape
            self.camera = f'observation.images.{self.camera or camera_name(episode.camera)}'
        if shape != self._shape:
            raise DataError(f'its pictures are {shape[1]} x {shape[0]}, those before '
                            f'{self._shape[1]} x {self._shape[0]}')
        if self._video is None or self._video.frames >= FRAMES_PER_FILE:
            self._next_file()
        count, number, start = len(episode.actions), len(self._episodes), self._video.frames
        frames = self._decoded(episode)  # all of them before one is written: half an episode must not stay in the video
        for picture in frames:
            self._video.write(picture)
        task = self.tasks.setdefault(episode.instruction, len(self.tasks))
        columns |= {'timestamp': np.arange(count) / self.fps, 'frame_index': np.arange(count),
                    'episode_index': np.full(count, number), 'index': self._total + np.arange(count),
                    'task_index': np.full(count, task)}
        self._rows.append(pa.table({name: _column(name, values) for name, values in columns.items()}))
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        place = {'chunk_index': 0, 'file_index': self._file}
        self._episodes.append({
            'episode_index': number, 'tasks': [episode.instruction], 'length': count,
            **{f'data/{k}': v for k, v in place.items()}, 'dataset_from_index': self._total,
            'dataset_to_index': self._total + count, **{f'videos/{self.camera}/{k}': v for k, v in place.items()},
            f'videos/{self.camera}/from_timestamp': start / self.fps,
            f'videos/{self.camera}/to_timestamp': (start + count) / self.fps,
            'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0})
        self._total += count

    def close(self) -> None:
        """Finish. Raises DataError where no episode was added."""
        if not self._episodes:
            raise DataError('not one episode could be exported')
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
        (meta / 'stats.json').write_text(json.dumps(self._statistics()))
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

    def _decoded(self, episode: Episode) -> list[np.ndarray]:
        pictures = []
        every = max(1, len(episode.actions) // 4)
        for step, frame in enumerate(episode.frames):
            if frame.shape[:2] != self._shape:
                raise DataError(f'its pictures change their size at step {step}')
            if step % every == 0 and len(self._sampled) < SAMPLED_FRAMES:
                self._sampled.append(frame[::2, ::2])
            pictures.append(_even(frame))
        return pictures

    def _next_file(self) -> None:
        if self._video is not None:
            self._finish_file()
        self._file += 1
        self._video = _Video(self.folder / f'videos/{self.camera}/chunk-000/file-{self._file:03d}.mp4', self.fps)

    def _finish_file(self) -> None:
        self._video.close()
        path = self.folder / f'data/chunk-000/file-{self._file:03d}.parquet'
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(self._rows), path)
        self._rows.clear()

    def _information(self) -> dict:
        height, width = (n + n % 2 for n in self._shape)
        features = {self.camera: {
            'dtype': 'video', 'shape': [height, width, 3], 'names': ['height', 'width', 'channels'],
            'info': {'video.height': height, 'video.width': width, 'video.codec': 'h264', 'video.pix_fmt': 'yuv420p',
                     'video.is_depth_map': False, 'video.fps': self.fps, 'video.channels': 3, 'has_audio': False}}}
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

    def _statistics(self) -> dict:
        pixels = np.concatenate([frame.reshape(-1, 3) for frame in self._sampled]) / 255
        found = {name: _described(np.concatenate(parts).reshape(self._total, -1).astype(np.float64))
                 for name, parts in self._columns.items()}
        return found | {self.camera: {k: v if k == 'count' else [[[x]] for x in v]
                                      for k, v in _described(pixels).items()}}


class _Video:
    """One file of constant rate, every second frame a key frame as lerobot writes them: any frame is near."""

    def __init__(self, path: Path, fps: float):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames, self._container = 0, av.open(str(path), 'w')
        self._stream = self._container.add_stream('libx264', rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = 'yuv420p'
        self._stream.options = {'crf': '18', 'g': '2', 'bf': '0', 'preset': 'veryfast'}

    def write(self, picture: np.ndarray) -> None:
        if not self.frames:
            self._stream.height, self._stream.width = picture.shape[:2]
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        self.frames += 1

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
