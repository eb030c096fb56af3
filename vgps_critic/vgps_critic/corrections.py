"""An operator takes over: actions published to ``correction`` go to the arm instead of the candidates.

They travel the one way that commands travel: through critic_node, for the announced episode and step, through the same
guards. A correction counts for one step and must be fresh; decisions say that it was one, so recordings do too.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vgps_critic.action_space import ACTION_DIM
from vgps_critic.decision import Decision
from vgps_msgs_py.vocabulary import SteeringReason as Reason, Verdict

FRESH = 0.5  # s, older corrections are not sent: the arm has moved on


class Corrections:
    """The newest correction, and what follows once there was one in an episode."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._action, self._at, self._seen = None, -math.inf, False

    def take(self, action: Sequence[float], now: float) -> str:
        """Take an action (7,) in physical units that arrived at `now` [s]; return why it is refused, or ''."""
        action = np.asarray(action, np.float32)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all() or not -1e-4 <= action[6] <= 1 + 1e-4:
            return f'a correction must be {ACTION_DIM} finite numbers with an openness of 0..1, got {action.tolist()}'
        self._action, self._at, self._seen = action, now, True
        return ''

    def apply(self, decision: Decision, now: float, after: str) -> Decision:
        """Return the decision with a fresh correction in its place; `after` as in `SteeringConfig.after_correction`."""
        if self._action is not None and now - self._at <= FRESH:
            action, self._action = self._action, None
            return replace(decision, verdict=Verdict.OPERATOR, reason=Reason.OPERATOR_CORRECTED, chosen=-1,
                           action=action, message="the operator's correction is executed")
        if self._seen and after == 'hold':
            return replace(decision, verdict=Verdict.HOLD, reason=Reason.OPERATOR_CORRECTED, chosen=-1,
                           action=np.zeros(ACTION_DIM, np.float32),
                           message='the operator took over and sends nothing now; holding until the next correction '
                                   'or a verdict')
        return decision
