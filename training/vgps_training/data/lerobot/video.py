"""The frames of LeRobot's video files, found by their times; an episode whose frames cannot be identified is refused.

A v3 file holds many episodes one after the other. Each is told by its window (`from_timestamp`, `to_timestamp`), and
windows that were summed up badly point at a neighbour's pictures: so the windows are held against the number of frames
in the file and the number of rows in the table before a single picture is believed.
"""
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from vgps_msgs_py.safetensors_header import left_behind
from vgps_training.data.episode import DataError, Frames

TOLERANCE = 1e-3  # [s] between a row's time and its frame's: rounding of the container's clock, far below one frame


class VideoFrames(Frames):
    """Frames of one episode within a video file, decoded one after the other as they are asked for."""

    def __init__(self, path: Path, times: np.ndarray):
        self.path, self.times = path, times  # (T,) seconds in the file
        self._decoder: Iterator[np.ndarray] | None = None
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.times)

    def since(self, step: int) -> 'VideoFrames':
        """Return the frames from a step on."""
        return VideoFrames(self.path, self.times[step:])

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB. Raises DataError where the video holds no such frame."""
        index = range(len(self))[index]
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        if self._decoder is None or self._last is None or self._last[0] != index - 1:
            self._decoder = self._decode(index)
        try:
            self._last = (index, next(self._decoder))
        except (StopIteration, av.error.FFmpegError, OSError, ValueError) as error:
            self._decoder = self._last = None
            raise DataError(f'{self.path.name}: the frame at {self.times[index]:.3f} s cannot be decoded'
                            f'{f" ({error})" if str(error) else ""}') from error
        if index == len(self) - 1:
            self._decoder = None  # closes the file
        return self._last[1]

    def _decode(self, first: int) -> Iterator[np.ndarray]:
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            start = self.times[first] - TOLERANCE
            container.seek(int(max(start, 0) / stream.time_base), stream=stream, backward=True)
            at = first
            for frame in container.decode(stream):
                if frame.time is None or frame.time < self.times[at] - TOLERANCE:
                    continue
                if frame.time > self.times[at] + TOLERANCE:
                    return  # the frame that the index promised was lost in decoding
                if turned := getattr(frame, 'rotation', 0) % 360:
                    raise DataError(f'the video is marked as rotated by {turned} degrees; store it upright')
                if frame.format.name.startswith('gray') and frame.format.name != 'gray':  # lerobot's depth maps
                    raise DataError(f'the video is {frame.format.name}: distances, not colours')
                yield frame.to_ndarray(format='rgb24')
                at += 1
                if at == len(self.times):
                    return


@lru_cache(maxsize=64)
def _frame_times(path: str, _changed: int) -> np.ndarray:
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise DataError(f'{path} holds no video')
            stream = container.streams.video[0]
            times = [float(packet.pts * packet.time_base) for packet in container.demux(stream)
                     if packet.pts is not None and packet.size and not packet.is_discard]
    except (av.error.FFmpegError, OSError, IndexError, OverflowError, UnicodeError) as error:
        raise DataError(left_behind(path) or f'{Path(path).name} is not a readable video: {error}') from error
    return np.unique(times)


def frame_times(path: Path) -> np.ndarray:
    """Return the times (N,) [s] of a file's frames, ascending, from its index alone; raises DataError."""
    if not path.is_file():
        raise DataError(f'video {path.name} is missing')
    times = _frame_times(str(path), path.stat().st_mtime_ns)
    if len(times) < 2:
        raise DataError(f'video {path.name} holds {len(times)} frames')
    return times


@dataclass(frozen=True)
class Window:
    """Where an episode says that its frames are within a file."""

    start: float         # [s] from_timestamp
    stop: float | None   # [s] to_timestamp, None: to the end


def locate(times: np.ndarray, windows: dict[int, Window]) -> dict[int, tuple[int, int, str] | DataError]:
    """Return, for each episode of a file, its (first frame, frame after its last, note), or why they cannot be told.

    `times` (N,) are the file's frames. A window begins on a frame. Where windows are off the frames but hold, by their
    durations, exactly the frames of the file, the frames are counted instead.
    """
    period = float(np.median(np.diff(times)))
    order = sorted(windows, key=lambda e: windows[e].start)
    spans = {e: (windows[e].start, times[-1] + period if windows[e].stop is None else windows[e].stop) for e in order}
    counts = {e: round((stop - start) / period) if np.isfinite([start, stop]).all() else 0
              for e, (start, stop) in spans.items()}
    whole = sum(counts.values()) == len(times) and np.ptp(np.diff(times)) < 2 * TOLERANCE
    found: dict[int, tuple[int, int, str] | DataError] = {}
    shuffled = '' if order == sorted(order) else 'its video shows the episodes in another order than they are numbered'
    starts = np.array([spans[e][0] for e in order])
    near = times[np.searchsorted(times, starts - TOLERANCE).clip(0, len(times) - 1)]
    drifted = not (np.abs(near - starts) <= TOLERANCE).all()
    counted, end, last = 0, -np.inf, None
    for e in order:
        start, stop = spans[e]
        first, after = np.searchsorted(times, [start - TOLERANCE, stop - TOLERANCE]).tolist()
        exact = first < len(times) and abs(times[first] - start) <= TOLERANCE
        if windows[e].stop is None and len(windows) == 1:
            found[e] = (0, len(times), '')
        elif not np.isfinite([start, stop]).all() or stop <= start or start < end - TOLERANCE:
            found[e] = DataError(f'the window {start:.3f} to {stop:.3f} s overlaps another episode in the same video')
            if last is not None and start < end - TOLERANCE:  # which of the two is wrong cannot be told
                found[last] = found[e]
        elif whole and (drifted or first == counted):
            note = shuffled if not drifted else (
                'from_timestamps of the file do not fall on frames of its video; the frames were counted, and their '
                'number agrees')
            found[e] = (counted, counted + counts[e], note)
        elif whole:
            found[e] = DataError(f'from_timestamp {start:.3f} s is frame {first} of the video, but the episodes before '
                                 f'it have {counted} frames')
        elif not exact:
            found[e] = DataError(f'from_timestamp {start:.4f} s falls between frames of the video')
        elif stop > times[-1] + period + TOLERANCE:
            found[e] = DataError(f'the window ends at {stop:.3f} s, after the video ({times[-1] + period:.3f} s)')
        else:
            found[e] = (first, after, shuffled if not (spare := len(times) - sum(counts.values())) else (
                f'{spare} frames of its video belong to no episode: whether its window is off by some cannot be told'))
        counted += counts[e]
        if stop > end:
            end, last = stop, e
    return found


def match(times: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Return (times in the file (T,) of the frames of T rows, note).

    `times` (n,) are the episode's own frames, `rows` (T,) the rows' times [s] from its first frame. Raises DataError
    where a row has no frame at its time, or frames are left over that no row can account for.
    """
    period, own = float(np.median(np.diff(times))) if len(times) > 1 else 0.1, times - times[0]
    note = ''
    if rows[0] > TOLERANCE and rows[-1] > own[-1] + TOLERANCE:  # a part of an episode that was split
        note, rows = f'timestamps start at {rows[0]:.2f} s: taken from the first frame', rows - rows[0]
    step = float(np.median(np.diff(rows))) if len(rows) > 1 else period
    expected = round(rows[-1] / period) + 1
    if not expected <= len(times) <= expected + max(round(step / period) - 1, 0):
        raise DataError(f'the video holds {len(times)} of {expected} frames' if len(times) < expected else
                        f'the video holds {len(times)} frames where the table accounts for {expected}')
    nearest = np.searchsorted(own, rows - period / 2).clip(0, len(own) - 1)
    off = np.abs(own[nearest] - rows)
    if off.max() > max(TOLERANCE, 1e-6 * abs(rows[-1])) or len(np.unique(nearest)) < len(rows):
        raise DataError(f'no frame at the time of row {int(off.argmax())}: the nearest is {1e3 * off.max():.1f} ms '
                        f'away (table {1 / step if step else 0:.3g} Hz, video {1 / period:.3g} Hz)')
    return times[nearest], note
