"""``vgps-episode``: run episodes on a running system."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from vgps_bringup.commands import checks
from vgps_msgs_py import command_line
from vgps_msgs_py.vocabulary import Outcome, words


@dataclass
class Episodes:
    """Run episodes on a running system, simulated or real. Ctrl-C cancels: the arm holds still.

    Example, simulation: vgps-episode --task put_carrot_on_plate --seed 3

    Example, robot: vgps-episode --instruction "put the carrot on the plate"

    Before: vgps-run simulation. Next: vgps-report runs/EPISODE. Exit status 1: an episode was aborted or did not begin.
    """

    instruction: str = ''
    """what to do, in words; empty: the simulated task's own instruction"""
    task: str = ''
    """simulated task whose scene is set up; empty: the scene stays as it is"""
    seed: int = 0
    """seed of the start scene, the policy and the selection, at least 0"""
    max_steps: int = 0
    """control steps after which the episode ends, at least 1; 0 takes policy_node's own limit"""
    episodes: int = 1
    """number of episodes, with seeds counting up, at least 1"""
    no_reset: bool = False
    """start where the arm is, without moving it to its start pose"""
    namespace: str = 'vgps'
    """namespace of the running system"""
    patience: float = 60.0
    """how long to wait for policy_node [s], at least 0"""


def _check(options: Episodes) -> None:
    if not options.instruction.strip() and not options.task:
        raise checks.ArgumentError('say what to do: --task put_carrot_on_plate (simulation) or --instruction "put the '
                                   'carrot on the plate" (robot)')
    if options.task:
        checks.task(options.task)
    checks.episode(options.seed, options.max_steps, least_steps=0, episodes=options.episodes)
    checks.namespace(options.namespace)
    if not options.patience >= 0:
        raise checks.ArgumentError(f'--patience must be at least 0 s, not {options.patience:g}')


def main() -> None:
    """Command line."""
    options = command_line.read(Episodes, 'vgps-episode')
    checks.or_exit('vgps-episode', lambda: _check(options))
    from vgps_bringup.system.episode_client import EpisodeClient, EpisodeError, progress
    results = []
    try:
        with EpisodeClient(options.namespace) as client:
            client.wait_until_ready(options.patience)
            for seed in range(options.seed, options.seed + options.episodes):
                result = client.run(options.instruction, options.task, seed, options.max_steps, not options.no_reset,
                                    on_feedback=progress)
                results.append(result)
                print(f'{result.episode_id or "not begun"}: {words(Outcome, result.outcome)} after '
                      f'{result.steps} steps, {result.duration:.1f} s. {result.message}')
            output = client.recordings()
    except EpisodeError as error:
        sys.exit(f'vgps-episode: {error}')
    except KeyboardInterrupt:
        sys.exit('vgps-episode: cancelled: the arm holds')
    if output and results[-1].episode_id:
        print(f'Next, look at it: vgps-report {output}/{results[-1].episode_id}')
    failed = [r for r in results if r.outcome == Outcome.ABORTED or not r.episode_id]
    if failed:
        sys.exit(f'vgps-episode: {len(failed)} of {len(results)} episodes aborted or did not begin: '
                 f'{failed[-1].message}')


if __name__ == '__main__':
    main()
