"""Everything a data set holds, as flat arrays over steps: the form in which training reads it."""
import hashlib
import json
import logging
import mmap
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vgps_critic.model_card import DIMENSIONS
from vgps_msgs_py.lanczos import resize
from vgps_training.data.checks import suspicious
from vgps_training.data.encoded import Buffers, EncodedTable, LazyFrames, stack
from vgps_training.data.episode import PLAIN, Episode, Malformed, Reading
from vgps_training.data.labels import LabelConfig, labels_at
from vgps_training.data.packed import PackedFrames
from vgps_training.data.rlds import EncodedFrames
from vgps_training.data.sources import read_episodes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepTable:
    """N steps of M episodes, episode after episode."""

    # (N, S, S, 3) uint8 RGB at the critic's size, in memory, mapped or packed; or in the camera's, decoded on demand
    frames: np.ndarray | PackedFrames | EncodedTable | LazyFrames
    actions: np.ndarray              # (N, 7) float32 physical
    starts: np.ndarray               # (M,) int64, first step of each episode
    instruction: np.ndarray          # (M,) int32, index into instructions
    success: np.ndarray              # (M,) int8: 1 success, 0 failure
    dataset: np.ndarray              # (M,) int32, which of the --data paths
    instructions: tuple[str, ...]
    sources: tuple[str, ...]         # of the episodes
    states: np.ndarray | None = None  # (N, 7) float32 as in Episode, None where an episode has none

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def lengths(self) -> np.ndarray:
        """Return (M,) steps of each episode."""
        return np.diff(np.append(self.starts, len(self.actions)))

    def per_step(self, values: np.ndarray) -> np.ndarray:
        """Return (N,) of a value per episode (M,)."""
        return np.repeat(values, self.lengths)

    def episode_of(self, steps: np.ndarray) -> np.ndarray:
        """Return the episode (n,) of steps (n,)."""
        return np.searchsorted(self.starts, steps, 'right') - 1

    def labels(self, discount: float, config: LabelConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rewards, masks and returns of every step, each (N,) float32."""
        position = np.arange(len(self)) - self.per_step(self.starts)
        return labels_at(position, self.per_step(self.lengths), self.per_step(self.success), discount, config)

    @property
    def image_size(self) -> int:
        """Side of the critic's input, pixels."""
        return self.frames.shape[1] if isinstance(self.frames, np.ndarray) else self.frames.image_size

    def images(self, steps: np.ndarray) -> np.ndarray:
        """Return (n, S, S, 3) uint8 of steps (n,), decoded and resized now where they are lazy."""
        if isinstance(self.frames, np.ndarray):
            return self.frames[steps]
        return np.stack([resize(self.frames[int(step)], self.image_size) for step in steps])

    def groups(self, steps: np.ndarray, buffers: Buffers) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return frames of steps (n,) by size: positions (m,) among the steps, frames (m, H, W, 3) uint8."""
        if not isinstance(self.frames, np.ndarray):
            return self.frames.groups(steps, buffers)
        if self.frames.dtype != np.uint8:  # features of a frozen encoder
            return [(torch.arange(len(steps)), torch.from_numpy(self.frames[steps]))]
        result = stack([self.frames.shape[1:]] * len(steps), buffers)
        np.take(self.frames, steps, 0, out=result[0][1].numpy(), mode='clip')  # 'raise' would copy everything twice
        return result

    def select(self, episodes: np.ndarray) -> 'Selection':
        """Return the steps of some episodes, by index; nothing is copied."""
        return Selection(self, np.asarray(episodes))


@dataclass(frozen=True)
class Selection:
    """Some episodes of a table."""

    table: StepTable
    episodes: np.ndarray  # (m,) int, ascending

    def steps(self) -> np.ndarray:
        """Return the indices of their steps in the table."""
        keep = np.zeros(len(self.table.starts), bool)
        keep[self.episodes] = True
        return np.flatnonzero(self.table.per_step(keep))


@dataclass
class Report:
    """What was read, what was left out and why."""

    episodes: int = 0
    steps: int = 0
    skipped: Counter = None
    examples: dict[str, str] = None
    cameras: Counter = None  # (camera, rate [Hz] or None) -> episodes
    notes: Counter = None    # what a person should know of the episodes that were used -> how many

    def __post_init__(self):
        self.skipped, self.cameras, self.notes, self.examples = Counter(), Counter(), Counter(), {}

    def use(self, episode: Episode) -> None:
        """Count an episode that is used."""
        self.episodes += 1
        self.steps += len(episode.actions)
        if episode.camera:
            self.cameras[episode.camera, None if episode.rate is None else round(episode.rate, 2)] += 1
        for note in episode.notes:
            self.notes[note] += 1
            self.examples.setdefault(note, episode.source)

    def skip(self, reason: str, source: str) -> None:
        """Count an episode that is left out."""
        self.skipped[reason] += 1
        self.examples.setdefault(reason, source)

    def text(self) -> str:
        """Return the report for a person."""
        lines = [f'{self.episodes} episodes, {self.steps} steps used; {sum(self.skipped.values())} episodes skipped']
        lines += [f'  {count} x {reason} (first: {self.examples[reason]})' for reason, count in _alike(self.skipped)]
        lines += [f'camera {camera}: {count} episodes' + (f' at {rate:g} steps per second' if rate else '')
                  for (camera, rate), count in self.cameras.most_common()]
        lines.append('actions: metres and radians per step, gripper openness 0 (closed) to 1 (open)')
        lines += [f'note: {count} x {note}' + (f' (first: {self.examples[note]})' if note in self.examples else '')
                  for note, count in _alike(self.notes)]
        return '\n'.join(lines)


def _alike(counts: Counter) -> list[tuple[str, int]]:
    """Return (text, how many), most first; texts that differ in their numbers alone are told once, by the first."""
    first, total = {}, Counter()
    for text, count in counts.items():
        total[first.setdefault(re.sub(r'\d[\d.e+-]*', '', text), text)] += count
    return total.most_common()


def read_table(paths: Sequence[str | Path], image_size: int, *, split: str = 'train', lazy: bool = False,
               unjudged: str = 'skip', failures: str = 'failures', progress: bool = True,
               reading: Reading = PLAIN,
               source: Callable[[Path, str, Reading], Iterator[Episode | Malformed]] = read_episodes
               ) -> tuple[StepTable, Report]:
    """Read every episode under the paths once.

    Args:
        paths: data sets, folders of them, or tables saved by `save`.
        image_size: side of the critic's square input, pixels.
        split: of RLDS data sets.
        lazy: keep RLDS images in their files and decode on demand instead of holding all in memory.
        unjudged: 'skip' episodes whose outcome nobody recorded, or count them as 'successes'.
        failures: 'skip' leaves failed episodes out; any other value keeps them for the labels to tell apart.
        progress: show a bar.
        reading: which camera, which units.
        source: reads the episodes under one path.

    Raises:
        FileNotFoundError: no data set at a path. ValueError: not one usable episode.

    """
    if len(paths) == 1 and is_saved(Path(paths[0])) and failures != 'skip':
        table = _mapped(Path(paths[0]))
        if table.image_size == image_size:
            return table, Report(len(table.starts), len(table))
    report, instructions = Report(), {}
    frames, actions, states, rows, sources = [], [], [], [], []
    for number, path in enumerate(paths):
        if is_saved(Path(path)):
            episodes = _saved_episodes(Path(path), image_size)
        else:
            episodes = source(path, split, reading)
        for episode in tqdm(episodes, desc=f'reading {path}', unit=' episodes', disable=not progress):
            episode = _accept(episode, unjudged, failures, report)
            if episode is None:
                continue
            try:
                stored = episode.frames
                if not (lazy and isinstance(stored, EncodedFrames)):
                    stored = np.stack([resize(np.ascontiguousarray(frame), image_size) for frame in episode.frames])
            except Exception as error:  # whatever the image library raises for a damaged picture
                report.skip(f'frame cannot be decoded: {type(error).__name__}', episode.source)
                continue
            frames.append(stored)
            actions.append(episode.actions)
            states.append(episode.states)
            index = instructions.setdefault(episode.instruction, len(instructions))
            rows.append((len(episode.actions), index, int(episode.success), number))
            sources.append(episode.source)
            report.use(episode)
    if not rows:
        raise ValueError(f'no usable episode in {", ".join(map(str, paths))}\n{report.text()}')
    lengths, instruction, success, dataset = np.array(rows).T
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    pixels = _lazy(frames, starts, image_size) if lazy else _joined(frames, image_size)
    table = StepTable(pixels, np.concatenate(actions).astype(np.float32), starts, instruction.astype(np.int32),
                      success.astype(np.int8), dataset.astype(np.int32), tuple(instructions), tuple(sources),
                      None if any(s is None for s in states) else np.concatenate(states).astype(np.float32))
    for text in suspicious(table.actions, table.starts, DIMENSIONS):
        report.notes[text] = 1
    if spaced := len(instructions) - len({' '.join(text.split()) for text in instructions}):
        report.notes['instructions that differ from another one in spaces or line ends alone'] = spaced
    if 0 < (without := sum(s is None for s in states)) < len(states):
        report.notes['without states: those of all others are left out, too'] = without
    if copies := len(actions) - len({hash(part.tobytes()) for part in actions}):
        report.notes['the same actions as another episode: were the data given twice?'] = copies
    return table, report


def _lazy(frames: list[Sequence], starts: np.ndarray, image_size: int) -> EncodedTable | LazyFrames:
    if not all(isinstance(part, EncodedFrames) for part in frames):
        return LazyFrames(frames, starts, image_size)
    files = {path: i for i, path in enumerate(dict.fromkeys(part.path for part in frames))}
    slices = np.concatenate([part.slices for part in frames])
    return EncodedTable(tuple(files), starts, np.array([files[part.path] for part in frames], np.int32), slices[:, 0],
                        slices[:, 1].astype(np.int32), image_size)


def _joined(frames: list[np.ndarray], image_size: int) -> np.ndarray:
    """Concatenate without holding everything twice: each part is freed once it is copied."""
    total = sum(len(part) for part in frames)
    result = np.empty((total, image_size, image_size, 3), np.uint8)
    at = 0
    frames.reverse()
    while frames:
        part = frames.pop()
        result[at:at + len(part)] = part
        at += len(part)
    return result


def _accept(episode: Episode | Malformed, unjudged: str, failures: str, report: Report) -> Episode | None:
    if isinstance(episode, Malformed):
        report.skip(episode.reason, episode.source)
        return None
    success = episode.success
    if success is None:
        if unjudged == 'skip':
            report.skip('outcome was never judged', episode.source)
            return None
        success = True
    if not success and failures == 'skip':
        report.skip('failure, left out on request', episode.source)
        return None
    return replace(episode, success=success)


WRITTEN = 256  # frames at a time
ARRAYS = ('actions', 'starts', 'instruction', 'success')


def save(table: StepTable, folder: Path) -> None:
    """Write a table that `read_table` takes as a data set: frames resized once, read back at disk speed."""
    begin(folder)
    size = table.image_size
    temporary = folder / '.frames.npy.tmp'  # the table may be read from the very file that this one replaces
    frames = np.lib.format.open_memmap(temporary, 'w+', np.uint8, (len(table), size, size, 3))
    for at in range(0, len(table), WRITTEN):  # however many there are, only a few are in memory
        frames[at:at + WRITTEN] = table.images(np.arange(at, min(at + WRITTEN, len(table))))
    frames.flush()
    temporary.replace(folder / 'frames.npy')
    finish(table, folder)


def begin(folder: Path) -> None:
    """Make a folder ready for a table; what is left of one that was here must not pass for a part of this one."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ('table.json', 'states.npy'):
        (folder / stale).unlink(missing_ok=True)


def finish(table: StepTable, folder: Path, **told) -> None:
    """Write everything but the frames; from now on the folder is a table."""
    for name in ARRAYS + ('dataset',) + (('states',) if table.states is not None else ()):
        np.save(folder / f'{name}.npy', getattr(table, name))
    texts = {'instructions': table.instructions, 'sources': table.sources, **told}
    (folder / 'table.json').write_text(json.dumps(texts, ensure_ascii=False))  # last: marks the table as complete


def is_saved(folder: Path) -> bool:
    """Tell whether a folder is a saved table."""
    return (folder / 'table.json').exists()


def _mapped(folder: Path) -> StepTable:
    """Return a saved table whose frames stay in their files: read at random, shared by all processes."""
    texts = json.loads((folder / 'table.json').read_text())
    arrays = {name: np.load(folder / f'{name}.npy', mmap_mode='c' if name == 'actions' else None) for name in ARRAYS}
    if 'packed' in texts:
        frames = PackedFrames(folder, texts['packed'])
    else:
        frames = np.load(folder / 'frames.npy', mmap_mode='c')
        if hasattr(mmap, 'MADV_RANDOM'):
            frames._mmap.madvise(mmap.MADV_RANDOM)
    dataset, states = (np.load(folder / f'{name}.npy') if (folder / f'{name}.npy').exists() else None
                       for name in ('dataset', 'states'))
    if dataset is None:  # an older version did not tell them apart
        dataset = np.zeros(len(arrays['starts']), np.int32)
    return StepTable(frames, **arrays, dataset=dataset, states=states,
                     instructions=tuple(texts['instructions']), sources=tuple(texts['sources']))


def _saved_episodes(folder: Path, image_size: int):
    table = _mapped(folder)
    if table.image_size != image_size:
        logger.warning('%s was saved at %d pixels and is resized to %d', folder, table.image_size, image_size)
    for i, (start, length) in enumerate(zip(table.starts, table.lengths)):
        steps = slice(int(start), int(start + length))
        yield Episode(table.frames[steps], np.array(table.actions[steps]),
                      table.instructions[table.instruction[i]], bool(table.success[i]), table.sources[i],
                      None if table.states is None else table.states[steps])


def path_parts(source: str) -> list[str]:
    """Return what `Path(source).parts` returns, of a POSIX path: made for 150,000 sources at every start."""
    return ['/'] * source.startswith('/') + [part for part in source.split('/') if part and part != '.']


def data_digest(table: StepTable) -> str:
    """Return a hash (hex) of what a table trains on but its pixels: actions, episodes, instructions, outcomes."""
    digest = hashlib.sha256(json.dumps([table.instructions, [path_parts(s)[-1] for s in table.sources]]).encode())
    for name in ('actions', 'starts', 'instruction', 'success', 'dataset'):
        digest.update(np.ascontiguousarray(getattr(table, name)).view(np.uint8))
    return digest.hexdigest()
