"""Batches of transitions. What step n sees is a function of (seed, n) alone: that is what makes resuming exact."""
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vgps_msgs_py.jobs import end_with_parent, forking
from vgps_training.data.augmentation import AugmentationConfig, augment, draw
from vgps_training.data.batch import Batch
from vgps_training.data.encoded import Buffers
from vgps_training.data.labels import LabelConfig, labels_at
from vgps_training.data.resizing import resize
from vgps_training.data.table import Selection

LONG_EPISODE = 100  # steps, the authors' subsample_length
AHEAD = 2           # batches that each worker prepares ahead
CPU = torch.device('cpu')


@dataclass(frozen=True)
class Shard:
    """The part of every global batch that one process computes."""

    rank: int = 0
    world: int = 1

    def slice(self, size: int) -> slice:
        """Return this process's part of `size` items. Raises ValueError where it does not divide."""
        if size % self.world:
            raise ValueError(f'batch size {size} does not divide by {self.world} processes')
        share = size // self.world
        return slice(self.rank * share, (self.rank + 1) * share)


@dataclass(frozen=True)
class RawBatch:
    """One process's part of a batch before the training device has resized and augmented it."""

    frames: list[tuple[Tensor, Tensor]]  # rows (m,) of s then s' (2B), frames (m, H, W, 3) uint8, per camera size
    draws: np.ndarray                    # (B, 8) float32 of the augmentation
    instruction: np.ndarray              # (B,) int, of the item
    other_instruction: np.ndarray        # (B,) int, of the next item
    rest: dict[str, np.ndarray]          # of `Batch`: actions, rewards, masks, returns; small, so they are not shared

    def pin_memory(self) -> 'RawBatch':
        """Return the batch with frames that a GPU copies from while the CPU goes on (torch's DataLoader calls this)."""
        return replace(self, frames=[(rows, frames.pin_memory()) for rows, frames in self.frames])


class Sampler(Dataset):
    """Draws batches from some episodes of a table; item n is batch n."""

    def __init__(self, selection: Selection, discount: float, labels: LabelConfig,
                 normalise: Callable[[np.ndarray], np.ndarray], embeddings: np.ndarray, *, batch_size: int, seed: int,
                 weights: tuple[float, ...] = (), augmentation: AugmentationConfig,
                 shuffled_next: bool = False, shard: Shard = Shard(), workers: int = 0):
        """Prepare. Nothing is computed for every step of the table: there are millions, in each of many processes.

        Args:
            selection: the episodes to draw from.
            discount: gamma of the returns.
            labels: how outcomes become rewards.
            normalise: physical actions (n, 7) to the critic's action space.
            embeddings: (I, 512), one per instruction of the table.
            batch_size: over all processes.
            seed: of every draw.
            weights: per data set, relative to its number of steps (as the authors' `balance_weights`); none is equal.
            augmentation: applied to s and s' alike.
            shuffled_next: authors' loader: in episodes beyond 100 steps s' is any frame; default is the successor.
            shard: this process's part.
            workers: processes that read and decode ahead; 0: the caller does.

        """
        table = selection.table
        self.table, self.embeddings = table, torch.from_numpy(np.ascontiguousarray(embeddings))
        self.discount, self.labels, self.normalise = discount, labels, normalise
        self.lengths = table.lengths
        self.batch_size, self.seed, self.augmentation, self.shard = batch_size, seed, augmentation, shard
        self.shuffled_next, self.workers = shuffled_next, workers
        self.image_size, self._buffers = table.image_size, Buffers(AHEAD)
        self._groups = self._mixture(selection.episodes, weights)

    def _mixture(self, episodes: np.ndarray, weights: tuple[float, ...]) -> list['_Group']:
        dataset = self.table.dataset[episodes]
        groups = [_Group(episodes[dataset == i], self.table.starts, self.lengths)
                  for i in range(int(self.table.dataset.max()) + 1)]
        if weights and len(weights) != len(groups):
            raise ValueError(f'{len(weights)} weights for {len(groups)} data sets')
        mass = np.array([group.size for group in groups], float) * (weights or np.ones(len(groups)))
        self._shares = [share for share in mass / mass.sum() if share > 0]
        return [group for share, group in zip(mass, groups) if share > 0]

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps (B,) of the table in global batch `step`, and their successors."""
        random = np.random.default_rng([self.seed, step])
        if len(self._groups) == 1:
            group = self._groups[0]
            chosen = group.steps(random.integers(group.size, size=self.batch_size))
        else:
            which = random.choice(len(self._groups), self.batch_size, p=self._shares)
            position = random.random(self.batch_size)
            chosen = np.empty(self.batch_size, np.int64)
            for i, group in enumerate(self._groups):
                chosen[which == i] = group.steps((position[which == i] * group.size).astype(np.int64))
        episode = self.table.episode_of(chosen)
        start, length = self.table.starts[episode], self.lengths[episode]
        following = np.minimum(chosen + 1, start + length - 1)  # an episode's last step follows itself, its mask is 0
        if self.shuffled_next:
            other = start + (random.random(self.batch_size) * length).astype(np.int64)
            following = np.where(length > LONG_EPISODE, other, following)
        return chosen, following

    def __len__(self) -> int:
        return 2**62  # draws are with replacement and never end

    def __getitem__(self, step: int) -> RawBatch:
        """Return this process's part of global batch `step`, decoded and no more."""
        chosen, following = self.indices(step)
        instruction = self.table.instruction[self.table.episode_of(chosen)]
        other = np.roll(instruction, -1)  # the next item's instruction, over the global batch
        draws = draw(self.batch_size, self.augmentation, torch.Generator().manual_seed(hash_pair(self.seed, step)))
        part = self.shard.slice(self.batch_size)
        chosen, following, other, instruction = chosen[part], following[part], other[part], instruction[part]
        episode = self.table.episode_of(chosen)
        rewards, masks, returns = labels_at(chosen - self.table.starts[episode], self.lengths[episode],
                                            self.table.success[episode], self.discount, self.labels)
        actions, next_actions = (self.normalise(self.table.actions[s]) for s in (chosen, following))
        arrays = {'actions': actions, 'next_actions': next_actions, 'rewards': rewards, 'masks': masks,
                  'returns': returns}
        return RawBatch(self.table.groups(np.concatenate([chosen, following]), self._buffers), draws[part].numpy(),
                        instruction, other, {name: np.asarray(value, np.float32) for name, value in arrays.items()})

    def finish(self, raw: RawBatch, device: torch.device) -> Batch:
        """Return a batch on the training device, which resizes and augments it."""
        def there(values: np.ndarray | Tensor) -> Tensor:
            return torch.as_tensor(values).to(device, non_blocking=True)

        count = len(raw.draws)
        parts = [(rows, resize(there(frames), self.image_size) if frames.ndim == 4 else there(frames))
                 for rows, frames in raw.frames]
        images = parts[0][1]
        if len(parts) > 1:
            images = images.new_empty((2 * count, *images.shape[1:]))
            for rows, frames in parts:
                images[there(rows)] = frames
        if self.augmentation.enabled:
            images = augment(images, there(raw.draws).repeat(2, 1))
        elif self.workers and len(parts) == 1 and device.type == 'cpu':
            images = images.clone()  # else a worker would write the batch after next over it
        now, after = images.split(count)
        language = self.embeddings[raw.instruction], self.embeddings[raw.other_instruction]
        return Batch(now, after, *map(there, language), **{name: there(value) for name, value in raw.rest.items()})

    def batch(self, step: int, device: torch.device = CPU) -> Batch:
        """Return this process's part of global batch `step`, augmented."""
        return self.finish(self[step], device)

    def batches(self, start: int, stop: int, device: torch.device = CPU) -> Iterator[Batch]:
        """Yield batches start..stop on a device; worker processes prepare the next ones while the caller trains."""
        workers = {}
        if self.workers:  # forked: the table is shared and not copied, and no worker touches the GPU
            workers = {'num_workers': self.workers, 'prefetch_factor': AHEAD, 'multiprocessing_context': 'fork',
                       'pin_memory': device.type == 'cuda', 'worker_init_fn': _end_with_the_run}
        mapped = deque(maxlen=self.workers * (AHEAD + 2))  # while they are held, torch maps no shared memory anew
        loader = DataLoader(self, batch_size=None, sampler=range(start, stop), collate_fn=_as_it_is, **workers)
        with forking():
            prepared = iter(loader)
        for raw in prepared:
            mapped.append(raw.frames)
            yield self.finish(raw, device)


def _end_with_the_run(worker: int) -> None:
    """Let no worker outlive a run that is killed: it would hold the lock of the run's folder."""
    end_with_parent(signal.SIGKILL)


def _as_it_is(raw: RawBatch) -> RawBatch:
    return raw


class _Group:
    """The steps of some episodes (m,), numbered through without a list of them."""

    def __init__(self, episodes: np.ndarray, starts: np.ndarray, lengths: np.ndarray):
        self.first = starts[episodes]
        self.ends = np.cumsum(lengths[episodes])
        self.size = int(self.ends[-1]) if len(episodes) else 0

    def steps(self, numbers: np.ndarray) -> np.ndarray:
        """Return the steps of the table that have these numbers (n,), 0..size."""
        which = np.searchsorted(self.ends, numbers, 'right')
        before = np.where(which > 0, self.ends[which - 1], 0)
        return self.first[which] + numbers - before


def hash_pair(seed: int, step: int) -> int:
    """Return a 63-bit seed of a pair, so that neighbouring steps share no stream."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
