"""Many independent jobs, each done once: on this machine's cores, on a Ray cluster, or in the shards of a job array.

    results = jobs.run(play, trials, engine=Engine(processes=8), record=journal.record)

A job is a name and what its function takes. Results are recorded here, in the calling process, one after the other, so
a worker that is killed loses a job's work and never half of its record; the job is given to another worker. What was
recorded earlier is left out by the caller, which is all that resuming takes. A job that writes files writes them under
another name and renames them when they are complete.
"""

import logging
import multiprocessing
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

ATTEMPTS = 8  # of a job whose workers are killed, before it is thought to kill them

logger = logging.getLogger(__name__)


class JobError(RuntimeError):
    """A job cannot be done; the text names it."""


@dataclass(frozen=True)
class Engine:
    """Where jobs run. Nothing of it decides what comes out."""

    processes: int = 1  # on this machine, >= 1
    shard: str = ''     # 'i/n', i from 0: only every n-th job, for the i-th task of a job array; empty: all
    cluster: str = ''   # address of a Ray cluster, or 'auto' where this machine is part of one; empty: this machine

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f'processes is {self.processes}; it must be at least 1')
        self.part()

    def part(self) -> tuple[int, int]:
        """Return i and n of the shard, (0, 1) for all. Raises ValueError for anything but i/n with 0 <= i < n."""
        found = re.fullmatch(r'(\d+)/(\d+)', self.shard or '0/1')
        if not found or int(found[1]) >= int(found[2]):
            raise ValueError(f"shard is '{self.shard}'; it must be i/n with i from 0 to n - 1, such as 0/8")
        return int(found[1]), int(found[2])

    def select(self, names: list[str]) -> list[str]:
        """Return this shard's part of a list that is the same for every shard."""
        index, count = self.part()
        return names[index::count]


def run(function: Callable[[Any], Any], jobs: Mapping[str, Any], *, engine: Engine = Engine(),
        record: Callable[[str, Any], None] = lambda name, result: None) -> None:
    """Do every job and record its result, in whatever order they end.

    Args:
        function: of a module, so that another process finds it by its name; what it takes and returns is pickled.
        jobs: what `function` takes, by name; those of all shards, done ones left out or not.
        engine: where.
        record: called in this process with a job's name and result.

    Raises:
        JobError: a job killed every worker it was given to. What a job raises is raised here; those that were
            recorded stay recorded.
        ImportError: a cluster is asked for and Ray is not installed.

    """
    mine = {name: jobs[name] for name in engine.select(list(jobs))}
    if engine.cluster:
        results = _on_cluster(function, mine, engine.cluster)
    elif engine.processes == 1:
        results = ((name, function(job)) for name, job in mine.items())
    else:
        results = _on_this_machine(function, mine, engine.processes)
    for name, result in results:
        record(name, result)


def _on_this_machine(function: Callable[[Any], Any], jobs: Mapping[str, Any], processes: int
                     ) -> Iterator[tuple[str, Any]]:
    waiting, attempts = deque(jobs), Counter[str]()
    while waiting:
        # Not forked: an OpenGL context does not survive it, nor does a library's thread.
        with ProcessPoolExecutor(processes, multiprocessing.get_context('spawn')) as pool:
            running: dict[Future[Any], str] = {}
            killed: list[str] = []
            try:
                while (waiting or running) and not killed:
                    while waiting and len(running) < processes:  # no more, or a kill would be held against all of them
                        name = waiting.popleft()
                        running[pool.submit(function, jobs[name])] = name
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        name = running.pop(future)
                        try:
                            result = future.result()
                        except BrokenProcessPool:
                            killed.append(name)
                        else:
                            yield name, result
            except BrokenProcessPool:  # a worker died between two jobs
                killed.append(name)
            killed += running.values()
        for name in killed:
            attempts[name] += 1
            if attempts[name] >= ATTEMPTS:
                raise JobError(f'{name}: its worker process was killed {ATTEMPTS} times; give it more memory, or look '
                               'at what it does')
            logger.warning('a worker process was killed; %s is done again', name)
        waiting.extendleft(reversed(killed))


def _on_cluster(function: Callable[[Any], Any], jobs: Mapping[str, Any], address: str) -> Iterator[tuple[str, Any]]:
    try:
        import ray
    except ImportError as error:
        raise ImportError('a cluster needs Ray: pip install ray, the same version on every machine') from error
    begun_here = not ray.is_initialized()
    if begun_here:
        ray.init(address=address, log_to_driver=False)
    try:
        remote = ray.remote(max_retries=ATTEMPTS)(function)
        running = {remote.remote(job): name for name, job in jobs.items()}
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            name = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.WorkerCrashedError as error:
                raise JobError(f'{name}: its worker process was killed {ATTEMPTS} times') from error
            yield name, result
    finally:
        if begun_here:
            ray.shutdown()
