"""Runs a policy in a thread of its own: inference never blocks the executor."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class PolicyWorker:
    """One thread, one job at a time, in order. JAX and CUDA like to see one and the same thread."""

    def __init__(self):
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name='policy', daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        """Run job() in the thread, then done(result, error) in that same thread; done must not raise."""
        self._jobs.put((job, done))

    def close(self, timeout: float = 2.0) -> bool:
        """Let the thread end; return False when the policy hangs (the thread is a daemon and dies with us)."""
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result, error = job(), None
            except Exception as raised:
                result, error = None, raised
            done(result, error)
