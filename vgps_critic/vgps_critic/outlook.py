"""Will this episode succeed, and does the critic know what it sees? Calibrated on a robot's own judged episodes.

The runtime half: `vgps-improve` fits an outlook beside a critic (``outlook.safetensors``), `Steerer` follows it step by
step. Three questions, each with a threshold that was calibrated on held-out episodes and never guessed:

- *chance*: of success, from the values so far, their fall, the candidates' spread, the members' disagreement and how
  familiar the frames are (logistic, fitted out of fold); below its conformal threshold the outlook is an alarm, which
  at most a chosen share of the episodes that succeed ever raises;
- *distance*: of the frame's features from those of the training episodes; beyond its conformal limit the critic does
  not know what it sees (another camera pose, table or light, an unknown object), and the plain policy acts;
- *probes*: judged frames of this robot that every critic is asked about before it steers; one that ranks them the wrong
  way round, or not at all, is harmful or was made for something else, and the plain policy acts.
"""

import json
import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vgps_critic.config import CheckpointError
from vgps_critic.whole_files import whole
from vgps_msgs_py.safetensors_header import regular_file

FILE = 'outlook.safetensors'
FORMAT = 'vgps-outlook/1'
WINDOW = 5          # steps over which values and distances are averaged: one second at 5 Hz
FEATURES = ('value', 'value_late', 'fall', 'spread', 'disagreement', 'distance', 'progress', 'progress_squared')
SAME_WORDS = 0.9    # cosine from which on an instruction counts as one of the training's


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Return the chance that a draw of `good` exceeds one of `bad`, ties half; NaN where one is empty."""
    good, bad = np.asarray(good, float), np.asarray(bad, float)
    if not len(good) or not len(bad):
        return math.nan
    below = np.searchsorted(np.sort(bad), good, 'left') + np.searchsorted(np.sort(bad), good, 'right')
    return float(below.mean() / (2 * len(bad)))


@dataclass(frozen=True)
class Probes:
    """Judged moments of this robot's episodes that a critic must rank before it steers."""

    images: np.ndarray        # (P, S, S, 3) uint8 RGB
    actions: np.ndarray       # (P, 7) float32 physical, what was done
    instruction: np.ndarray   # (P,) int32 index into Outlook.instructions
    success: np.ndarray       # (P,) bool, of the episode
    least: float = 0.6        # AUC below which a critic does not steer

    def ask(self, critic, texts: tuple[str, ...]) -> float:
        """Return how well a critic's values rank the probes by outcome: AUC, 0.5 is chance."""
        values = np.array([critic.score(critic.encode(image, texts[int(text)]), action[None]).min()
                           for image, action, text in zip(self.images, self.actions, self.instruction)])
        return auc(values[self.success], values[~self.success])


@dataclass(frozen=True)
class Outlook:
    """What was calibrated for one critic; written and read whole."""

    critic_hash: str
    instructions: tuple[str, ...]
    embeddings: np.ndarray      # (I, L) float32, of the instructions
    means: np.ndarray           # (I, D) float32, features of the training frames per instruction
    whitening: np.ndarray       # (D, D) float32: distance is |(f - mean) @ whitening| / sqrt(D)
    weights: np.ndarray         # (len(FEATURES) + 1,) float32, logistic, the last is the constant
    floor: float                # value of an episode that never succeeds, -1 / (1 - discount)
    threshold: float = 0.0      # chance below which an alarm is raised; 0: never (too few held-out successes)
    false_alarms: float = 0.05  # share of successes that may raise one
    limit: float = math.inf     # mean distance over WINDOW beyond which the critic is out of its data
    probes: Probes | None = None
    facts: dict = field(default_factory=dict)  # how it was calibrated, for people

    def distance(self, features: np.ndarray, embedding: np.ndarray) -> float:
        """Return how far features (D,) are from the training frames of the nearest instruction; 1 is typical."""
        nearest = int((self.embeddings @ embedding).argmax())
        return float(np.linalg.norm((features - self.means[nearest]) @ self.whitening) / math.sqrt(len(features)))

    def knows(self, embedding: np.ndarray) -> float:
        """Return the cosine of an instruction's embedding (L,) with the nearest of the training's."""
        norms = np.linalg.norm(self.embeddings, axis=1) * np.linalg.norm(embedding)
        return float((self.embeddings @ embedding / np.maximum(norms, 1e-9)).max())

    def save(self, folder: Path | str) -> None:
        """Write ``outlook.safetensors`` into a critic's folder."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), np.float32)
                  for name in ('embeddings', 'means', 'whitening', 'weights')}
        texts = {'format': FORMAT, 'critic_hash': self.critic_hash, 'instructions': self.instructions,
                 'floor': self.floor, 'threshold': self.threshold, 'false_alarms': self.false_alarms,
                 'limit': self.limit, 'facts': self.facts}
        if self.probes is not None:
            arrays |= {'probe_images': self.probes.images, 'probe_actions': self.probes.actions.astype(np.float32),
                       'probe_instruction': self.probes.instruction.astype(np.int32),
                       'probe_success': self.probes.success.astype(np.uint8)}
            texts['least'] = self.probes.least
        with whole(Path(folder) / FILE) as temporary:
            save_file(arrays, temporary, metadata={'outlook': json.dumps(texts)})
            temporary.chmod(0o644)

    @classmethod
    def load(cls, folder: Path | str) -> 'Outlook | None':
        """Return the outlook of a critic's folder, None where it has none.

        Raises:
            CheckpointError: there is one and it is damaged or foreign.

        """
        path = Path(folder) / FILE
        if not path.exists():
            return None
        try:
            regular_file(path)
            with safe_open(path, 'numpy') as file:
                texts = json.loads((file.metadata() or {}).get('outlook', '{}'))
                arrays = {name: file.get_tensor(name).copy() for name in file.keys()}
            if not isinstance(texts, dict) or texts.pop('format', None) != FORMAT:
                raise CheckpointError(f'{path}: not an outlook of this project, its "format" is not {FORMAT!r}')
            least = texts.pop('least', None)
            probes = None if least is None else Probes(
                arrays.pop('probe_images'), arrays.pop('probe_actions'), arrays.pop('probe_instruction'),
                arrays.pop('probe_success').astype(bool), least)
            texts['instructions'] = tuple(texts['instructions'])
            outlook = cls(**texts, **arrays, probes=probes)
            wrong = outlook._wrong()
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
            raise e if isinstance(e, CheckpointError) else CheckpointError(f'{path}: {str(e)[:200]}') from e
        if wrong:
            raise CheckpointError(f'{path}: {wrong}')
        return outlook

    def _wrong(self) -> str:
        """Return what does not fit together, or '': the file may be anybody's."""
        count, dim = len(self.instructions), self.means.shape[-1] if self.means.ndim else 0
        shapes = {'embeddings': (count, self.embeddings.shape[-1] if self.embeddings.ndim else 0),
                  'means': (count, dim), 'whitening': (dim, dim), 'weights': (len(FEATURES) + 1,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or 0 in shape or array.dtype != np.float32 or not np.isfinite(array).all():
                return f'{name} is not {shape} finite float32'
        numbers = {name: getattr(self, name) for name in ('floor', 'threshold', 'false_alarms', 'limit')}
        for name, value in (numbers if self.probes is None else numbers | {'least': self.probes.least}).items():
            if type(value) not in (int, float) or math.isnan(value) or (
                    name == 'floor' and not -math.inf < value < 0):
                return f'{name} is {str(value)[:80]!r}, which is not possible'
        if not all(isinstance(text, str) for text in (self.critic_hash, *self.instructions)):
            return 'critic_hash and instructions must be texts'
        if not isinstance(self.facts, dict):
            return 'facts must be a table'
        probes = self.probes
        if probes is not None:
            number = len(probes.success) if probes.success.ndim == 1 else -1
            if (probes.images.ndim != 4 or probes.images.shape != (number, *probes.images.shape[1:3], 3)
                    or probes.images.dtype != np.uint8 or 0 in probes.images.shape
                    or probes.actions.shape != (number, 7) or not np.isfinite(probes.actions).all()
                    or probes.instruction.shape != (number,) or probes.instruction.dtype.kind not in 'iu'
                    or probes.instruction.min() < 0 or probes.instruction.max() >= count):
                return 'the arrays of the probes differ in length'
        return ''


@dataclass(frozen=True)
class StepOutlook:
    """What is expected after one step."""

    chance: float         # 0..1, NaN where nothing was scored
    distance: float       # mean over WINDOW, 1 is typical; NaN without a frame
    alarm: bool           # the chance is below its threshold
    out_of_data: bool     # the distance is beyond its limit


NOTHING = StepOutlook(math.nan, math.nan, False, False)


class Tracker:
    """Follows one episode. `look` before the choice, `judge` after it; `reset` at its start."""

    def __init__(self, outlook: Outlook):
        self.outlook = outlook
        self.reset(0)

    def reset(self, max_steps: int) -> None:
        """Begin an episode of at most `max_steps` (0: not known)."""
        self._max_steps, self._step = max_steps or 60, 0
        self._values, self._distances = deque(maxlen=WINDOW), deque(maxlen=WINDOW)
        self._best = -math.inf

    def forget(self) -> None:
        """Begin another attempt in the same episode: its time goes on, its values begin anew."""
        self._values.clear()
        self._best = -math.inf

    def look(self, distance: float) -> tuple[float, bool]:
        """Take this frame's distance; return the mean of the last ones and whether they are out of the data."""
        if math.isfinite(distance):
            self._distances.append(distance)
        mean = float(np.mean(self._distances)) if self._distances else math.nan
        return mean, mean > self.outlook.limit

    def features(self, value: float, spread: float, disagreement: float) -> np.ndarray:
        """Return the features (len(FEATURES),) after this step, given the chosen candidate's value; advances."""
        self._values.append(value)
        scale, progress = -self.outlook.floor, min(self._step / self._max_steps, 1.0)
        mean = float(np.mean(self._values)) / scale  # -1: never succeeds, 0: now
        self._best = max(self._best, mean)
        self._step += 1
        distance = float(np.mean(self._distances)) if self._distances else 1.0
        return np.array([mean, mean * progress, mean - self._best, math.log1p(max(spread, 0.0)),
                         math.log1p(max(disagreement, 0.0)), math.log(max(distance, 1e-3)), progress, progress**2])

    def judge(self, value: float, spread: float, disagreement: float) -> StepOutlook:
        """Return the outlook after this step's choice."""
        distance = float(np.mean(self._distances)) if self._distances else math.nan
        if not math.isfinite(value):
            self._step += 1
            return StepOutlook(math.nan, distance, False, distance > self.outlook.limit)
        logit = float(np.append(self.features(value, spread, disagreement), 1.0) @ self.outlook.weights)
        chance = 1 / (1 + math.exp(-min(max(logit, -30.0), 30.0)))
        return StepOutlook(chance, distance, chance < self.outlook.threshold, distance > self.outlook.limit)
