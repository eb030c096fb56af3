"""RT-1-X (JAX checkpoint): K x 7 independent token draws from the logits of one forward pass.

No action token of RT-1 attends to another, so the dimensions are independent given the images and drawing them one by
one is exact. The TensorFlow SavedModel takes the argmax inside its graph and hides the logits: it cannot sample.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from vgps_policy_bridge.errors import MissingExtraError, PolicyError
from vgps_policy_bridge.policy import Candidates, Observation, StepSeeds

FRAMES, IMAGE_SIZE, VOCABULARY = 15, 300, 512
IMAGE_TOKENS, ACTION_TOKENS = 81, 11
EMBEDDING = 512  # of an instruction by USE-large/5
# Arguments of rt1.RT1 that the checkpoint was trained with.
MODEL = {'num_image_tokens': IMAGE_TOKENS, 'num_action_tokens': ACTION_TOKENS, 'layer_size': 256,
         'vocab_size': VOCABULARY, 'use_token_learner': True, 'world_vector_range': (-2.0, 2.0)}
# Tokens of the arm within the 11: world vector, rotation, gripper closedness. Token 0 terminates, 8..10 move a base.
ARM = slice(1, 8)
LOW = np.array([-2.0] * 3 + [-np.pi / 2] * 3 + [-1.0])
HIGH = -LOW


def unnormalise(tokens: np.ndarray) -> np.ndarray:
    """Return physical WidowX actions (K, 7) float32 of tokens (K, 7) in 0 .. 511.

    RT-1-X speaks in its own units: world vector / 1.75 of 0.05 m, rotation / 1.4 of 0.25 rad, closedness -1 .. 1 with
    +1 closed. The token's value is linear between the ends of its range.
    """
    values = LOW + np.asarray(tokens) / (VOCABULARY - 1) * (HIGH - LOW)
    actions = np.empty_like(values)
    actions[:, :3] = np.clip(values[:, :3] / 1.75, -1, 1) * 0.05
    actions[:, 3:6] = np.clip(values[:, 3:6] / 1.4, -1, 1) * 0.25
    actions[:, 6] = values[:, 6] < 0
    return actions.astype(np.float32)


def draw_tokens(logits: np.ndarray, k: int, temperature: float,
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens (K, D) and log-probabilities (K,) of independent draws from logits (D, V).

    Temperature 0 takes the most probable token.
    """
    scaled = np.asarray(logits, np.float64) / max(temperature, 1e-3)
    log_p = scaled - scaled.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    # Gumbel's trick: argmax of log p + noise is a draw from p.
    noise = rng.gumbel(size=(k, *log_p.shape)) if temperature > 0 else 0.0
    tokens = (np.broadcast_to(log_p, (k, *log_p.shape)) + noise).argmax(2)
    return tokens, np.take_along_axis(log_p[None], tokens[..., None], 2)[..., 0].sum(1)


def resize(image: np.ndarray) -> np.ndarray:
    """Return (300, 300, 3) float32 in 0..1: bilinear without antialiasing, half-pixel centres, as in training."""
    height, width = image.shape[:2]
    rows, columns = ((np.arange(IMAGE_SIZE) + 0.5) * size / IMAGE_SIZE - 0.5 for size in (height, width))
    top, left = (np.clip(np.floor(x).astype(int), 0, size - 1) for x, size in ((rows, height), (columns, width)))
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down = np.clip(rows - top, 0, 1)[:, None, None].astype(np.float32)
    across = np.clip(columns - left, 0, 1)[None, :, None].astype(np.float32)
    pixels = image.astype(np.float32)
    upper = pixels[top][:, left] * (1 - across) + pixels[top][:, right] * across
    lower = pixels[bottom][:, left] * (1 - across) + pixels[bottom][:, right] * across
    return (upper * (1 - down) + lower * down) / 255.0


def import_model_code(source: str) -> ModuleType:
    """Return the module rt1 of the folder."""
    sys.path.insert(0, str(source))  # the files import each other by these names
    try:
        return import_module('rt1')
    finally:
        sys.path.remove(str(source))


class RT1XPolicy:
    """RT-1-X behind the seam.

    Args:
        source: folder with rt1.py, efficientnet.py, film_conditioning.py and token_learner.py of the
            open_x_embodiment repository (its `models`); it is no installable package.
        checkpoint: folder of the JAX checkpoint (rt_1_x_jax).
        embeddings: .npz with `instructions` (N,) and `embeddings` (N, 512) of USE-large/5; '' asks TensorFlow Hub.
    """

    def __init__(self, source: str, checkpoint: str, embeddings: str = ''):
        for folder, name in ((source, 'source'), (checkpoint, 'checkpoint')):
            if not Path(folder).is_dir():
                raise PolicyError(f'rt-1-x: {name} {folder!r} is not a folder')
        if (Path(checkpoint) / 'saved_model.pb').exists():
            raise PolicyError('rt-1-x: this is the TensorFlow SavedModel. It takes the argmax inside its graph, so all '
                              'K candidates would be equal; use the JAX checkpoint rt_1_x_jax')
        try:
            import jax
            from flax.training import checkpoints
            model = import_model_code(source).RT1(**MODEL)
        except ImportError as error:
            raise MissingExtraError('rt-1-x', 'rt1x', error) from error
        state = checkpoints.restore_checkpoint(checkpoint, None)
        if state is None:
            raise PolicyError(f'rt-1-x: no checkpoint in {checkpoint}')
        unused = jax.random.PRNGKey(0)  # asked for by the encoder's dropout even when that is off

        def image_tokens(weights, image, words):
            return model.apply(weights, image[None, None], words[None, None], train=False,
                               rngs={'random': unused}, method='tokenize_image')[0, 0]

        def logits(weights, tokens):
            inputs = {'image': jax.numpy.empty((1, FRAMES))}  # only its leading sizes are read
            past = jax.numpy.zeros((1, FRAMES, ACTION_TOKENS))  # zeroed inside: the model sees no past actions
            output = model.apply(weights, inputs, act=None, obs_tokens=tokens[None], act_tokens=past, train=False)
            last = output.reshape(FRAMES, IMAGE_TOKENS + ACTION_TOKENS, -1)[-1]
            return last[IMAGE_TOKENS - 1:-1]  # each position predicts the next token
        # The weights are an argument: closed over they would be constants, which XLA takes minutes to fold.
        weights = jax.device_put({'params': state['params'], 'batch_stats': state['batch_stats']})
        self._image_tokens, self._logits = (partial(jax.jit(f), weights) for f in (image_tokens, logits))
        # Before the episode there was nothing: zeros, words included, as the training data were padded.
        self._nothing = self._image_tokens(np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32),
                                           np.zeros(EMBEDDING, np.float32))
        self._embed = _embedder(embeddings)
        self._identity = f'rt-1-x {checkpoint}'
        self.temperature = 1.0
        self._seeds, self._words = StepSeeds(), None
        self._history: deque = deque(maxlen=FRAMES)

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode: embed the instruction once, forget the frames."""
        self._seeds = StepSeeds(seed)
        self._words = self._embed(instruction)
        self._history.clear()

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k single actions."""
        if self._words is None:
            raise PolicyError('propose was called before reset')
        seed, start = self._seeds.next(), time.perf_counter()
        image = resize(observation.image)
        prepared = time.perf_counter()
        # A frame's tokens do not depend on other frames: each is encoded once, not 15 times.
        self._history.append(self._image_tokens(image, self._words))
        frames = np.stack([self._nothing] * (FRAMES - len(self._history)) + list(self._history))
        encoded = time.perf_counter()
        logits = np.asarray(self._logits(frames))[ARM]
        computed = time.perf_counter()
        tokens, log_p = draw_tokens(logits, k, float(self.temperature), np.random.default_rng(seed))
        return Candidates(
            unnormalise(tokens)[:, None], policy=self._identity, log_probabilities=log_p, seed=seed,
            temperature=float(self.temperature), stages={
                'prepare': 1e3 * (prepared - start), 'encode': 1e3 * (encoded - prepared),
                'forward': 1e3 * (computed - encoded), 'sample': 1e3 * (time.perf_counter() - computed)})


def _embedder(path: str):
    """Return instruction -> (512,) float32."""
    if path:
        with np.load(path, allow_pickle=False) as file:
            table = {str(text): row for text, row in zip(file['instructions'], file['embeddings'].astype(np.float32))}

        def look_up(instruction: str) -> np.ndarray:
            if instruction not in table:
                raise PolicyError(f'rt-1-x: {path} has no embedding of {instruction!r}; it has {", ".join(table)}')
            return table[instruction]
        return look_up
    try:
        import tensorflow_hub
    except ImportError as error:
        raise MissingExtraError('rt-1-x', 'rt1x', error) from error
    model = tensorflow_hub.load('https://tfhub.dev/google/universal-sentence-encoder-large/5')
    return lambda instruction: np.asarray(model([instruction]), np.float32)[0]
