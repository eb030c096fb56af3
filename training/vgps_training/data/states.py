"""What the recorded states of an episode say of its actions: other units, poses for motions, other rows or axes."""
import numpy as np

FAR, ANGLE = 5.0, 2 * np.pi + 0.1  # [m], [rad] of a hand from its base
FAR_ENOUGH = 0.05    # [m] from the first to the last state: from when on their direction says something
SCALE, MOVED, LONG = 4.0, 0.02, 8  # times, [m], steps: from when on states tell that actions are of another measure
MARGIN = 0.05        # of openness beyond 0..1: overshoot of a measured finger
COMMANDED = 0.1      # [m] of commanded motion that a working arm would have shown
LATE = 3             # rows by which recorders write actions behind their frames
RELATED, UNRELATED = 0.9, 0.3  # correlation of two axes
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
                return (f'each action is the motion that led to its frame, not the one after it: the actions are '
                        f'{("one row", "two rows", "three rows")[rows - 1]} late relative to the states')
    return None


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
