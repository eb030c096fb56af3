"""A study without robot, for processes that are killed on purpose."""

import multiprocessing
import os
import signal
import time

import numpy as np

from vgps_bringup.trials.plan import Condition, Study, TaskItem
from vgps_bringup.trials.trials import TrialResult, run_study

BASELINE = Condition('baseline', 'flow', selection='first', k=1)
STEERED = Condition('steered', 'flow', 'critic', 'value', 10, 0.0)
STUDY = Study((TaskItem('a'), TaskItem('b')), (BASELINE, STEERED), trials=10)


class CoinRunner:
    """Succeeds by a seeded coin whose bias depends on the condition; kills its process once if there is a file."""

    def __init__(self, delay=0.0, kill=None):
        self.delay, self.kill = delay, kill

    def run(self, trial, bag):
        time.sleep(self.delay)
        if bag is not None:
            bag.mkdir()
            (bag / 'data').write_text(trial.identity)
        if self.kill and trial.number > 10 and self.kill.exists():
            self.kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        draw = np.random.default_rng([trial.seed, len(trial.task.name)]).random()
        success = bool(draw < (0.9 if trial.condition.name == 'steered' else 0.4))
        return TrialResult(success, '' if success else 'early drop', steps=5, bag=f'bags/{trial.identity}')

    def close(self):
        pass


def play(folder, delay):
    run_study(STUDY, CoinRunner(delay), folder, say=lambda text: None)


def start(folder, delay):
    """Play the study in another process, which need not import anything any more."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['vgps_bringup.trials.trials'])
    process = context.Process(target=play, args=(folder, delay))
    process.start()
    return process
