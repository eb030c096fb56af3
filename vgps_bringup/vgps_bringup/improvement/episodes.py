"""A lab's own recordings as labelled episodes: what was seen, proposed, done, and what became of it.

What counts, and why:

- A judged episode teaches by every step: the value of what was *done* is the return that followed. Candidates that were
  not sent have no outcome and get no label, so no wishful value is ever learnt for them.
- Plain episodes (`selection: first` or K = 1) tell what the policy's own draws are worth; steered ones what the choices
  were worth. Both are kept: given frame and action, the outcome does not depend on why the action was chosen, because
  the choice saw nothing but that frame. Their mix does bias which actions are seen at all, hence the gate's question
  about actions (`gate.py`) is asked of draws whose chances are known.
- An operator's takeover splits an episode: what came before it counts as a failure of the policy (somebody had to save
  it), the operator's steps and what followed count by the outcome.
- Unjudged, cancelled and cut off episodes teach nothing; how many were left out is said.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vgps_critic.whole_files import whole
from vgps_msgs_py import stamps
from vgps_msgs_py.bags.camera import one_frame, stood_still
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord
from vgps_msgs_py.bags.storage import BagError, BagStorage
from vgps_msgs_py.lanczos import resize
from vgps_msgs_py.robot_state import measured_state
from vgps_msgs_py.vocabulary import CommandKind, SteeringReason, Verdict

JUDGED = {'success': True, 'failure': False, 'timeout': False}
SHORTEST = 2  # steps
READER = 2    # raised where a recording is read otherwise than before: what was kept of it is not used then


@dataclass(frozen=True)
class Recorded:
    """One judged episode of T steps at the critic's image size."""

    name: str                  # bag and episode id
    bag: str                   # SHA-256 of the recording
    instruction: str
    success: bool
    max_steps: int
    frames: np.ndarray         # (T, S, S, 3) uint8 RGB
    actions: np.ndarray        # (T, 7) float32 physical, what was sent to the robot
    states: np.ndarray | None  # (T, 7) float32 before each step, None where one is missing
    candidates: np.ndarray     # (T, K, 7) float32, first actions; NaN beyond a step's own K
    chances: np.ndarray        # (T, K) float32, with which each candidate was drawn; NaN where that is not known
    chosen: np.ndarray         # (T,) int, -1 where no candidate was sent
    corrected: np.ndarray      # (T,) bool, the operator acted

    def __len__(self) -> int:
        return len(self.actions)


@dataclass
class Recordings:
    """All episodes of some bags, and what was left out."""

    episodes: list[Recorded] = field(default_factory=list)
    bags: list[dict] = field(default_factory=list)       # name, sha256, episodes, successes
    judged_by: set[str] = field(default_factory=set)
    skipped: Counter = field(default_factory=Counter)    # reason -> episodes


def find_bags(paths: Iterable[Path]) -> list[Path]:
    """Return every recording in or below some folders, in order of their names.

    Raises:
        BagError: a path holds none.

    """
    found = []
    for path in paths:
        below = sorted({file.parent for file in path.rglob('*') if file.name.endswith(('.mcap', '.db3'))})
        if not below:
            raise BagError(f'{path} holds no recording (.mcap or .db3)')
        found += below
    return found


def digest(bag: Path) -> str:
    """Return the SHA-256 (hex) of a recording's files."""
    result = hashlib.sha256()
    for file in BagStorage(bag).files:
        with file.open('rb') as stream:
            for block in iter(lambda: stream.read(1 << 20), b''):
                result.update(block)
    return result.hexdigest()


def read(bags: Sequence[Path], image_size: int, cache: Path) -> Recordings:
    """Return the judged episodes of recordings; what was read once is kept in ``cache``, by content.

    Args:
        bags: folders, from ``find_bags``.
        image_size: of the critic, pixels.
        cache: folder, made if absent.

    """
    cache.mkdir(parents=True, exist_ok=True)
    result, seen = Recordings(), set()
    for bag in tqdm(bags, desc='reading', unit='recording', disable=None):
        sha = digest(bag)
        if sha in seen:
            result.skipped['the same recording was given twice'] += 1
            continue
        seen.add(sha)
        kept = cache / f'{sha[:16]}-{image_size}-{READER}.npz'
        if not kept.exists():
            try:
                episodes, facts = _read_bag(bag, sha, image_size)
            except BagError as error:
                result.skipped[f'recording cannot be read: {error}'] += 1
                continue
            _save(kept, episodes, facts)
        episodes, facts = _load(kept)
        result.episodes += episodes
        result.skipped.update(facts['skipped'])
        result.judged_by.add(facts['judged_by'])
        if episodes:
            result.bags.append({'name': bag.name, 'sha256': sha, 'episodes': len(episodes),
                                'successes': sum(e.success for e in episodes)})
    return result


def learnable(episodes: Iterable[Recorded]) -> list[Recorded]:
    """Return the pieces that values are learnt from: episodes are split where an operator first took over."""
    pieces = []
    for episode in episodes:
        first = int(episode.corrected.argmax()) if episode.corrected.any() else 0
        if first >= SHORTEST:
            pieces.append(_part(replace(episode, success=False, name=f'{episode.name}/before'), slice(0, first)))
        if len(episode) - first >= SHORTEST:
            pieces.append(_part(episode, slice(first, None)))
    return pieces


def save_table(folder: Path, episodes: list[Recorded]) -> None:
    """Write episodes as the saved table that ``vgps-train`` and ``vgps-pretrain`` read."""
    folder.mkdir(parents=True, exist_ok=True)
    instructions = sorted({e.instruction for e in episodes})
    lengths = np.array([len(e) for e in episodes])
    arrays = {'frames': np.concatenate([e.frames for e in episodes]),
              'actions': np.concatenate([e.actions for e in episodes]),
              'starts': np.concatenate([[0], np.cumsum(lengths)[:-1]]),
              'instruction': np.array([instructions.index(e.instruction) for e in episodes], np.int32),
              'success': np.array([e.success for e in episodes], np.int8)}
    if all(e.states is not None for e in episodes):
        arrays['states'] = np.concatenate([e.states for e in episodes])
    for name, array in arrays.items():
        np.save(folder / f'{name}.npy', array)
    texts = {'instructions': instructions, 'sources': [e.name for e in episodes]}
    (folder / 'table.json').write_text(json.dumps(texts, ensure_ascii=False))  # last: marks the table as complete


def _part(episode: Recorded, steps: slice) -> Recorded:
    arrays = {name: getattr(episode, name)[steps] for name in ('frames', 'actions', 'candidates', 'chances', 'chosen',
                                                               'corrected')}
    return replace(episode, states=None if episode.states is None else episode.states[steps], **arrays)


def _read_bag(path: Path, sha: str, image_size: int) -> tuple[list[Recorded], dict]:
    bag, skipped, episodes = Bag(path), Counter(), []
    measured = sorted(((stamps.nanoseconds(message.header.stamp), measured_state(message.measured_pose,
                                                                         message.gripper_position))
                       for _, message, _ in bag.of_type('ControllerState')), key=lambda item: item[0])
    most_steps = {message.episode_id: int(message.max_steps) for _, message, _ in bag.of_type('Episode')}
    records = [record for record in bag.episodes if _usable(record, skipped)]
    wanted = {step.stamp for record in records for step in record.steps}
    frames = {}
    for frame in bag.frames(wanted=wanted) if records else ():
        try:
            frames[frame.stamp] = resize(frame.image(), image_size)
        except ValueError:
            continue  # its episode is left out below
    for record in records:
        steps = [step for step in record.steps if _action(step) is not None]
        if any(step.stamp not in frames for step in steps):
            skipped['the frame of a step is missing or damaged'] += 1
        elif len(steps) < SHORTEST:
            skipped[f'fewer than {SHORTEST} steps'] += 1
        else:
            states = _states(steps, measured)
            episode = _recorded(record, steps, frames, states, f'{path.name}/{record.episode_id}', sha,
                                max(most_steps.get(record.episode_id, 0), len(steps)))
            same = [np.array_equal(one, after) for one, after in pairwise(episode.frames)]
            where = [np.full(3, np.nan) if state is None else state[:3] for state in states]
            if stood := stood_still(same, np.array(where)):
                skipped[stood] += 1
            else:
                episodes.append(episode)
    simulated = bool(bag.of_type('TaskState'))
    return episodes, {'skipped': dict(skipped), 'judged_by': "the simulation's oracle" if simulated else 'the operator'}


def _usable(record: EpisodeRecord, skipped: Counter) -> bool:
    if record.outcome not in JUDGED:
        skipped[f'never judged: {record.outcome}'] += 1
    elif wrong := record.contradiction or one_frame([s.stamp for s in record.steps if _action(s) is not None] or [1]):
        skipped[wrong] += 1
    else:
        return True
    return False


def _action(step) -> np.ndarray | None:
    """Return the (7,) action that was sent to the robot, None where it held."""
    if step.command is not None:
        return np.asarray(step.command.action, np.float32) if step.command.kind == CommandKind.ACTION else None
    if step.decision is not None and step.decision.verdict != Verdict.HOLD:
        return np.asarray(step.decision.action, np.float32)
    return None


def _states(steps, measured) -> list[np.ndarray | None]:
    """Return the state (7,) before each step, None where none was measured."""
    times = np.array([time for time, _ in measured])
    return [measured[at][1] if (at := int(np.searchsorted(times, step.stamp, 'right')) - 1) >= 0 else None
            for step in steps]


def _recorded(record, steps, frames, states, name: str, sha: str, max_steps: int) -> Recorded:
    most = max([step.candidates.num_candidates for step in steps if step.candidates is not None], default=1)
    candidates = np.full((len(steps), most, 7), np.nan, np.float32)
    chances, chosen = np.full((len(steps), most), np.nan, np.float32), np.full(len(steps), -1)
    for row, step in enumerate(steps):
        if step.candidates is None or step.decision is None:
            continue
        count = step.candidates.num_candidates
        candidates[row, :count] = step.actions[:, 0]
        decision = step.decision
        if decision.verdict == Verdict.FIRST_CANDIDATE:  # the plain policy's own draw, any of them as likely
            chances[row, :count] = 1 / count
        elif decision.verdict == Verdict.CHOSEN:
            steered = decision.reason == SteeringReason.STEERED
            chances[row, :count] = decision.probabilities if steered else 1 / count
        if decision.verdict in (Verdict.CHOSEN, Verdict.FIRST_CANDIDATE):
            chosen[row] = decision.chosen
    corrected = np.array([step.decision is not None and step.decision.verdict == Verdict.OPERATOR for step in steps])
    return Recorded(name, sha, record.instruction, JUDGED[record.outcome], max_steps,
                    np.stack([frames[step.stamp] for step in steps]), np.stack([_action(step) for step in steps]),
                    None if any(s is None for s in states) else np.stack(states), candidates, chances, chosen,
                    corrected)


def _save(path: Path, episodes: list[Recorded], facts: dict) -> None:
    names = ('frames', 'actions', 'candidates', 'chances', 'chosen', 'corrected')
    arrays = {f'{name}{i}': getattr(e, name) for i, e in enumerate(episodes) for name in names}
    arrays |= {f'states{i}': e.states for i, e in enumerate(episodes) if e.states is not None}
    texts = {**facts, 'episodes': [{name: getattr(e, name) for name in ('name', 'bag', 'instruction', 'success',
                                                                        'max_steps')} for e in episodes]}
    with whole(path) as temporary:
        np.savez(temporary, facts=np.array(json.dumps(texts)), **arrays)


def _load(path: Path) -> tuple[list[Recorded], dict]:
    with np.load(path, allow_pickle=False) as kept:
        facts = json.loads(str(kept['facts']))
        names = ('frames', 'actions', 'candidates', 'chances', 'chosen', 'corrected')
        episodes = [Recorded(**texts, **{name: kept[f'{name}{i}'] for name in names},
                             states=kept[f'states{i}'] if f'states{i}' in kept else None)
                    for i, texts in enumerate(facts['episodes'])]
    return episodes, facts
