"""Episode after episode in the simulation: what each node's memory, files and threads do in the long run.

    python -m vgps_bringup.benchmarks.soak --minutes 30

The nodes are those of `vgps-run simulation`. What counts is the slope after the warm-up: allocators and caches fill
first, and a leak is what does not stop. Bags are written and removed again. An arm that a starved machine has left
stopped is reset, as its operator would.
"""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from std_srvs.srv import Trigger
from tyro.conf import Positional

from vgps_bringup.simulation.tasks import TASKS
from vgps_bringup.system.episode_client import EpisodeClient, EpisodeError
from vgps_bringup.system.supervisor import Runner
from vgps_msgs_py import command_line
from vgps_msgs_py.vocabulary import Outcome, name

LOOK_EVERY = 5.0    # s
MEGABYTE = 2**20


def look(pid):
    """Return (resident memory [MB], open files, threads) of a process.

    Raises:
        OSError: it is gone.

    """
    status = dict(line.split(':', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines())
    return int(status['VmRSS'].split()[0]) * 1024 / MEGABYTE, len(os.listdir(f'/proc/{pid}/fd')), int(status['Threads'])


class Watch(threading.Thread):
    """Looks at the processes of a running system every few seconds."""

    def __init__(self, runner):
        super().__init__(daemon=True)
        self.runner, self.began, self.over = runner, time.monotonic(), threading.Event()
        self.rows, self.loads = {}, []      # by node: (minutes, MB, files, threads), pid of the first look

    def run(self):
        """Look until told to stop."""
        while not self.over.wait(LOOK_EVERY):
            minutes = (time.monotonic() - self.began) / 60
            self.loads.append(os.getloadavg()[0])
            for node, child in list(self.runner.children.items()):
                try:
                    self.rows.setdefault(node, []).append((minutes, *look(child.pid), child.pid))
                except OSError:
                    continue    # the table counts how often it was started


def trend(rows, warm_up):
    """Return a line's figures: (first MB, last MB, MB per minute, its 95 % error, files, threads, starts).

    Files and threads are (fewest, most) after the warm-up [min]. The slope is that of half-minute minima: an episode's
    own buffers come and go. NaN with fewer than three of them.
    """
    rows = np.array(rows)
    rows, starts = rows[rows[:, 0] >= warm_up], len(np.unique(rows[:, 4]))
    if len(rows) == 0:
        return np.nan, np.nan, np.nan, np.nan, (0, 0), (0, 0), starts
    halves = (rows[:, 0] * 2).astype(int)
    points = np.array([rows[halves == half][rows[halves == half][:, 1].argmin()][:2] for half in np.unique(halves)])
    slope, error = np.nan, np.nan
    if len(points) >= 3:
        away = points - points.mean(0)
        slope = away[:, 0] @ away[:, 1] / (away[:, 0] @ away[:, 0])
        left = away[:, 1] - slope * away[:, 0]
        error = 1.96 * np.sqrt(left @ left / (len(points) - 2) / (away[:, 0] @ away[:, 0]))
    spans = [(int(rows[:, column].min()), int(rows[:, column].max())) for column in (2, 3)]
    return points[0, 1], points[-1, 1], slope, error, *spans, starts


def reset(client):
    """Call the controller's ~/reset as the operator does; return its answer in words."""
    caller = client.node.create_client(Trigger, 'widowx_node/reset')
    try:
        if not caller.wait_for_service(timeout_sec=10.0):
            return 'no widowx_node'
        future = caller.call_async(Trigger.Request())
        client.executor.spin_until_future_complete(future, 10.0)
        return future.result().message if future.done() else 'no answer'
    finally:
        client.node.destroy_client(caller)


def soak(minutes, max_steps, arguments, log):
    """Run episodes for so many minutes; return (Watch, Counter of outcomes)."""
    outcomes, folder = Counter(), Path(tempfile.mkdtemp(prefix='vgps-soak-'))
    arguments = {'namespace': f'soak_{os.getpid()}', 'output': str(folder), 'max_steps': str(max_steps), **arguments}
    try:
        with Runner('simulation', arguments, log=log, quiet=True) as runner, \
                EpisodeClient(arguments['namespace']) as client:
            client.wait_until_ready(300.0, runner.why_not_ready)
            watch = Watch(runner)
            watch.start()
            for seed in range(10**6):
                if time.monotonic() - watch.began > 60 * minutes or runner.ended():
                    break
                try:
                    result = client.run(task=list(TASKS)[seed % len(TASKS)], seed=seed)
                    outcomes[name(Outcome, result.outcome) if result.episode_id else 'did not begin'] += 1
                    if not result.episode_id:    # a starved machine may leave the arm stopped: be its operator
                        log(f'{result.message}; ~/reset: {reset(client)}')
                        time.sleep(2.0)
                except EpisodeError as error:
                    outcomes['refused'] += 1
                    log(f'{error}')
                    time.sleep(1.0)
                for bag in sorted(folder.glob('*/'))[:-3]:    # the last ones may still be open
                    shutil.rmtree(bag, ignore_errors=True)
                if seed % 10 == 9:
                    log(f'{(time.monotonic() - watch.began) / 60:.0f} min, {dict(outcomes)}')
            watch.over.set()
            watch.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return watch, outcomes


def table(watch, outcomes, warm_up):
    """Return the figures as Markdown."""
    lines = [f'{sum(outcomes.values())} episodes in {(time.monotonic() - watch.began) / 60:.0f} min: '
             + ', '.join(f'{count} {what}' for what, count in outcomes.most_common())
             + f'. Load {np.min(watch.loads):.1f} to {np.max(watch.loads):.1f} on {os.cpu_count()} cores. '
             f'Slopes after {warm_up:g} min, with their 95 % error.', '',
             '| node | MB | MB/min | files | threads | starts |', '|---|---|---|---|---|---|']
    for node, rows in watch.rows.items():
        first, last, slope, error, files, threads, starts = trend(rows, warm_up)
        lines.append(f'| {node} | {first:.0f} to {last:.0f} | {slope:+.2f} ± {error:.2f} | {files[0]} to {files[1]} '
                     f'| {threads[0]} to {threads[1]} | {starts} |')
    return '\n'.join(lines)


def main(arguments: Positional[tuple[str, ...]] = (), *, minutes: float = 30.0, warm_up: float = 8.0,
         max_steps: int = 40):
    """Print the table.

    Args:
        arguments: of the simulation, each name:=value
        minutes: how long
        warm_up: what the slopes leave out at the beginning [min]
        max_steps: control steps per episode, of 0.2 s

    """
    watch, outcomes = soak(minutes, max_steps, dict(word.split(':=', 1) for word in arguments),
                           lambda line: print(line, file=sys.stderr, flush=True))
    print(table(watch, outcomes, warm_up))


if __name__ == '__main__':
    command_line.read(main, 'soak', description=__doc__)
