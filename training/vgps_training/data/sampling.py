"""Batches of transitions. What step n sees is a function of (seed, n) alone: that is what makes resuming exact."""
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from vgps_training.data.augmentation import AugmentationConfig, augment, draw
from vgps_training.data.batch import Batch
from vgps_training.data.table import Selection

LONG_EPISODE = 100  # steps, the authors' subsample_length


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


class Sampler:
    """Draws batches from some episodes of a table."""

    def __init__(self, selection: Selection, labels: tuple[np.ndarray, np.ndarray, np.ndarray],
                 normalised_actions: np.ndarray, embeddings: np.ndarray, *, batch_size: int, seed: int,
                 weights: tuple[float, ...] = (), augmentation: AugmentationConfig,
                 shuffled_next: bool = False, shard: Shard = Shard(), decoders: int = 2):
        """Prepare.

        Args:
            selection: the episodes to draw from.
            labels: rewards, masks, returns of the whole table, each (N,).
            normalised_actions: (N, 7).
            embeddings: (I, 512), one per instruction of the table.
            batch_size: over all processes.
            seed: of every draw.
            weights: per data set, relative to its number of steps (as the authors' `balance_weights`); none is equal.
            augmentation: applied to s and s' alike.
            shuffled_next: authors' loader: in episodes beyond 100 steps s' is any frame; default is the successor.
            shard: this process's part.
            decoders: threads that decode images on demand.

        """
        table = selection.table
        self.table, self.embeddings = table, torch.from_numpy(np.ascontiguousarray(embeddings))
        self.steps = selection.steps()
        self.rewards, self.masks, self.returns = labels
        self.actions = normalised_actions
        self.following = table.next_index()
        self.instruction = table.per_step(table.instruction)
        self.starts, self.lengths = table.per_step(table.starts), table.per_step(table.lengths)
        self.batch_size, self.seed, self.augmentation, self.shard = batch_size, seed, augmentation, shard
        self.shuffled_next = shuffled_next
        self.pool = ThreadPoolExecutor(decoders) if not isinstance(table.frames, np.ndarray) else None
        self._groups = self._mixture(table.per_step(table.dataset)[self.steps], weights)

    def _mixture(self, dataset: np.ndarray, weights: tuple[float, ...]) -> list[tuple[float, np.ndarray]]:
        groups = [np.flatnonzero(dataset == i) for i in range(int(self.table.dataset.max()) + 1)]
        if weights and len(weights) != len(groups):
            raise ValueError(f'{len(weights)} weights for {len(groups)} data sets')
        mass = np.array([len(group) for group in groups], float) * (weights or np.ones(len(groups)))
        return [(share, group) for share, group in zip(mass / mass.sum(), groups) if share > 0]

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps (B,) of the table in global batch `step`, and their successors."""
        random = np.random.default_rng([self.seed, step])
        if len(self._groups) == 1:
            chosen = self._groups[0][1][random.integers(len(self._groups[0][1]), size=self.batch_size)]
        else:
            which = random.choice(len(self._groups), self.batch_size, p=[share for share, _ in self._groups])
            position = random.random(self.batch_size)
            chosen = np.array([self._groups[w][1][int(p * len(self._groups[w][1]))] for w, p in zip(which, position)])
        chosen = self.steps[chosen]
        following = self.following[chosen]
        if self.shuffled_next:
            other = self.starts[chosen] + (random.random(self.batch_size) * self.lengths[chosen]).astype(np.int64)
            following = np.where(self.lengths[chosen] > LONG_EPISODE, other, following)
        return chosen, following

    def batch(self, step: int) -> Batch:
        """Return this process's part of global batch `step`, augmented, on the CPU."""
        chosen, following = self.indices(step)
        other = np.roll(self.instruction[chosen], -1)  # the next item's instruction, over the global batch
        draws = draw(self.batch_size, self.augmentation, torch.Generator().manual_seed(hash_pair(self.seed, step)))
        part = self.shard.slice(self.batch_size)
        chosen, following, other, draws = chosen[part], following[part], other[part], draws[part]
        images, next_images = self.frames(chosen), self.frames(following)
        if self.augmentation.enabled:
            images, next_images = augment(torch.cat([images, next_images]), draws.repeat(2, 1)).split(len(chosen))
        return Batch(images, next_images, self.embeddings[self.instruction[chosen]], self.embeddings[other],
                     torch.from_numpy(self.actions[chosen]), torch.from_numpy(self.actions[following]),
                     torch.from_numpy(self.rewards[chosen]), torch.from_numpy(self.masks[chosen]),
                     torch.from_numpy(self.returns[chosen]))

    def frames(self, steps: np.ndarray) -> torch.Tensor:
        """Return (B, S, S, 3) uint8 of steps of the table."""
        if self.pool is None:
            return torch.from_numpy(self.table.frames[steps])
        return torch.from_numpy(np.stack(list(self.pool.map(self.table.frames.__getitem__, steps.tolist()))))

    def batches(self, start: int, stop: int, ahead: int = 2) -> Iterator[Batch]:
        """Yield batches start..stop, `ahead` of them prepared by a thread while the caller trains."""
        with ThreadPoolExecutor(1) as background:
            waiting: list[Future] = [background.submit(self.batch, s) for s in range(start, min(start + ahead, stop))]
            for step in range(start, stop):
                batch = waiting.pop(0).result()
                if step + ahead < stop:
                    waiting.append(background.submit(self.batch, step + ahead))
                yield batch
                # nothing of the last batch outlives the loop's turn but what the caller keeps


def hash_pair(seed: int, step: int) -> int:
    """Return a 63-bit seed of a pair, so that neighbouring steps share no stream."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
