"""The physical range of actions a critic was trained on, and how it maps to the network's [-1, 1].

The bounds travel inside the checkpoint. Two rules exist because the reference's training loader and its evaluation
code disagree; a critic must be used with the rule it was trained with.
"""

import json
from dataclasses import asdict, dataclass
from importlib import resources
from numbers import Real

import numpy as np

ACTION_DIM = 7
UNITS = ('m', 'm', 'm', 'rad', 'rad', 'rad', 'open')
RULES = ('bounds', 'quantiles')

# A dimension that hardly moved in the data has a tiny range, so honest noise lies far outside it; misfit is therefore
# judged against at least this half-range.
_SMALLEST_HALF_RANGE = np.array([0.01, 0.01, 0.01, 0.05, 0.05, 0.05, 0.5], np.float32)
_LARGEST_BOUND = 1e3  # m or rad; a larger one would overflow float32 and make every value NaN
_MISFIT_FACTOR = 3.0  # half-ranges from the centre; wrong units (mm, degrees, normalised) are off by 10 or more


class ActionSpaceError(ValueError):
    """Actions cannot be meant in the critic's action space: wrong size, or wrong units."""


@dataclass(frozen=True)
class ActionSpace:
    """Bounds of the 7-D end-effector delta, in physical units, and the rule that maps them to [-1, 1].

    `bounds`:    clip((x - low) / (high - low) * 2 - 1, +-(1 - 1e-5))        (reference evaluation code)
    `quantiles`: clip(2 * (x - low) / (high - low + 1e-8) - 1, -1, 1)        (reference training loader, 0.1 % / 99.9 %)
    """

    low: tuple[float, ...]  # (7,) m, m, m, rad, rad, rad, openness: maps to -1
    high: tuple[float, ...]  # (7,) same units: maps to +1
    rule: str  # one of RULES
    units: tuple[str, ...] = UNITS  # (7,)
    frame: str = 'base'  # axes of translation and rotation: the arm's base
    source: str = ''  # where the bounds come from, in words

    def __post_init__(self):
        for name in ('low', 'high', 'units'):
            if isinstance(getattr(self, name), (str, bytes, dict)):
                raise ValueError(f'action space: {name} must be a list, got {str(getattr(self, name))[:80]}')
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != ACTION_DIM:
                raise ValueError(f'action space: {name} has {len(getattr(self, name))} entries, expected {ACTION_DIM}')
        if self.rule not in RULES:
            raise ValueError(f'action space: rule {self.rule!r} is unknown, expected one of {RULES}')
        if self.units != UNITS:
            raise ValueError(f'action space: units are {self.units}, expected {UNITS}')
        for value in (*self.low, *self.high):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f'action space: bounds must be numbers, got {str(value)[:80]!r}')
        for name in ('frame', 'source'):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f'action space: {name} must be a text')
        if max(map(abs, (*self.low, *self.high))) > _LARGEST_BOUND:
            raise ValueError(f'action space: bounds must be finite, in metres and radians, got low {self.low}, '
                             f'high {self.high}')
        low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(f'action space: bounds must be finite, got low {self.low}, high {self.high}')
        ordered = high > low if self.rule == 'bounds' else high >= low
        if not ordered.all():
            at = int(np.flatnonzero(~ordered)[0])
            raise ValueError(f'action space: high[{at}] = {high[at]} is not above low[{at}] = {low[at]}')

    @classmethod
    def named(cls, name: str) -> 'ActionSpace':
        """Return one of the spaces shipped with the package: `bridge` (WidowX) or `fractal` (Google robot)."""
        path = resources.files(__package__) / 'action_spaces' / f'{name}.json'
        if not path.is_file():
            raise ValueError(f"action space {name!r} is not shipped; 'bridge' and 'fractal' are")
        return cls(**json.loads(path.read_text()))

    def to_dict(self) -> dict:
        """Return a JSON-ready dictionary, the inverse of `ActionSpace(**d)`."""
        return asdict(self)

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Map physical actions (..., 7) to the network's clipped [-1, 1], float32."""
        actions = np.asarray(actions, np.float32)
        if actions.shape[-1:] != (ACTION_DIM,):
            raise ActionSpaceError(f'actions have shape {actions.shape}, expected (..., {ACTION_DIM})')
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        if self.rule == 'bounds':
            limit = np.float32(1 - 1e-5)
            return np.clip((actions - low) / (high - low) * 2 - 1, -limit, limit)
        return np.clip(2 * (actions - low) / (high - low + np.float32(1e-8)) - 1, -1, 1)

    def check(self, actions: np.ndarray) -> None:
        """Raise `ActionSpaceError` when most of the actions (K, 7) lie far outside the bounds in one dimension.

        Catches candidates in other units or still normalised, which clipping would otherwise turn into equal scores.
        """
        actions = np.asarray(actions, np.float32)
        if actions.ndim != 2 or actions.shape[1] != ACTION_DIM:
            raise ActionSpaceError(f'actions have shape {actions.shape}, expected (K, {ACTION_DIM})')
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        reach = _MISFIT_FACTOR * np.maximum((high - low) / 2, _SMALLEST_HALF_RANGE)
        outside = (np.abs(actions - (low + high) / 2) > reach).mean(axis=0)
        worst = int(outside.argmax())
        if outside[worst] > 0.5:
            raise ActionSpaceError(
                f'{outside[worst]:.0%} of the actions lie more than {_MISFIT_FACTOR:g} half-ranges from the centre in '
                f'dimension {worst} (e.g. {actions[:, worst].flat[0]:.4g}; the critic knows '
                f'[{low[worst]:.4g}, {high[worst]:.4g}] {self.units[worst]}): other units, or still normalised?')
