"""The action space a critic is trained in: fixed bounds or quantiles of the data, kept in its checkpoint."""
import numpy as np

from vgps_critic.action_space import ActionSpace

LOW_QUANTILE, HIGH_QUANTILE = 0.001, 0.999  # authors' loader
STILL = 1e-6  # m, rad or openness


def fit(rule: str, actions: np.ndarray, source: str, steps: np.ndarray | slice = slice(None)) -> ActionSpace:
    """Return the space for actions (N, 7) physical.

    Args:
        rule: 'quantiles' (authors' loader: 0.1 % and 99.9 % of the data, all seven dimensions), or the name of fixed
            bounds: 'bridge' (what the authors' loader meant to set and does not, and their evaluation uses), 'fractal'.
        actions: of all data.
        source: in words, for the checkpoint.
        steps: (n,) those of the training data; copied column by column, for there are millions.

    """
    if rule != 'quantiles':
        return ActionSpace.named(rule)
    low, high = np.stack([np.quantile(column[steps], [LOW_QUANTILE, HIGH_QUANTILE]) for column in actions.T], 1)
    # A dimension that never moved has no range: the least touch would normalise to -1 or 1. It gets BridgeData's range.
    bridge = ActionSpace.named('bridge')
    still = high - low < STILL
    low = np.where(still, np.minimum(bridge.low, low), low)
    high = np.where(still, np.maximum(bridge.high, high), high)
    return ActionSpace(tuple(low.tolist()), tuple(high.tolist()), 'quantiles', source=source)
