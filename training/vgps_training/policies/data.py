"""Training data of the small policies as arrays in memory, from an .npz file or from recorded bags."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgps_policy_bridge.errors import PolicyError
from vgps_training.data import hindsight


@dataclass(frozen=True)
class PolicyData:
    """N steps of demonstrations in the order they were recorded. Raises PolicyError when the arrays do not fit."""

    images: np.ndarray  # (N, H, W, 3) uint8 RGB
    states: np.ndarray | None  # (N, 7) float32 as in Observation.state, None where they were not recorded
    actions: np.ndarray  # (N, 7) float32: m, rad, openness
    episodes: np.ndarray  # (N,) int, number of the episode of each step
    instruction_ids: np.ndarray  # (N,) int, row of `embeddings`
    embeddings: np.ndarray  # (M, 512) float32
    instructions: tuple[str, ...]  # M texts
    places: np.ndarray | None = None  # (N, 7) float32, as `hindsight.RELATIVE`, NaN where unknown; None: nowhere known

    def __post_init__(self):
        n, m = len(self.images), len(self.embeddings)
        shapes = {'images': self.images.shape[1:] == (*self.images.shape[1:3], 3) and self.images.dtype == np.uint8,
                  'states': self.states is None or self.states.shape == (n, 7),
                  'places': self.places is None or self.places.shape == (n, 7),
                  'actions': self.actions.shape == (n, 7), 'episodes': self.episodes.shape == (n,),
                  'instruction_ids': self.instruction_ids.shape == (n,) and self.instruction_ids.max(initial=0) < m,
                  'embeddings': self.embeddings.shape == (m, 512), 'instructions': len(self.instructions) == m}
        wrong = [name for name, fits in shapes.items() if not fits]
        if wrong or n == 0:
            raise PolicyError(f'training data do not fit together: {", ".join(wrong) or "no steps"}')

    def chunks(self, horizon: int) -> np.ndarray:
        """Return (N, H, 7): each step's action and the next H - 1; past the end nothing moves and the gripper stays."""
        n = len(self.actions)
        result = np.empty((n, horizon, 7), np.float32)
        last = np.append(self.episodes[1:] != self.episodes[:-1], True)
        end = np.flatnonzero(last)[np.cumsum(np.append(False, last[:-1]))]  # index of each step's last step
        for h in range(horizon):
            index = np.minimum(np.arange(n) + h, end)
            result[:, h] = self.actions[index]
            result[np.arange(n) + h > end, h, :6] = 0.0
        return result


def load_npz(path: Path, image_size: int) -> PolicyData:
    """Read images, actions, episodes, instructions, instruction_ids and, where there, states and embeddings.

    Without embeddings the instructions are embedded here.
    """
    from vgps_policy_bridge.policies.small.instruction import embed
    with np.load(path, allow_pickle=False) as file:
        missing = {'images', 'actions', 'episodes', 'instructions', 'instruction_ids'} - set(file.files)
        if missing:
            raise PolicyError(f'{path} lacks {", ".join(sorted(missing))}')
        instructions = tuple(str(text) for text in file['instructions'])
        embeddings = file['embeddings'] if 'embeddings' in file.files else np.stack([embed(t) for t in instructions])
        return PolicyData(_shrink_all(file['images'], image_size), file['states'] if 'states' in file.files else None,
                          file['actions'].astype(np.float32), file['episodes'], file['instruction_ids'],
                          embeddings.astype(np.float32), instructions)


def load_bags(folders: list[Path], image_size: int, successes_only: bool = False) -> PolicyData:
    """Read recorded episodes with the training project's reader (pip install vgps-training).

    Raises PolicyError where nothing usable is left; with `successes_only` failures and unjudged episodes are left out.
    """
    from vgps_policy_bridge.policies.small.instruction import embed
    try:
        from vgps_training.data.bags import is_bag, read
        from vgps_training.data.episode import Episode
    except ImportError as error:
        raise PolicyError(f'reading bags needs the training project: pip install ./training ({error})') from error
    bags = sorted({bag for folder in folders for bag in (folder, *folder.rglob('*')) if is_bag(bag)})
    usable, skipped = [], Counter()
    for episode in (episode for bag in bags for episode in read(bag)):
        if isinstance(episode, Episode) and successes_only and episode.success is not True:
            skipped['it is no success'] += 1
        elif isinstance(episode, Episode):
            usable.append(_steps(episode, image_size))
        else:
            skipped[episode.reason] += 1
    reasons = ''.join(f'\n  {count} x {reason}' for reason, count in skipped.most_common())
    stateful = [steps for steps in usable if steps['states'] is not None]
    if stateful and len(stateful) < len(usable):
        print(f'{len(usable) - len(stateful)} of {len(usable)} episodes lack the robot state and are left out')
        usable = stateful
    if not usable:
        raise PolicyError(f'no usable episode in {", ".join(map(str, folders))}{reasons}')
    if skipped:
        print(f'{skipped.total()} episodes are left out:{reasons}')
    texts = list(dict.fromkeys(steps['instruction'] for steps in usable))
    lengths = [len(steps['actions']) for steps in usable]
    states = np.concatenate([steps['states'] for steps in usable]) if stateful else None
    actions = np.concatenate([steps['actions'] for steps in usable])
    places = None if states is None else _places(states, actions, lengths, [steps['success'] for steps in usable])
    return PolicyData(
        np.concatenate([steps['images'] for steps in usable]), states, actions,
        np.repeat(np.arange(len(usable)), lengths),
        np.repeat([texts.index(steps['instruction']) for steps in usable], lengths),
        np.stack([embed(text) for text in texts]), tuple(texts), places)


def _places(states: np.ndarray, actions: np.ndarray, lengths: list[int], success: list[bool | None]) -> np.ndarray:
    """Return where each step's own episode grasps and releases, relative to its gripper (N, 7), NaN where unknown."""
    starts, succeeded = np.cumsum([0, *lengths[:-1]]), np.array([outcome is True for outcome in success])
    when = hindsight.events(actions, starts)
    truth = hindsight.targets(states, when, hindsight.own_places(states, when, succeeded), starts, succeeded)
    return np.where(truth.known > 0, truth.values, np.nan)[:, hindsight.RELATIVE].astype(np.float32)


def _steps(episode, image_size: int) -> dict:
    """Return an episode of the training project with its frames decoded and shrunk."""
    from vgps_policy_bridge.policies.small.encoder import shrink
    return {'images': np.stack([shrink(np.asarray(frame), image_size) for frame in episode.frames]),
            'states': episode.states, 'actions': np.asarray(episode.actions, np.float32),
            'instruction': episode.instruction, 'success': episode.success}


def _shrink_all(images: np.ndarray, size: int) -> np.ndarray:
    from vgps_policy_bridge.policies.small.encoder import shrink
    if images.shape[1:3] == (size, size):
        return images
    return np.stack([shrink(image, size) for image in images])
