"""``vgps-demo``: one scene twice in the live simulation, with the plain policy and steered.

Starts the simulation exactly as ``ros2 launch vgps_bringup simulation.launch.py`` does, runs one episode per condition
over real ROS 2, records each as a bag, and leaves a report folder with the videos side by side.
"""

import datetime
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import time
from dataclasses import dataclass

from vgps_bringup.commands import checks
from vgps_bringup.system.description import SYSTEMS
from vgps_bringup.system.supervisor import Runner, RunnerError, share
from vgps_msgs_py import command_line, start
from vgps_msgs_py.vocabulary import Outcome, name

CONDITIONS = {'plain policy': 'first', 'steered': 'value'}  # -> critic_node's parameter `selection`
PAGE_PATIENCE = 120.0  # s; a page takes some 5
POST_ROLL = 1.2  # s that the recorder goes on after an episode, and a little


DEFAULTS = {argument.name: argument.default for argument in SYSTEMS['simulation'].arguments}


@dataclass
class Demo:
    """Run one scene twice in the live simulation, with the plain policy and steered, and compare.

    Example: vgps-demo --task put_carrot_on_plate --seed 3

    Starts the simulation as ros2 launch does, runs one episode per condition over real ROS 2, records each as a bag and
    writes a page with both videos side by side. Takes a minute or two.
    """

    task: str = DEFAULTS['task']
    """simulated task"""
    # chosen to be shown: of the 100 live trials of doc/study.md, a scene that came out the same way every time it was
    # replayed (13 of 13 plain failures, 13 of 13 steered successes); the rates beside it are from all scenes
    seed: int = 10023
    """seed of the start scene, at least 0; by default a scene in which the two differ"""
    policy: str = DEFAULTS['policy']
    """entry-point name of the policy"""
    critic: str = DEFAULTS['critic']
    """checkpoint: folder, owner/name on the hub, 'default' (shipped) or 'untrained'"""
    k: int = int(DEFAULTS['k'])
    """candidates per frame, 1 .. 1000"""
    beta: float = float(DEFAULTS['beta'])
    """temperature of the choice, at least 0; 0 takes the best candidate"""
    max_steps: int = int(DEFAULTS['max_steps'])
    """control steps per episode, of 0.2 s each, at least 1"""
    namespace: str = f'vgps_demo_{os.getpid()}'
    """namespace of the nodes; by default one that nobody else uses"""
    output: pathlib.Path = pathlib.Path('runs')
    """folder for the results"""
    verbose: bool = False
    """show what every node logs"""


def _check(options: Demo) -> None:
    checks.task(options.task)
    checks.policy(options.policy)
    checks.critic(options.critic)
    checks.candidates(options.k)
    checks.temperature(options.beta)
    checks.episode(options.seed, options.max_steps)
    checks.namespace(options.namespace)
    checks.new_folder(options.output)


class Pages:
    """Writes the episodes' pages side by side, in processes that get what the live nodes leave of the cores."""

    def __init__(self, output: pathlib.Path):
        self._output, self._written, self._pool = output, {}, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._pool is not None:
            self._pool.terminate()

    def write(self, condition: str, episode_id: str) -> None:
        """Begin with the page of an episode whose bag is closed."""
        if self._pool is None:
            self._pool = multiprocessing.get_context('spawn').Pool(len(CONDITIONS), initializer=_step_back)
        if condition not in self._written:
            bag = self._output / episode_id
            self._written[condition] = bag, self._pool.apply_async(_page, (bag, condition))

    def summary(self, condition: str) -> dict:
        """Return what the page says, when it is written; raises BagError."""
        bag, written = self._written[condition]
        try:
            return written.get(PAGE_PATIENCE)
        except multiprocessing.TimeoutError:  # its process was killed, for memory for example: it never answers
            return _page(bag, condition)


def _step_back() -> None:
    """Let the live nodes have the cores first, but never starve: the report waits for this; Ctrl-C is the demo's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)


def _page(bag: pathlib.Path, condition: str) -> dict:
    from vgps_bringup.episode_pages.report import episode_report
    return episode_report(bag, label=condition)


def _run_conditions(options, output: pathlib.Path, pages: Pages, log) -> list[tuple[str, object]]:
    """Run one episode per condition and return (condition, result) pairs."""
    from vgps_bringup.system.episode_client import EpisodeClient, progress

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
            ended = time.monotonic()
            for condition, result in results[:-1]:  # not beside an episode, whose latency it would be part of
                pages.write(condition, result.episode_id)
            import vgps_bringup.episode_pages.report  # noqa: F401  seconds, while the recorder goes on
            time.sleep(max(0.0, POST_ROLL - time.monotonic() + ended))  # it closes the bag when it is told to stop
    condition, result = results[-1]
    pages.write(condition, result.episode_id)
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
    options = command_line.read(Demo, 'vgps-demo')
    checks.or_exit('vgps-demo', lambda: _check(options))
    start.on_end(start.leave)
    output = (options.output / f'demo-{datetime.datetime.now():%Y%m%d-%H%M%S}').resolve()
    output.mkdir(parents=True)
    started = time.monotonic()
    print(f'Starting the simulated WidowX (real ROS 2 nodes over DDS), K = {options.k}, beta = {options.beta:g}; '
          f'results go to {output}', flush=True)
    with Pages(output) as pages:
        _show(options, output, pages)
    print(f'({time.monotonic() - started:.0f} s in all)')


def _show(options: Demo, output: pathlib.Path, pages: Pages) -> None:
    try:
        results = _run_conditions(options, output, pages, log=lambda line: print(line, flush=True))
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
                                    measured_rates(options.task, options.policy) if options.critic == 'default' else '',
                                    pages.summary)
    except BagError as error:
        sys.exit(f'vgps-demo: {error}\n  see what recorder_node says with --verbose')
    print(f'\n{summary}\n\nReport: {output / "index.html"}\nNext, what another K or beta would choose: vgps-evaluate '
          f'bag {output} --critic {options.critic} --k 1,{options.k} --beta 0,1')
    aborted = [f'{condition}: {result.message}' for condition, result in results if result.outcome == Outcome.ABORTED]
    if aborted:
        sys.exit(f'vgps-demo: aborted; {"; ".join(aborted)}')


if __name__ == '__main__':
    main()
