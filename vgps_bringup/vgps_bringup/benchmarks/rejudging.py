"""How fast recordings are scored again, relative to real time, and what a sweep over K and beta costs.

    python -m vgps_bringup.benchmarks.rejudging                    # records episodes of its own first, without ROS
    python -m vgps_bringup.benchmarks.rejudging --bags runs/*

Times are those of `vgps-evaluate bag` without writing its report: reading the bag, decoding and encoding every
judged frame, scoring and choosing. Real time is the time from the first to the last judged frame.
"""

import os
import tempfile
import time
from pathlib import Path

from vgps_msgs_py import command_line

KS, BETAS = (1, 2, 5, 8, 10), (0.0, 0.05, 0.1, 0.5, 1.0)


def record(folder: Path, episodes: int) -> list[Path]:
    """Play episodes of the simulation in lockstep, steered by the shipped critic, and return their bags."""
    from vgps_bringup.trials.lockstep import LockstepRunner
    from vgps_bringup.trials.plan import Condition, Study, task_list
    from vgps_bringup.trials.trials import collect, run_study
    from vgps_critic.critic import Critic
    condition = Condition('steered', 'flow', 'default', k=max(KS))
    study = Study(task_list(['put_eggplant_in_basket']), (condition,), trials=episodes)
    runner = LockstepRunner(study.max_steps, load_critic=Critic.load)
    try:
        run_study(study, runner, folder)
    finally:
        runner.close()
    return [folder / row['bag'] for row in collect(folder)[1]]


def seconds_to_judge(bags: list[Path], critic, settings: tuple[tuple, ...], rounds: int) -> tuple[list[float], float]:
    """Return the shortest of ``rounds`` times [s] of each (ks, betas), taken in turns, and the recorded time [s]."""
    from vgps_bringup.rejudging.rejudge import Rejudge
    from vgps_bringup.rejudging.report import judge_bags
    times = [[] for _ in settings]
    for _ in range(rounds):
        for (ks, betas), taken in zip(settings, times):
            began = time.perf_counter()
            collected = judge_bags(bags, Rejudge({'critic': critic}, ks, betas))
            taken.append(time.perf_counter() - began)
    return [min(taken) for taken in times], collected.recorded_seconds


def main(*, bags: tuple[Path, ...] = (), episodes: int = 4, critic: tuple[str, ...] = ('default', 'untrained'),
         rounds: int = 3) -> None:
    """Print the table.

    Args:
        bags: recordings with at least 10 candidates a step
        episodes: how many to record where no bags are given, at least 1
        critic: checkpoints; default is the shipped one, untrained one of the published width
        rounds: how often, at least 1; the shortest time counts

    """
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # as vgps-evaluate does, and why: there

    import torch

    from vgps_bringup.rejudging.critics import load_critics
    with tempfile.TemporaryDirectory(prefix='vgps_rejudging_') as folder:
        bags = bags or record(Path(folder), episodes)
        cores = len(os.sched_getaffinity(0))
        print(f'{len(bags)} recordings, {cores} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}\n')
        print(f'| critic | real time / one setting | one setting [s] | {len(KS)} x {len(BETAS)} sweep [s] '
              '| sweep / one setting |\n|---|---|---|---|---|')
        for name, loaded in load_critics(list(critic)).items():
            (single, sweep), recorded = seconds_to_judge(bags, loaded, (((max(KS),), (0.0,)), (KS, BETAS)), rounds)
            print(f'| {name} | {recorded / single:.1f} | {single:.2f} | {sweep:.2f} | {sweep / single:.2f} |',
                  flush=True)


if __name__ == '__main__':
    command_line.read(main, 'rejudging', description=__doc__)
