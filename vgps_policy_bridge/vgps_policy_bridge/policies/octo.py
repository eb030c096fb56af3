"""Octo small, base, small-1.5 and base-1.5 (JAX): one transformer pass, K diffusion samples."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

import numpy as np

from vgps_policy_bridge.errors import MissingExtraError, PolicyError
from vgps_policy_bridge.policies.checkpoints import choose_statistics, normalised, split_revision
from vgps_policy_bridge.policy import GRIPPER, MAX_CANDIDATES, Candidates, Observation, StepSeeds

IMAGE_SIZE, WRIST_SIZE = 256, 128
WINDOW = 2
# JAX compiles once per number of samples: K is rounded up to one of these, so that a changed K rarely compiles anew.
BUCKETS = (1, 10, 25, 50, 100, 200, 500, MAX_CANDIDATES)


def unnormalise(actions: np.ndarray, statistics: dict) -> np.ndarray:
    """Return physical actions: x std + mean where the mask says so, usually not for the gripper; clipped to 0..1.

    Args:
        actions: (..., 7) in the model's units.
        statistics: 'mean', 'std' (7,) of the model's own data set, and 'mask' (7,), without which all were normalised.
    """
    physical = np.where(normalised(statistics),
                        actions * np.asarray(statistics['std']) + np.asarray(statistics['mean']), actions)
    physical[..., GRIPPER] = np.clip(physical[..., GRIPPER], 0.0, 1.0)
    return physical.astype(np.float32)


def resize(image: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """Return (size, size, 3) uint8: a Lanczos squash, as in training."""
    from PIL import Image
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


def _folder(checkpoint: str) -> str:
    """Return what OctoModel.load_pretrained takes; it knows no revisions, so such a one is downloaded here."""
    name, revision = split_revision(checkpoint)
    if revision is None:
        return checkpoint
    from huggingface_hub import snapshot_download
    return snapshot_download(name.removeprefix('hf://'), revision=revision)


class OctoPolicy:
    """An Octo model behind the seam. Its diffusion head has no temperature.

    A wrist camera's picture is looked at where there is one and the model has a place for it; without one the model is
    told that it is not there, as in training.

    Args:
        checkpoint: `hf://rail-berkeley/octo-small-1.5`, with a revision as `hf://owner/name@revision`, or a folder as
            OctoModel.save_pretrained writes it.
        statistics: data set whose statistics un-normalise, `fractal20220817_data` for instance. '' takes
            `bridge_dataset`, or the only ones there are: a model of one data set stores its own without a name.
    """

    def __init__(self, checkpoint: str, statistics: str = ''):
        try:
            import jax
            from octo.model.octo_model import OctoModel
        except ImportError as error:
            raise MissingExtraError('octo', 'octo', error) from error
        self._jax = jax
        self._model = OctoModel.load_pretrained(_folder(checkpoint))
        available = self._model.dataset_statistics or {}
        if 'action' in available:
            available = {'its own (unnamed)': available}
        key, chosen = choose_statistics(checkpoint, statistics, {}, available, usual='bridge_dataset',
                                        scale=('mean', 'std'))
        self._statistics, self._key = chosen['action'], key
        self._identity = f'octo {checkpoint}, statistics {key}'
        self._seeds, self._history, self._task = StepSeeds(), deque(maxlen=WINDOW), None

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode: tokenise the instruction once, forget the frames."""
        self._seeds = StepSeeds(seed)
        self._history.clear()
        self._task = self._model.create_tasks(texts=[instruction])

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k chunks of 4 actions."""
        if self._task is None:
            raise PolicyError('propose was called before reset')
        seed, start = self._seeds.next(), time.perf_counter()
        wrist = observation.wrist_image is not None and 'image_wrist' in self._model.example_batch['observation']
        hand = (resize(observation.wrist_image, WRIST_SIZE),) if wrist else ()
        self._history.append((resize(observation.image), *hand))
        missing = WINDOW - len(self._history)
        # The window is full from the first step on (a second shape would compile a second time); the mask tells
        # the transformer what is padding.
        window = [self._history[0]] * missing + list(self._history)
        mask = np.array([[False] * missing + [True] * len(self._history)])
        inputs = {'timestep_pad_mask': mask} | {
            name: np.stack(frames)[None] for name, frames in zip(('image_primary', 'image_wrist'), zip(*window))}
        if 'pad_mask' in self._model.example_batch['observation']:  # the name in checkpoints of version 1.0
            inputs['pad_mask'] = mask
        bucket = next(size for size in BUCKETS if size >= k)
        prepared = time.perf_counter()
        # JAX keeps 32 bits of an integer seed unless told otherwise: both halves go in.
        key = self._jax.random.fold_in(self._jax.random.PRNGKey(seed & 0xFFFFFFFF), seed >> 32)
        raw = self._model.sample_actions(inputs, self._task, timestep_pad_mask=mask, rng=key, sample_shape=(bucket,))
        actions = unnormalise(np.asarray(raw)[:k, 0], self._statistics)
        used = ('image', 'instruction', 'wrist_image')[:2 + wrist]
        return Candidates(actions, policy=self._identity, seed=seed, used=used, statistics=self._key, stages={
            'prepare': 1e3 * (prepared - start), 'sample': 1e3 * (time.perf_counter() - prepared)})


octo_small = partial(OctoPolicy, 'hf://rail-berkeley/octo-small')
octo_base = partial(OctoPolicy, 'hf://rail-berkeley/octo-base')
octo_small_15 = partial(OctoPolicy, 'hf://rail-berkeley/octo-small-1.5')
octo_base_15 = partial(OctoPolicy, 'hf://rail-berkeley/octo-base-1.5')
