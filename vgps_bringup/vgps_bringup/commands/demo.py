"""``vgps-demo``: the same scene twice, with the plain policy and steered, through the whole live system.

Starts the simulation exactly as ``ros2 launch vgps_bringup simulation.launch.py`` does, runs one episode per condition
over real ROS 2, records each as a bag, and leaves a report folder with the videos side by side.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import sys
import time

from vgps_bringup.system.description import SYSTEMS
from vgps_bringup.system.supervisor import Runner, RunnerError, share

CONDITIONS = {'plain policy': 'first', 'steered': 'value'}  # -> critic_node's parameter `selection`


def _run_conditions(options, output: pathlib.Path, log) -> list[tuple[str, object]]:
    """Run one episode per condition and return (condition, result) pairs."""
    from vgps_bringup.system.episode_client import EpisodeClient, progress
    from vgps_msgs_py.vocabulary import Outcome, name

    arguments = {'task': options.task, 'policy': options.policy, 'critic': options.critic, 'k': str(options.k),
                 'beta': str(options.beta), 'output': str(output), 'namespace': options.namespace,
                 'max_steps': str(options.max_steps), 'decision_image': 'false'}
    results = []
    with Runner('simulation', arguments, log=log, quiet=not options.verbose) as runner:
        with EpisodeClient(options.namespace) as client:
            client.wait_until_ready(120.0, runner.why_not_ready)
            for condition, selection in CONDITIONS.items():
                print(f'\n{condition}: {options.task}, seed {options.seed}', flush=True)
                client.set_parameters('critic_node', selection=selection)
                result = client.run_simulated(options.task, options.seed, on_feedback=progress)
                print(f'\n  -> {name(Outcome, result.outcome)} after {result.steps} steps, {result.duration:.1f} s. '
                      f'{result.message}', flush=True)
                results.append((condition, result))
            time.sleep(1.5)  # what the recorder keeps after an episode; it closes the bag when it is told to stop
    return results


def measured_rates(task: str, policy: str) -> str:
    """Return what the shipped study measured for this task and policy over many scenes, or nothing."""
    path = share('vgps_bringup') / 'doc' / 'results.json'
    if not path.is_file():
        return ''
    headline = json.loads(path.read_text())['headline']
    steered = next((c for c in headline['study']['conditions'] if c['name'] == f'{policy}: steered'), None)
    rows = {row['condition']: row for row in headline['table'] if row['task'] == task}
    if steered is None or f'{policy}: base' not in rows:
        return ''
    base = rows[f'{policy}: base']
    rates = ', '.join(f'{name} {100 * row["rate"]:.0f} % [{100 * row["low"]:.0f}, {100 * row["high"]:.0f}]'
                      for name, row in (('plain policy', base), ('steered', rows[steered['name']])))
    return (f'One scene proves nothing. Over {base["trials"]} scenes (vgps-study, K = {steered["k"]}, '
            f'beta = {steered["beta"]:g}): {rates} success, 95 % intervals.')


def main() -> None:
    """Run the demonstration."""
    defaults = {argument.name: argument.default for argument in SYSTEMS['simulation'].arguments}
    parser = argparse.ArgumentParser(prog='vgps-demo', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', default=defaults['task'], help='simulated task')
    # chosen to be shown: of the 100 live trials of doc/study.md, a scene that came out the same way every time it was
    # replayed (13 of 13 plain failures, 13 of 13 steered successes); the rates beside it are from all scenes
    parser.add_argument('--seed', type=int, default=10023, help='start scene; default: one where the two differ')
    parser.add_argument('--policy', default=defaults['policy'], help='entry-point name of the policy')
    parser.add_argument('--critic', default=defaults['critic'], help="checkpoint, or 'default'")
    parser.add_argument('--k', type=int, default=int(defaults['k']), help='candidates per frame')
    parser.add_argument('--beta', type=float, default=float(defaults['beta']), help='selection temperature')
    parser.add_argument('--max-steps', type=int, default=int(defaults['max_steps']), help='control steps of 0.2 s')
    parser.add_argument('--namespace', default=f'vgps_demo_{os.getpid()}', help='ROS namespace')
    parser.add_argument('--output', type=pathlib.Path, default=pathlib.Path('runs'), help='folder for the results')
    parser.add_argument('--verbose', action='store_true', help='show what every node logs')
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    output = (options.output / f'demo-{datetime.datetime.now():%Y%m%d-%H%M%S}').resolve()
    output.mkdir(parents=True)
    started = time.monotonic()
    print(f'Starting the simulated WidowX (real ROS 2 nodes over DDS); results go to {output}', flush=True)
    try:
        results = _run_conditions(options, output, log=lambda line: print(line, flush=True))
    except RunnerError as error:
        sys.exit(f'vgps-demo: {error}')
    except RuntimeError as error:  # EpisodeError
        sys.exit(f'vgps-demo: {error}\n  see what the nodes say with --verbose')
    except KeyboardInterrupt:
        sys.exit('vgps-demo: stopped; nothing is left running')

    from vgps_bringup.episode_pages.report import comparison_report
    from vgps_msgs_py.bags.storage import BagError
    print('\nWriting the report ...', flush=True)
    try:
        summary = comparison_report({condition: output / result.episode_id for condition, result in results}, output,
                                    measured_rates(options.task, options.policy) if options.critic == 'default' else '')
    except BagError as error:
        sys.exit(f'vgps-demo: {error}\n  see what recorder_node says with --verbose')
    print(f'\n{summary}\n\nReport: {output / "index.html"}\n({time.monotonic() - started:.0f} s in all)')


if __name__ == '__main__':
    main()
