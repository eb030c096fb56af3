"""Episodes to look at: H.264 videos that every browser plays, and strips of still images."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from vgps_bringup.episode_pages.overlay import FAINT, Overlay
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord

LINGER = 1.5    # [s] the last frame stays, with the outcome on it
MAX_RATE = 30.0  # frames per second
MOMENTS = (0.2, 0.5, 1.0)  # of each episode, in its filmstrip
FILMSTRIP_HEIGHT, FILMSTRIP_QUALITY = 462, 90  # pixels; JPEG
FILMSTRIP_RATE = 5.0  # frames per second it is chosen from


class VideoWriter:
    """Encodes RGB frames; the size is that of the first."""

    def __init__(self, path: Path | str, rate: float):
        self._container = av.open(str(path), 'w', options={'movflags': 'faststart'})
        self._stream = self._container.add_stream('libx264', rate=Fraction(rate).limit_denominator(1000))
        self._stream.pix_fmt = 'yuv420p'
        self._stream.options = {'crf': '23', 'preset': 'veryfast'}

    def write(self, frame: np.ndarray) -> None:
        """Append a frame ``(H, W, 3) uint8`` RGB, H and W even."""
        if self._stream.width == 0 or not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = frame.shape[:2]
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
        self._container.mux(self._stream.encode(picture))

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, *_) -> None:
        if self._stream.codec_context.is_open:
            self._container.mux(self._stream.encode())
        self._container.close()


def episode_frames(bag: Bag, episode: EpisodeRecord, rate: float, label: str = '', below: bool = False,
                   camera: str | None = None, broken: list[str] | None = None) -> Iterator[np.ndarray]:
    """Yield the composed frames of an episode at a constant rate, real time, outcome on the last ones.

    A frame that cannot be decoded is passed over, and why is added to ``broken``.
    """
    overlay = Overlay(episode, label, below)
    stamps = [step.stamp for step in episode.steps]
    first = min([episode.started, *stamps[:1]])
    period, due, begun, image = 1e9 / rate, None, 0, None
    for frame in bag.frames(camera):
        if frame.stamp < first or frame.received > episode.ended:
            continue
        try:
            image = frame.image()
        except ValueError as error:  # the picture before stays: the rest of the episode is what people came for
            if broken is not None:
                broken.append(str(error))
            continue
        while begun < len(stamps) and stamps[begun] <= frame.stamp:
            begun += 1
        due = frame.stamp if due is None else due
        while due <= frame.stamp + period / 2:  # repeats a frame where the camera was slower
            composed = overlay.frame(image, begun - 1 if begun else None)
            yield composed
            due += period
    if image is not None:
        composed = overlay.frame(image, begun - 1 if begun else None, episode.outcome)
        for _ in range(round(LINGER * rate)):
            yield composed


def frame_rate(bag: Bag, camera: str | None = None) -> float:
    """Return the camera's rate in frames per second, at most MAX_RATE."""
    stamps = np.unique(bag.image_stamps[bag.image_topic(camera)])
    if len(stamps) < 2:
        return 5.0
    return float(np.clip(round(1e9 / np.median(np.diff(stamps)), 1), 1.0, MAX_RATE))


def write_episode(bag: Bag, episode: EpisodeRecord, path: Path, label: str = '',
                  camera: str | None = None) -> list[str]:
    """Write the video of an episode, none where no frame can be drawn; return what was wrong with frames."""
    broken: list[str] = []
    rate = frame_rate(bag, camera)
    frames = episode_frames(bag, episode, rate, label, camera=camera, broken=broken)
    first = next(frames, None)
    if first is None:
        path.unlink(missing_ok=True)  # of an earlier report
        return broken
    with VideoWriter(path, rate) as writer:
        writer.write(first)
        for frame in frames:
            writer.write(frame)
    return broken


def write_side_by_side(parts: list[tuple[Bag, EpisodeRecord, str]], path: Path | str,
                       filmstrip: Path | None = None) -> None:
    """Write several episodes beside each other, started together; the shorter ones keep their last frame.

    Where a `filmstrip` is named, a JPEG of each episode at a few moments is made of the same frames.
    """
    rate = min(frame_rate(bag) for bag, _, _ in parts)
    streams = [episode_frames(bag, episode, rate, label, below=True) for bag, episode, label in parts]
    latest: list[np.ndarray | None] = [None] * len(parts)
    kept: list[list[np.ndarray]] = [[] for _ in parts]  # some five a second
    every, count = max(1, round(rate / FILMSTRIP_RATE)), 0
    with VideoWriter(path, rate) as writer:
        while True:
            fresh = [next(stream, None) for stream in streams]
            if all(frame is None for frame in fresh):
                break
            for pictures, frame in zip(kept, fresh):
                if filmstrip is not None and frame is not None and count % every == 0:
                    pictures.append(frame)
            latest = [new if new is not None else old for new, old in zip(fresh, latest)]
            if any(frame is None for frame in latest):
                latest = [f if f is not None else np.zeros_like(next(g for g in latest if g is not None))
                          for f in latest]  # an episode without a single frame
            writer.write(_beside(latest))
            count += 1
    pictures = [frames[round(moment * (len(frames) - 1))] for moment in MOMENTS for frames in kept if frames]
    if pictures:
        _write_filmstrip(_beside(pictures), filmstrip)


def _write_filmstrip(strip: np.ndarray, path: Path) -> None:
    width = round(strip.shape[1] * FILMSTRIP_HEIGHT / strip.shape[0])
    small = cv2.resize(strip, (width, FILMSTRIP_HEIGHT), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, FILMSTRIP_QUALITY])


def _beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Return pictures of one height in a row, with a rule between each two."""
    rule = np.full((pictures[0].shape[0], 4, 3), FAINT, np.uint8)
    return np.hstack([part for picture in pictures for part in (picture, rule)][:-1])
