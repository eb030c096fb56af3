"""Many jobs, each done once: on this machine's cores, on a Ray cluster, or in shards of a job array.

    results = jobs.run(play, trials, engine=Engine(processes=8), record=journal.record)

A job is a name and what its function takes. Results are recorded here, in the calling process, one after the other, so
a worker that is killed loses a job's work and never half of its record; the job is given to another worker. What was
recorded earlier is left out by the caller, which is all that resuming takes. A job that writes files writes them under
another name and renames them when they are complete. No worker outlives the caller, and no command outlives its worker.
"""

import ctypes
import functools
import gc
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ATTEMPTS = 8  # of a job whose workers are killed, before it is thought to kill them
PATIENCE = 10.0  # s that a job has to clean up when the caller ends
_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_SET_PARENT_DEATH_SIGNAL = 1  # of Linux' prctl

Results = Generator[tuple[str, Any], None, None]  # a job's name and what it returned

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

    @property
    def here(self) -> bool:
        """Tell whether jobs run in the calling process, one after the other."""
        return self.processes == 1 and not self.cluster

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


HERE = Engine()


class _Waiting:
    """Names of jobs that were not begun, in order, and which jobs must be done before each."""

    def __init__(self, names: list[str], needs: Mapping[str, Collection[str]]):
        self._names, self._needs = deque(names), needs
        self._undone = set(names)

    def __str__(self) -> str:
        return ', '.join(self._names)

    def take(self) -> str | None:
        """Return the next job that nothing holds back; None where there is none."""
        if not self._needs:
            return self._names.popleft() if self._names else None
        for name in self._names:
            if self._undone.isdisjoint(self._needs.get(name, ())):
                self._names.remove(name)
                return name
        return None

    def done(self, name: str) -> None:
        """Note that a job's result is recorded."""
        self._undone.discard(name)

    def again(self, names: list[str]) -> None:
        """Put jobs back, the first to be begun next."""
        self._names.extendleft(reversed(names))


def run(function: Callable[[Any], Any], jobs: Mapping[str, Any], *, engine: Engine = HERE,
        record: Callable[[str, Any], None] = lambda name, result: None,
        needs: Mapping[str, Collection[str]] | None = None) -> None:
    """Do every job and record its result, in whatever order they end.

    Args:
        function: of a module, so that another process finds it by its name; what it takes and returns is pickled.
        jobs: what `function` takes, by name; those of all shards, done ones left out or not.
        engine: where.
        record: called in this process with a job's name and result; what it raises ends everything.
        needs: which of these jobs must be recorded before a job begins; those that are not among `jobs` are done.

    Raises:
        JobError: a job killed every worker it was given to, jobs wait for each other, or there is no such cluster. What
            a job raises is raised here; those that were recorded stay recorded.
        ImportError: a cluster is asked for and Ray is not installed.
        ValueError: a shard of jobs that need each other: it would not see what the others do.

    """
    if needs and engine.part()[1] > 1:
        raise ValueError('jobs that depend on each other cannot be divided into shards')
    mine = {name: jobs[name] for name in engine.select(list(jobs))}
    waiting = _Waiting(list(mine), needs or {})
    if engine.cluster:
        results = _on_cluster(function, mine, waiting, engine.cluster)
    elif engine.here:
        results = _here(function, mine, waiting)
    else:
        results = _on_this_machine(function, mine, waiting, engine.processes)
    try:
        for name, result in results:
            record(name, result)
            waiting.done(name)
    finally:
        results.close()  # at once, whatever still refers to the error that ends this
    if str(waiting):
        raise JobError(f'{waiting}: each needs a job that waits for another')


def _here(function: Callable[[Any], Any], jobs: Mapping[str, Any], waiting: _Waiting) -> Results:
    while (name := waiting.take()) is not None:
        yield name, function(jobs[name])


def _on_this_machine(function: Callable[[Any], Any], jobs: Mapping[str, Any], waiting: _Waiting, processes: int
                     ) -> Results:
    attempts = Counter[str]()
    killed: list[str] = ['']
    while killed:
        killed = []
        # Not forked: an OpenGL context does not survive it, nor does a library's thread.
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context('spawn'), _begin, (os.getpid(),))
        running: dict[Future[Any], str] = {}
        try:
            while not killed:
                # no more than there are workers, or a kill would be held against all of them
                while len(running) < processes and not killed and (begun := waiting.take()) is not None:
                    try:
                        with _one_thread():
                            running[pool.submit(_work, function, jobs[begun])] = begun
                    except BrokenProcessPool:  # a worker died between two jobs
                        killed.append(begun)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        killed.append(name)
                    else:
                        yield name, result
        finally:
            _end(pool, bool(running))
        killed += running.values()
        for name in killed:
            attempts[name] += 1
            if attempts[name] >= ATTEMPTS:
                raise JobError(f'{name}: its worker process was killed {ATTEMPTS} times; it may need more memory')
            logger.warning('a worker process was killed; %s is run again', name)
        waiting.again(killed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let the processes that are started meanwhile compute in one thread each: there are as many as cores."""
    before = os.environ.get('OMP_NUM_THREADS')
    os.environ['OMP_NUM_THREADS'] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ['OMP_NUM_THREADS']
        else:
            os.environ['OMP_NUM_THREADS'] = before


@contextmanager
def forking() -> Iterator[None]:
    """Keep processes that are forked meanwhile from freeing, by their garbage collection, what this one has made.

    Freed in a fork, a video decoder waits without end for its threads, which live on in this process alone.
    """
    gc.collect()    # here its threads can be ended
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Asked(SystemExit):
    """The caller asks a worker to end."""


def _begin(parent: int) -> None:
    """Prepare a worker process: it ends with the caller, which alone answers Ctrl-C."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, lambda *_: None)  # not ignored: what a job starts would ignore it too
    signal.signal(signal.SIGTERM, _ask)


_working = False  # whether this process does a job, which may have to clean up


def _ask(*_: Any) -> None:
    if not _working:  # the pool's own loop would take an exception for a result, go on, and be waited for without end
        os._exit(143)
    signal.signal(signal.SIGTERM, lambda *_: None)  # both _end and the pool that breaks by it ask: one clean-up, whole
    raise _Asked(143)


def _work(function: Callable[[Any], Any], job: Any) -> Any:
    """Do a job; asked to end, let it clean up first (the pool would take the exception for its result and go on)."""
    global _working
    try:
        _working = True
        return function(job)
    except _Asked:
        os._exit(143)
    finally:
        _working = False


def _end(pool: ProcessPoolExecutor, busy: bool) -> None:
    """End a pool's workers, those that are busy too."""
    workers = list((pool._processes or {}).values()) if busy else []
    pool.shutdown(wait=not busy, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _on_cluster(function: Callable[[Any], Any], jobs: Mapping[str, Any], waiting: _Waiting, address: str
                ) -> Results:
    try:
        import ray
    except ImportError as error:
        raise ImportError('a cluster needs Ray: pip install ray, the same version on every machine') from error
    begun_here = not ray.is_initialized()
    if begun_here:
        try:
            ray.init(address=address, log_to_driver=False)
        except ConnectionError as error:
            raise JobError(f'no Ray cluster can be reached at {address}: start one with `ray start --head`; if it '
                           'uses a token, set RAY_AUTH_MODE=token here and provide ~/.ray/auth_token or '
                           'RAY_AUTH_TOKEN') from error
    try:
        remote = ray.remote(max_retries=ATTEMPTS)(function)
        running: dict[Any, str] = {}
        while True:
            while (name := waiting.take()) is not None:
                running[remote.remote(jobs[name])] = name
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            name = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayTaskError:
                raise  # what the job raises
            except ray.exceptions.RayError as error:
                raise JobError(f'{name}: its worker process was killed {ATTEMPTS} times ({error})') from error
            yield name, result
    finally:
        if begun_here:
            ray.shutdown()


@dataclass(frozen=True)
class Cost:
    """What a command took, and how it ended."""

    code: int           # exit status, negative for a signal
    minutes: float      # of the clock
    cpu_minutes: float  # of it and all that it waited for


def command(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None,
            ended: Callable[[Cost], None] = lambda cost: None) -> int:
    """Run a command to its end and return its exit status. It is ended when this process ends, however that happens.

    Args:
        words: the command.
        log: receives its output, behind what is there.
        environment: None: this process's.
        ended: called with what it took, also where it was stopped.

    Raises:
        FileNotFoundError: there is no such command.

    """
    began = time.monotonic()
    with log.open('a') as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment,
                                   preexec_fn=functools.partial(end_with_parent, signal.SIGTERM))
    try:
        cost = _reaped(process, began)
    except BaseException:
        os.kill(process.pid, signal.SIGTERM)
        ended(_reaped(process, began))
        raise
    ended(cost)
    return cost.code


def _reaped(process: subprocess.Popen[bytes], began: float) -> Cost:
    _, status, usage = os.wait4(process.pid, 0)  # wait() does not tell the processor time
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(process.returncode, (time.monotonic() - began) / 60, (usage.ru_utime + usage.ru_stime) / 60)


def end_with_parent(number: int) -> None:
    """Let this process get a signal when the one that started it ends (on Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, number)
