"""RT-1-X (JAX checkpoint): K x 7 independent token draws from the logits of one forward pass.

No action token of RT-1 attends to another, so the dimensions are independent given the images and drawing them one by
one is exact. The TensorFlow SavedModel takes the argmax inside its graph and hides the logits: it cannot sample.

What the tokens mean depends on the robot. The source is `simpler_env/policies/rt1/rt1_model.py` of SimplerEnv 4ab7178,
in which `policy_setup` sets

    google_robot    unnormalize_action = False   invert_gripper_action = False   action_rotation_mode = "axis_angle"
    widowx_bridge   unnormalize_action = True    invert_gripper_action = True    action_rotation_mode = "rpy"

and for the Google Robot keeps the gripper's action as a change (1 closing, -1 opening; below 0.01 nothing). Its
evaluation ends an episode after the step in which the model says terminate.
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
from vgps_policy_bridge.policy import FRACTAL, LARGEST_STEP, Candidates, Observation, StepSeeds

FRAMES, IMAGE_SIZE, VOCABULARY = 15, 300, 512
IMAGE_TOKENS, ACTION_TOKENS = 81, 11
EMBEDDING = 512  # of an instruction by USE-large/5
# Arguments of rt1.RT1 that the checkpoint was trained with.
MODEL = {'num_image_tokens': IMAGE_TOKENS, 'num_action_tokens': ACTION_TOKENS, 'layer_size': 256,
         'vocab_size': VOCABULARY, 'use_token_learner': True, 'world_vector_range': (-2.0, 2.0)}
# Tokens of the arm within the 11: world vector, rotation, gripper closedness. Token 0 is the mode, 8..10 move a base.
ARM, MODE = slice(1, 8), 0
TERMINATE = 0  # of the modes
LOW = np.array([-2.0] * 3 + [-np.pi / 2] * 3 + [-1.0])
HIGH = -LOW
STATISTICS = ('bridge_dataset', FRACTAL)  # data sets in whose units it acts: the WidowX's, the Google Robot's
FRACTAL_SIZE = 256, 320   # height, width [pixels] of that data's pictures
UNCHANGED, STATED = 0.01, 0.1  # closedness: a change below the first is none; one beyond the second is a new state


def token_values(tokens: np.ndarray) -> np.ndarray:
    """Return what tokens (K, 7) in 0 .. 511 say: world vector, rotation, closedness, linear over their ranges."""
    return LOW + np.asarray(tokens) / (VOCABULARY - 1) * (HIGH - LOW)


def unnormalise(tokens: np.ndarray) -> np.ndarray:
    """Return physical WidowX actions (K, 7) float32 of tokens (K, 7) in 0 .. 511.

    RT-1-X speaks in its own units: world vector / 1.75 of 0.05 m, rotation / 1.4 of 0.25 rad, closedness -1 .. 1 with
    +1 closed. The token's value is linear between the ends of its range.
    """
    values = token_values(tokens)
    actions = np.empty_like(values)
    actions[:, :3] = np.clip(values[:, :3] / 1.75, -1, 1) * 0.05
    actions[:, 3:6] = np.clip(values[:, 3:6] / 1.4, -1, 1) * 0.25
    actions[:, 6] = values[:, 6] < 0
    return actions.astype(np.float32)


def google_actions(tokens: np.ndarray, openness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return physical actions of the Google Robot (K, 7) and its gripper's commands (K,), both float32.

    World vector and rotation are metres and a rotation vector as they are; the latter is returned as roll, pitch, yaw.
    The closedness is a change. The openness that follows from it is what critics were trained on: beyond 0.1 it is a
    new state, as in the authors' loader of this data, otherwise that of before.

    Args:
        tokens: (K, 7) in 0 .. 511.
        openness: of before, 1 open, 0 closed.
    """
    from scipy.spatial.transform import Rotation
    values = token_values(tokens)
    closing = np.where(np.abs(values[:, 6]) < UNCHANGED, 0.0, values[:, 6])
    actions = np.empty_like(values)
    actions[:, :3] = values[:, :3]
    actions[:, 3:6] = Rotation.from_rotvec(values[:, 3:6]).as_euler('xyz')
    actions[:, 6] = np.where(closing > STATED, 0.0, np.where(closing < -STATED, 1.0, openness))
    return actions.astype(np.float32), closing.astype(np.float32)


def within_reach(logits: np.ndarray) -> np.ndarray:
    """Return the arm's logits (7, 512) without the tokens of a world vector beyond LARGEST_STEP.

    They make up three quarters of the range but are no arm's step; a few of K draws would always be among them.
    """
    values = token_values(np.arange(VOCABULARY)[:, None] * np.ones(7)).T
    beyond = np.abs(values) > LARGEST_STEP
    beyond[3:] = False
    return np.where(beyond, -np.inf, logits)


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
    return bilinear(image, (IMAGE_SIZE, IMAGE_SIZE)) / 255.0


def bilinear(image: np.ndarray, to: tuple[int, int]) -> np.ndarray:
    """Return an image (height, width, 3) float32 in levels: half-pixel centres, no antialiasing."""
    height, width = image.shape[:2]
    rows, columns = ((np.arange(pixels) + 0.5) * size / pixels - 0.5 for pixels, size in zip(to, (height, width)))
    top, left = (np.clip(np.floor(x).astype(int), 0, size - 1) for x, size in ((rows, height), (columns, width)))
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down = np.clip(rows - top, 0, 1)[:, None, None].astype(np.float32)
    across = np.clip(columns - left, 0, 1)[None, :, None].astype(np.float32)
    pixels = image.astype(np.float32)
    upper = pixels[top][:, left] * (1 - across) + pixels[top][:, right] * across
    lower = pixels[bottom][:, left] * (1 - across) + pixels[bottom][:, right] * across
    return upper * (1 - down) + lower * down


def as_recorded(image: np.ndarray) -> np.ndarray:
    """Return (256, 320, 3) uint8: what the Google Robot's camera sees, as its data hold it and SimplerEnv shows it."""
    return image if image.shape[:2] == FRACTAL_SIZE else bilinear(image, FRACTAL_SIZE).astype(np.uint8)


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
        statistics: data set in whose units it acts: `bridge_dataset`, also meant by '', for the WidowX, or
            `fractal20220817_data` for the Google Robot. It has no statistics of its own; Octo and OpenVLA call it so.
    """

    def __init__(self, source: str, checkpoint: str, embeddings: str = '', statistics: str = ''):
        if statistics not in ('', *STATISTICS):
            raise PolicyError(f'rt-1-x: statistics must be one of {", ".join(STATISTICS)}, not {statistics!r}')
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
        self._google = statistics == FRACTAL
        self._statistics = statistics or STATISTICS[0]
        self._identity = f'rt-1-x {checkpoint}' + f', statistics {FRACTAL}' * self._google
        self.temperature = 1.0
        self._seeds, self._words = StepSeeds(), None
        self._history: deque = deque(maxlen=FRAMES)
        self._openness, self._proposed = 1.0, np.ones(0)

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode: embed the instruction once, forget the frames."""
        self._seeds = StepSeeds(seed)
        self._words = self._embed(instruction)
        self._history.clear()
        self._openness, self._proposed = 1.0, np.ones(0)

    def committed(self, index: int) -> None:
        """Take note of what was executed: the Google Robot's gripper stays as it was last told; -1 tells it nothing."""
        if 0 <= index < len(self._proposed):
            self._openness = float(self._proposed[index])

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k single actions."""
        if self._words is None:
            raise PolicyError('propose was called before reset')
        seed, start = self._seeds.next(), time.perf_counter()
        image = resize(as_recorded(observation.image) if self._google else observation.image)
        prepared = time.perf_counter()
        # A frame's tokens do not depend on other frames: each is encoded once, not 15 times.
        self._history.append(self._image_tokens(image, self._words))
        frames = np.stack([self._nothing] * (FRAMES - len(self._history)) + list(self._history))
        encoded = time.perf_counter()
        logits = np.asarray(self._logits(frames))
        computed = time.perf_counter()
        arm = within_reach(logits[ARM]) if self._google else logits[ARM]
        tokens, log_p = draw_tokens(arm, k, float(self.temperature), np.random.default_rng(seed))
        if self._google:
            actions, closing = google_actions(tokens, self._openness)
            self._proposed = actions[:, 6]
        else:
            actions, closing = unnormalise(tokens), None
        return Candidates(
            actions[:, None], policy=self._identity, log_probabilities=log_p, seed=seed, statistics=self._statistics,
            # The mode is not drawn: a small chance at each step would end most episodes.
            closing=closing, finished=self._google and int(logits[MODE].argmax()) == TERMINATE,
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
