"""Episodes of LeRobot data sets, v2.0, v2.1 and v3.0 (Parquet tables with videos or images).

Rows, pictures and meaning are taken from nowhere but the data set's own words: the rows by `episode_index` (a stale
file index is found out), the frames by `timestamp` within the episode's own window, the actions by
`features.action.names`. Where they disagree the episode is refused with the reason.
"""
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from vgps_msgs_py import images
from vgps_training.data.checks import check, flat_rewards
from vgps_training.data.episode import PLAIN, DataError, Episode, Frames, Malformed, Reading
from vgps_training.data.lerobot import columns, judged, meta, video
from vgps_training.data.naming import ended_in_words, judging
from vgps_training.data.states import turns_of

STORED_RATE_SLACK = 1.5  # times the usual step: a longer one is a gap
RATE_SLACK = 8           # times: tables are thinned out, but not seconds taken for milliseconds


class StoredFrames(Frames):
    """Frames kept as encoded images in the table, or in files beside it."""

    def __init__(self, cells: pa.ChunkedArray, folder: Path):
        self.cells, self.folder = cells, folder

    def __len__(self) -> int:
        return len(self.cells)

    def since(self, step: int) -> 'StoredFrames':
        """Return the frames from a step on."""
        return StoredFrames(self.cells.slice(step), self.folder)

    def same(self) -> list[bool]:
        """Compare each cell with the one before."""
        return [one == after for one, after in pairwise(cell.as_py() for cell in self.cells)]

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB. Raises ValueError where there is none."""
        cell = self.cells[range(len(self))[index]].as_py()
        if isinstance(cell, dict):
            if cell.get('bytes'):
                return images.decode(cell['bytes'])
            if cell.get('path') and '..' not in Path(cell['path']).parts and not Path(cell['path']).is_absolute():
                return images.decode((self.folder / cell['path']).read_bytes())
        if isinstance(cell, bytes):
            return images.decode(cell)
        if isinstance(cell, list):
            return _pixels(cell)
        raise DataError('the cell holds no image')


def _pixels(cell: list) -> np.ndarray:
    """Return nested lists as (H, W, 3) uint8; raises DataError that says what else they hold."""
    try:
        pixels = np.asarray(cell)
    except ValueError:
        raise DataError('the cell holds lists of different lengths, not an image') from None
    if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.kind in 'iu' and pixels.size and (
            0 <= pixels.min() and pixels.max() <= 255):
        return pixels.astype(np.uint8)
    raise DataError(f'the cell holds {pixels.dtype} of the shape {pixels.shape}; as numbers an image is (height, '
                    'width, 3), whole and 0 to 255: store PNG instead')


def is_lerobot(folder: Path) -> bool:
    """Tell whether a folder is a LeRobot data set."""
    return (folder / 'meta/info.json').exists()


def read(folder: Path, reading: Reading = PLAIN) -> Iterator[Episode | Malformed]:
    """Yield the episodes, in the order of the metadata.

    An episode is a success if any `success` or `next.success` of it is True, a failure if all are False, unjudged if
    they are null, and a success where there is no such column: published data sets are demonstrations. Where
    `reading.outcomes` names a table of labels, that one judges.

    Raises DataError for a version, an action or a camera that is not there or cannot be used.
    """
    folder = Path(folder)
    info = meta.Info(folder)
    parts = [name for name in info.features if name.startswith('action')]
    if parts and 'action' not in parts:
        raise DataError(f"{folder} has no feature 'action'; features with that beginning: {', '.join(parts)}")
    camera, texts = info.camera(reading.camera), meta.tasks(info)
    listed = list(meta.entries(info, camera))
    if isinstance(info.episodes, int) and info.episodes != len(listed):
        yield Malformed(str(folder), f'info.json states {info.episodes} episodes, the metadata list {len(listed)}')
    source = _Source(info, camera, texts, [e for e in listed if isinstance(e, meta.Entry)], reading)
    if len(source.listed) == len(listed) and (unlisted := source.unlisted()):
        yield Malformed(str(folder), f'{len(unlisted)} episodes have rows in data/ and are not in the list of episodes '
                                     f'(first: {unlisted[0]}): partly deleted, or a list of another version')
    for entry in listed:
        if isinstance(entry, DataError):
            yield Malformed(str(folder), str(entry))
            continue
        name = f'{folder}#{entry.index}'
        try:
            episode, fingers = source.episode(entry, name)
        except DataError as error:
            yield Malformed(name, str(error))
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            yield Malformed(name, f'{type(error).__name__}: {error}')
        else:
            yield check(episode, reading, fingers)


class _Source:
    """The files of a data set: the last table that was read, the rows of every episode, the frames of every video."""

    def __init__(self, info: meta.Info, camera: str, texts: dict[int, str], listed: list[meta.Entry],
                 reading: Reading):
        self.info, self.camera, self.texts, self.listed = info, camera, texts, listed
        self.rows = None if info.old else meta.row_ranges(info)
        self.labels, self.gripper = reading.outcomes, reading.gripper
        self.converted = (reading.translation_unit, reading.rotation_unit) != (1.0, 1.0)
        self.outcomes = judged.outcomes(info.folder, self.labels) if self.labels else {}
        self._tables: dict[Path, pa.Table] = {}
        self._windows: dict[Path, dict] = {}

    def unlisted(self) -> list:
        """Return the episodes, or their files, that hold rows and that the metadata do not list."""
        if self.rows is not None:
            return sorted(self.rows.keys() - {entry.index for entry in self.listed})
        known = {entry.file for entry in self.listed}
        return sorted(path.name for path in (self.info.folder / 'data').rglob('*.parquet') if path not in known)

    def episode(self, entry: meta.Entry, source: str) -> tuple[Episode, np.ndarray | None]:
        """Return an episode and a measure of its fingers, if any; raises DataError."""
        table, notes = self._table(entry)
        if 'action' not in table.column_names:
            raise DataError("the table has no column 'action'")
        numbers = _numbers(table, 'action', columns.matrix)
        places, unnamed, closed = columns.action_places(self.info.features.get('action', {}), numbers.shape[1],
                                                        self.converted)
        actions = numbers[:, places]
        if closed and self.gripper == 'openness':  # otherwise the user said what it is, and it is converted later
            actions[:, 6] = 1 - actions[:, 6]
            notes = (*notes, 'the gripper is a closedness by its name: turned into openness')
        if columns.metres_of_gripper(self.info.features.get('action', {}), places, actions):
            raise DataError(f'the gripper is a width of at most {actions[:, 6].max():.3g}: metres, not an openness '
                            '0..1; divide it by what the open gripper reads')
        self._whole(table)
        times = self._times(table)
        if entry.video is None:
            if self.camera not in table.column_names:
                raise DataError(f"the table has no column '{self.camera}'")
            frames: Frames = StoredFrames(table.column(self.camera), self.info.folder)
        else:
            frames, note = self._video(entry, times)
            notes = (*notes, *note)
        success, judged = self._success(table, entry)
        states, fingers, odd = self._states(table, actions)
        rate = 1 / float(np.median(np.diff(times))) if len(times) > 1 else self.info.fps
        if entry.video is None and not 0.95 < rate / self.info.fps < 1.05:
            notes = (*notes, f'timestamps run at {rate:.3g} Hz where info.json says {self.info.fps:g}: believed')
        episode = Episode(frames, actions, self._instruction(table, entry), success, source, states, self.camera, rate,
                          (*notes, *unnamed, *judged, *odd))
        return episode, fingers

    def _table(self, entry: meta.Entry) -> tuple[pa.Table, tuple[str, ...]]:
        notes = ()
        if self.rows is None:
            table = meta.read_parquet(entry.file)
            if 'episode_index' in table.column_names:
                held = set(table.column('episode_index').to_pylist())
                if held and held != {entry.index}:
                    raise DataError(f'{entry.file.name} holds rows of episode {", ".join(map(str, list(held)[:5]))}')
        else:
            places = self.rows.get(entry.index, [])
            if not places:
                meta.read_parquet(entry.file, [])  # says so where the file is missing or damaged
                raise DataError('no data file holds rows of this episode')
            if {path for path, _ in places} != {entry.file}:
                notes = ('the file index in the metadata is stale: the rows were found in another file',)
            table = pa.concat_tables(self._file(path).take(rows) for path, rows in places)
        if not table.num_rows:
            raise DataError('it has no rows')
        if entry.length is not None and table.num_rows != entry.length:
            raise DataError(f'the table has {table.num_rows} rows, the metadata say {entry.length}')
        if 'frame_index' in table.column_names:
            order = _numbers(table, 'frame_index')
            if len(np.unique(order)) != len(order):
                raise DataError('two rows have the same frame_index')
            if (np.diff(order) < 0).any():
                table = table.take(np.argsort(order))
        return table, notes

    def _file(self, path: Path) -> pa.Table:
        if path not in self._tables:
            self._tables = {path: meta.read_parquet(path)}  # one at a time: they may be large
        return self._tables[path]

    @staticmethod
    def _whole(table: pa.Table) -> None:
        """Raise DataError where an episode ends before its last row and another begins."""
        if 'next.done' in table.column_names:
            done = _numbers(table, 'next.done') == 1
            again = np.flatnonzero(done[:-1] & ~done[1:])
            if len(again):
                raise DataError(f'next.done is set at row {again[0]} of {len(done)}, and rows go on: two episodes in '
                                'one')

    def _times(self, table: pa.Table) -> np.ndarray:
        """Return the rows' times (T,) [s]."""
        if 'timestamp' not in table.column_names:
            numbers = 'frame_index' in table.column_names
            times = _numbers(table, 'frame_index') if numbers else np.arange(table.num_rows)
            times = times / self.info.fps
        else:
            times = _numbers(table, 'timestamp')
        if len(times) > 1:
            steps = np.diff(times)
            if not np.isfinite(times).all() or steps.min() <= 0:
                raise DataError('timestamps do not increase from row to row')
            if steps.max() > STORED_RATE_SLACK * np.median(steps):
                raise DataError(f'timestamps jump by {steps.max():.3g} s after row {int(steps.argmax())}, usually '
                                f'{np.median(steps):.3g} s: rows are missing')
            if not 1 / RATE_SLACK < (rate := 1 / np.median(steps)) / self.info.fps < RATE_SLACK:
                raise DataError(f'timestamps run at {rate:.3g} Hz where info.json says {self.info.fps:g}: they may not '
                                'be seconds')
        return times

    def _video(self, entry: meta.Entry, times: np.ndarray) -> tuple[video.VideoFrames, tuple[str, ...]]:
        frames = video.frame_times(entry.video)
        if entry.video not in self._windows:
            self._windows[entry.video] = video.locate(frames, {
                e.index: e.window for e in self.listed if e.video == entry.video})
        found = self._windows[entry.video][entry.index]
        if isinstance(found, DataError):
            raise found
        first, after, note = found
        if after - first < 1:
            raise DataError('its window holds no frame of the video')
        chosen, moved = video.match(frames[first:after], times)
        return video.VideoFrames(entry.video, chosen), tuple(filter(None, (note, moved)))

    def _success(self, table: pa.Table, entry: meta.Entry) -> tuple[bool | None, tuple[str, ...]]:
        if self.labels:
            success, count = self.outcomes.get(entry.index, (None, 0))
            if count != table.num_rows:
                raise DataError(f"'{self.labels}' judges {count} of its {table.num_rows} steps")
            return success, (f"its outcome is taken from '{self.labels}'",)
        rows = {name: table.column(name) for name in table.column_names if not name.startswith('observation')}
        told = {name: pa.chunked_array([pa.array([value])]) for name, value in entry.judged}
        judged = {name: column for name, column in rows.items() if column.null_count < table.num_rows}
        for values in (judged, told, rows):
            name, _ = judging(list(values))  # the rows count more than the metadata, which count more than null
            if name is not None:
                try:
                    success, notes = columns.outcome(values[name])
                except DataError as error:
                    raise DataError(f"'{name}': {error}") from error
                usual = name in ('next.success', 'success')
                return success, notes if usual else (*notes, f"its outcome is by '{name}'")
        if others := judging([*judged, *told])[1]:
            raise DataError(f"'{others[0]}' tells how it ended, but in an unknown form; write it as 'success', true "
                            "or false")
        for name, column in rows.items():
            if pa.types.is_string(column.type) and (said := ended_in_words(column[-1].as_py())):
                return said[0], (f"its outcome is by '{name}', which says '{said[1]}'",)
        notes = ('no success column: counted as a demonstration that succeeded',)
        if 'next.reward' in rows:
            notes = (*notes, *flat_rewards(_numbers(table, 'next.reward')))
        return True, notes

    def _states(self, table: pa.Table, actions: np.ndarray
                ) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
        name = 'observation.state'
        if name not in table.column_names or name not in self.info.features:
            return None, None, ()
        try:
            numbers = columns.matrix(table.column(name))
        except DataError as error:  # actions and pictures do without
            return None, None, (f"the column '{name}' {error}: left out",)
        places, fingers = columns.state_places(self.info.features[name], numbers.shape[1])
        opened, states, notes = np.abs(numbers[:, fingers]).sum(1) if fingers else None, None, ()
        if places is not None:
            states = numbers[:, places]
            finite = np.isfinite(states).all() and np.isfinite(actions).all()  # else refused, or left out, by name
            if columns.by_axes(self.info.features[name], places) and finite and len(states) > 1:
                turns, note = turns_of(states[:, 3:6], actions)
                states = None if turns is None else np.hstack([states[:, :3], turns, states[:, 6:]])
                notes = (note,) if note else ()
        return states, opened, notes

    def _instruction(self, table: pa.Table, entry: meta.Entry) -> str:
        blank, told = None, [text for text in entry.tasks if text.strip()]
        for name in ('task_index', 'language_instruction', 'task'):
            if name not in table.column_names or (name == 'task_index' and not self.texts):
                continue
            cells = [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell
                     for cell in table.column(name).to_pylist()]
            values = list({str(cell): cell for cell in cells}.values())
            if len(values) != 1:
                raise DataError(f'{len(values)} tasks within one episode ({name})')
            text = self.texts.get(values[0]) if name == 'task_index' else values[0]
            if not isinstance(text, str):
                raise DataError(f'task {values[0]} is not in the list of tasks' if name == 'task_index' else
                                f'its {name} is not a text')
            if not text.strip():  # some write the text elsewhere
                blank = text
                continue
            if told and text not in told:
                raise DataError(f"its rows say '{text[:80]}', the metadata of the episode '{told[0][:80]}'")
            return text
        if len(told) == 1:
            return told[0]
        if blank is not None:
            return blank
        raise DataError('no instruction: neither a list of tasks nor a text in the table')


def _numbers(table: pa.Table, name: str, read: Callable[[pa.ChunkedArray], np.ndarray] = columns.vector) -> np.ndarray:
    """Return a column as numbers; raises DataError that names it."""
    try:
        return read(table.column(name))
    except DataError as error:
        raise DataError(f"the column '{name}' {error}") from error
