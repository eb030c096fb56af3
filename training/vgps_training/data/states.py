"""What the recorded states of an episode say of its actions: other units, poses for motions, other rows or axes."""
import numpy as np

FAR, ANGLE = 5.0, 2 * np.pi + 0.1  # [m], [rad] of a hand from its base
FAR_ENOUGH = 0.05    # [m] from the first to the last state: from when on their direction says something
SCALE, MOVED, LONG = 4.0, 0.02, 8  # times, [m], steps: from when on states tell that actions are of another measure
MARGIN = 0.05        # of openness beyond 0..1: overshoot of a measured finger
COMMANDED = 0.1      # [m] of commanded motion that a working arm would have shown
LATE = 3             # rows by which recorders write actions behind their frames
RELATED, UNRELATED = 0.9, 0.3  # correlation of two axes
ROWS, BETTER = 16, 0.2         # rows, and difference of two correlations, from when on only one row fits
TURNED, SAME_TURN = 1e-3, 0.03  # [rad] a step that tells something; between two readings that makes no difference
PARTS = (('moved', slice(0, 3), 'translation'), ('turned', slice(3, 6), 'rotation'))


def unusable(states: np.ndarray, actions: np.ndarray) -> str:
    """Return why these states (T, 7) are no measured metres, radians and openness, or nothing."""
    if not np.isfinite(states).all():
        return 'hold NaN or infinity'
    where, angle, (closed, opened) = np.abs(states[:, :3]).max(), np.abs(states[:, 3:6]).max(), (
        states[:, 6].min(), states[:, 6].max())
    if where > FAR or angle > ANGLE or closed < -MARGIN or opened > 1 + MARGIN:
        return (f'are up to {where:.3g} from the base, turned by up to {angle:.3g}, the gripper {closed:.3g} to '
                f'{opened:.3g}, which are not metres, radians and openness 0..1')
    lost = np.flatnonzero(~states.any(1))
    if len(lost) and 0 < lost[0] < len(states) - 1 and states[lost[0] - 1].any():
        return f'are zero throughout at step {lost[0]}, a reading that was lost'
    if len(states) >= LONG and not np.ptp(states, axis=0).any() and np.abs(actions[:, :3].sum(0)).max() > COMMANDED:
        return 'never change while motions were commanded'
    return ''


def contradiction(actions: np.ndarray, states: np.ndarray | None) -> str | None:
    """Return why actions (T, 7) cannot be motions from one of the states to the next, or None."""
    if states is None or len(actions) < 4:
        return None
    for _, part, _ in PARTS:
        where = _unbroken(states, part)
        said, done = actions[:, part].astype(np.float64), np.diff(where, axis=0)
        size = np.abs(done).mean()
        if size < 1e-3:
            continue

        def alike(one: np.ndarray, other: np.ndarray, size: float = size) -> bool:
            return bool(np.abs(one - other).mean() < 0.05 * size)
        if not alike(done, where[1:]) and (alike(said, where) or alike(said[:-1], where[1:])):
            return ('the rotations are those of the states, not turns from one to the next' if part.start else
                    'the actions are the poses that the states hold, not motions from one to the next')
        for rows in range(1, min(LATE, len(done) - 3) + 1):  # an arm that lags behind does the opposite
            if alike(said[rows:], done[:len(said) - rows]) and np.abs(said[:-1] - done).mean() > 0.25 * size:
                return _late(rows)
        before, own, _ = _by_row(said, done)
        if not part.start and before > RELATED and own < before - BETTER:  # no arm does so, also none that lags behind
            return _late(1)
    return None


def _late(rows: int) -> str:
    return ('each action is the motion that led to its frame, not the one after it: the actions are '
            f'{("one row", "two rows", "three rows")[rows - 1]} late relative to the states')


def _by_row(said: np.ndarray, done: np.ndarray) -> tuple[float, float, float]:
    """Return how the actions (T, 3) go with the motions (T - 1, 3) of the row before, their own row and the one after.

    Correlations over all axes; 0 where too few rows hold nearly all of the motion: a single push fits any row.
    """
    inner, moved = said[1:-2], (done[:-2], done[1:-1], done[2:])
    energy = (inner**2).sum(1)
    if energy.sum()**2 <= LONG * (energy**2).sum() or len(said) < ROWS:
        return 0.0, 0.0, 0.0

    def related(one: np.ndarray, other: np.ndarray) -> float:
        one, other = one - one.mean(0), other - other.mean(0)
        size = np.sqrt((one**2).sum() * (other**2).sum())
        return float((one * other).sum() / size) if size > 1e-6 else 0.0
    before, own, after = (related(inner, motion) for motion in moved)
    return before, own, after


def late_arm(actions: np.ndarray, states: np.ndarray) -> str:
    """Say that the hand does what its actions say one row later, or nothing: an arm that lags, or rows too early."""
    _, own, after = _by_row(actions[:, :3].astype(np.float64), np.diff(_unbroken(states, slice(0, 3)), axis=0))
    if not (after > RELATED and own < after - BETTER):
        return ''
    return ('the hand moves as its actions say, but one row later: the arm lags behind, or the actions are one row '
            'early, which states cannot tell')


def turns_of(vectors: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Return (roll, pitch, yaw of states whose three turns (T, 3) are called rx ry rz or None, note).

    Some write Euler angles under these names, others rotation vectors. Where that makes a difference, the turns that
    the actions (T, 7) command decide; where they cannot, nothing is believed.
    """
    from scipy.spatial.transform import Rotation  # takes long to import: not at every start of every process
    angles, rotations = Rotation.from_euler('xyz', vectors), Rotation.from_rotvec(vectors)
    if (angles * rotations.inv()).magnitude().max() < SAME_TURN or (
            np.linalg.norm(vectors, axis=1).max() > np.pi + SAME_TURN):  # a rotation vector is at most half a turn
        return vectors, ''
    said = Rotation.from_euler('xyz', actions[:-1, 3:6])
    size = said.magnitude().mean()
    off_angles, off_vectors = ((turned[1:] * turned[:-1].inv() * said.inv()).magnitude().mean()
                               for turned in (angles, rotations))
    if size > TURNED and off_angles < 0.5 * min(size, off_vectors):
        return vectors, ''
    if size > TURNED and off_vectors < 0.5 * min(size, off_angles):
        return (rotations.as_euler('xyz').astype(np.float32), 'the turns of its states, called rx ry rz, are rotation '
                'vectors by its actions: turned into roll, pitch and yaw')
    return None, ('whether the turns of its states, called rx ry rz, are rotation vectors or roll, pitch and yaw '
                  'cannot be told: states left out')


def other_measure(actions: np.ndarray, states: np.ndarray | None) -> str | None:
    """Return a reason where the hand moved or turned as the actions say, but by another measure."""
    if states is None or len(actions) < LONG:
        return None
    for what, part, option in PARTS:
        where = _unbroken(states, part)
        done = where[1:] - where[0]
        said = np.cumsum(actions[:-1, part], 0, np.float64)  # summed up: an arm that lags behind gets there, too
        if np.abs(said).max() < MOVED * SCALE or np.abs(done).max() <= MOVED / SCALE:
            continue
        scale = (said * done).sum() / (said**2).sum()
        if 1 / SCALE < scale < SCALE or scale <= 0 or ((done - scale * said)**2).sum() > 0.1 * (done**2).sum():
            continue
        degrees = what == 'turned' and 0.5 < scale / np.radians(1) < 2
        return (f'the hand {what} by {scale:.3g} of what its actions say, in the same directions: they look like ' + (
            'degrees (--rotation-unit 0.0174533)' if degrees else
            f'velocities or another unit (--{option}-unit {scale:.3g})'))
    return None


def _unbroken(states: np.ndarray, part: slice) -> np.ndarray:
    """Return positions or, without their jumps of 2 pi, angles, (T, 3) float64."""
    where = np.asarray(states, np.float64)[:, part]
    return np.unwrap(where, axis=0) if part.start else where


def other_axes(actions: np.ndarray, states: np.ndarray) -> str:
    """Say that the hand moved along other axes by its states than by its actions, or nothing."""
    said, done = actions[:-1, :3].astype(np.float64), np.diff(np.asarray(states, np.float64)[:, :3], axis=0)
    way, got = said.sum(0), done.sum(0)
    far = np.linalg.norm(way) * np.linalg.norm(got)
    if min(np.linalg.norm(way), np.linalg.norm(got)) > FAR_ENOUGH and way @ got < 0.5 * far:
        return ("states and actions disagree about the direction of the motion: are both in the axes of the arm's "
                'base?')
    if len(said) < LONG or min(said.std(0).min(), done.std(0).min()) < 1e-3:
        return ''
    related = np.corrcoef(said.T, done.T)[:3, 3:]  # [axis of the actions, axis of the states]
    for axis, name in enumerate('xyz'):
        best = int(np.abs(related[axis]).argmax())
        if related[axis, axis] < UNRELATED and abs(related[axis, best]) > RELATED:
            sign = '-' if related[axis, best] < 0 else ''
            return (f"the actions' d{name} goes with the states' {sign}{'xyz'[best]}: are both in the axes of the "
                    "arm's base?")
    return ''
