"""Where a policy's checkpoint is, and with which statistics its actions become physical: stated, never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vgps_msgs_py.safetensors_header import regular_file
from vgps_policy_bridge.errors import CandidatesError, PolicyError

COMMIT = re.compile(r'[0-9a-f]{40}')
LARGEST_STEP, LARGEST_TURN = 0.5, np.pi  # [m], [rad] of the data in one step; Fractal's, at 3 Hz, go to 0.22 and 0.58


def split_revision(checkpoint: str) -> tuple[str, str | None]:
    """Return name and revision of `owner/name@revision` (branch, tag or commit); a folder that exists has none."""
    name, at, revision = checkpoint.rpartition('@')
    if not at or Path(checkpoint).exists():
        return checkpoint, None
    if not name or not revision:
        raise PolicyError(f'{checkpoint!r}: a revision is written owner/name@revision')
    return name, revision


def pinned_revision(checkpoint: str, why: str) -> tuple[str, str | None]:
    """Return name and revision of a checkpoint whose own code will run here; only a whole commit cannot change.

    Raises PolicyError for a hub id without one. A local folder is the user's own word.
    """
    name, revision = split_revision(checkpoint)
    if revision is None and Path(name).exists():
        return name, None
    if revision is None or not COMMIT.fullmatch(revision):
        raise PolicyError(f'{checkpoint}: {why} from the hub, and a branch or tag can change: choose a commit at '
                          f'huggingface.co/{name}/commits and give {name}@COMMIT (40 hexadecimal digits), or give a '
                          'folder')
    return name, revision


def dataset_statistics(checkpoint: str, revision: str | None) -> dict:
    """Return what a fine-tuning left in `dataset_statistics.json` beside its weights; {} where there is none.

    Raises PolicyError for a file that is not a map of data sets.
    """
    path = Path(checkpoint) / 'dataset_statistics.json'
    if not Path(checkpoint).exists():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        try:
            path = Path(hf_hub_download(checkpoint, path.name, revision=revision))
        except LocalEntryNotFoundError as error:
            # Without a connection "the file is not there" and "it could not be asked for" look alike.
            raise PolicyError(f'{checkpoint}: whether it has a {path.name} of its own cannot be asked without a '
                              'connection to the hub; download it into a folder first') from error
        except EntryNotFoundError:
            return {}
    if not path.exists():
        return {}
    try:
        regular_file(path)
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise PolicyError(f'{path} is not JSON: {error}') from error
    if not isinstance(found, dict) or not all(isinstance(v, dict) and 'action' in v for v in found.values()):
        raise PolicyError(f'{path} must be a map of data sets, each with the statistics of its "action"')
    return found


def choose_statistics(checkpoint: str, asked: str, own: Mapping, inherited: Mapping, usual: str,
                      scale: tuple[str, str]) -> tuple[str, dict]:
    """Return key and statistics of the data set whose units the actions have.

    A fine-tuned checkpoint's own statistics count, and not those that it inherited from its pre-training; where
    several remain the user has to say which.

    Args:
        checkpoint: for messages.
        asked: key, '' to choose by the rule above.
        own: key -> statistics of the fine-tuning's data, {} where nothing was fine-tuned.
        inherited: key -> statistics in the model's configuration.
        usual: key taken among the inherited ones of a model that was not fine-tuned.
        scale: names of the two statistics that make its actions physical, `q01` and `q99` or `mean` and `std`.

    Raises PolicyError that lists the keys, or says why these statistics do not give motions of an arm.
    """
    known = {**inherited, **own}
    if not asked:
        if len(own or known) == 1:
            asked = next(iter(own or known))
        elif not own and usual in known:
            asked = usual
        else:
            raise PolicyError(f'{checkpoint} has the statistics of several data sets and each gives actions of another '
                              f"size: say which with policy_options '{{statistics: NAME}}': "
                              f'{", ".join(own or known) or "none at all"}')
    if asked not in known:
        raise PolicyError(f'{checkpoint} has no statistics {asked!r}; it has {", ".join(known) or "none"}')
    action = known[asked].get('action')
    if complaint := impossible_statistics(action):
        raise PolicyError(f'{checkpoint}: the statistics {asked!r} were damaged or edited: {complaint}')
    if complaint := _no_motions(action, scale):
        raise PolicyError(f'{checkpoint}: the statistics {asked!r} do not give motions of an arm: {complaint}')
    return asked, known[asked]


def normalised(action: Mapping) -> np.ndarray:
    """Return which of the seven numbers were normalised, (7,) bool: all of them where no mask says otherwise.

    That is what the code of Octo and OpenVLA takes a missing mask for.
    """
    return np.asarray(action.get('mask', [True] * 7), bool)


def _no_motions(action: Mapping, scale: tuple[str, str]) -> str:
    """Say why actions that are scaled so are no steps in metres, radians and openness, or nothing."""
    lacking = [name for name in scale if action.get(name) is None]
    if lacking:
        return f'{" and ".join(lacking)} missing; it has {", ".join(map(str, list(action)[:12]))}'
    first, second = (np.asarray(action[name], np.float64) for name in scale)
    mask = np.asarray(action.get('mask', [True] * 7))
    if first.shape != (7,) or mask.shape != (7,) or mask.dtype != bool:
        return (f'{scale[0]} has the shape {first.shape} and the mask {mask.dtype} {mask.shape}; needed are seven '
                'numbers and seven times true or false: dx dy dz droll dpitch dyaw and the gripper')
    low, high = (first, second) if scale == ('q01', 'q99') else (first - 2 * second, first + 2 * second)
    size = np.maximum(np.abs(low), np.abs(high))
    if not mask[:6].all():
        return f'the mask leaves dimension {int(mask[:6].argmin())} as the network gives it, without a unit'
    if not (high - low)[:6].any():
        return 'they turn every output into the same motion'
    if size[:3].max() > LARGEST_STEP or size[3:6].max() > LARGEST_TURN:
        return (f'steps of up to {size[:3].max():.3g} and turns of up to {size[3:6].max():.3g} are not metres '
                'and radians: commands normalised to -1..1 (LIBERO), joint positions, or other units')
    if mask[6] and (low[6] < -0.5 or high[6] > 2):
        return f'the gripper goes from {low[6]:.3g} to {high[6]:.3g}, which is not an openness 0..1'
    return ''


def impossible_statistics(action: object) -> str:
    """Say what in the statistics of actions cannot be, or nothing: each number scales every motion."""
    if not isinstance(action, Mapping):
        return 'there are none of its actions'
    known: dict[str, np.ndarray] = {}
    for name in ('q01', 'q99', 'mean', 'std', 'min', 'max'):
        try:
            if action.get(name) is not None:
                known[name] = np.asarray(action[name], np.float64)
        except (TypeError, ValueError):
            return f'{name} is not a list of numbers'
    if len({values.shape for values in known.values()}) > 1:
        return 'their lists have different lengths'
    for name, values in known.items():
        if not np.isfinite(values).all():
            return f'{name} holds NaN or infinity'
    if 'std' in known and (known['std'] < 0).any():
        return 'std is negative (mean and std swapped?)'
    for low, high in (('q01', 'q99'), ('min', 'max'), ('min', 'mean'), ('mean', 'max')):
        if low in known and high in known and (known[low] > known[high] + 1e-6).any():
            return f'{low} is above {high} in dimension {int((known[low] > known[high] + 1e-6).argmax())}'
    return ''


def physical_action_width(policy: str, width: int) -> None:
    """Refuse actions that are not BridgeData's seven: cutting them to size would make other motions of them."""
    if width != 7:
        looks = 'joint positions?' if width in (6, 8, 14, 16) else 'padded, or for another robot?'
        raise PolicyError(f'{policy}: actions have {width} dimensions ({looks}); 7 are needed: dx dy dz [m], droll '
                          'dpitch dyaw [rad] per step, gripper openness')


def openness(gripper: np.ndarray, policy: str) -> np.ndarray:
    """Return gripper numbers of any shape clipped to 0..1: what a network gets beyond is its error.

    Raises CandidatesError where most of them lie far outside: another convention, of which clipping makes its contrary.
    """
    if not -0.5 <= np.median(gripper) <= 1.5:  # NaN included
        raise CandidatesError(f'{policy}: gripper values from {np.min(gripper):.3g} to {np.max(gripper):.3g} are not '
                              'an openness, 0 (closed) to 1 (open); in LIBERO and robosuite -1 is open and 1 closed')
    return np.clip(gripper, 0.0, 1.0)
