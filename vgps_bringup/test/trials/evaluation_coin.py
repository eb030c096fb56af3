"""A study without robot, light to import: processes that are killed on purpose start it often."""

import time

import numpy as np

from vgps_bringup.trials.plan import Condition, Study, TaskItem
from vgps_bringup.trials.trials import TrialResult

BASELINE = Condition('baseline', 'flow', selection='first', k=1)
STEERED = Condition('steered', 'flow', 'critic', 'value', 10, 0.0)
STUDY = Study((TaskItem('a'), TaskItem('b')), (BASELINE, STEERED), trials=10)


class CoinRunner:
    """Succeeds by a seeded coin whose bias depends on the condition."""

    def __init__(self, delay=0.0):
        self.delay = delay

    def run(self, trial, bag):
        time.sleep(self.delay)
        if bag is not None:
            bag.mkdir()
            (bag / 'data').write_text(trial.identity)
        draw = np.random.default_rng([trial.seed, len(trial.task.name)]).random()
        success = bool(draw < (0.9 if trial.condition.name == 'steered' else 0.4))
        return TrialResult(success, '' if success else 'early drop', steps=5, bag=f'bags/{trial.identity}')

    def close(self):
        pass
