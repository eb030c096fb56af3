"""One policy of the server: its own thread, and the episode it is in."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import Candidates, Observation, Policy, check_candidates
from vgps_policy_bridge.worker import PolicyWorker


class PolicyTimeoutError(PolicyError):
    """The policy did not answer in time; it is built anew for the next request."""


class NotYourEpisodeError(PolicyError):
    """Another client has begun an episode since this one's reset."""


class Seat:
    """A policy, asked by one request at a time and built anew after a hang.

    Args:
        build: returns a new policy; called in the policy's thread.
        timeout: [s] for one request of the policy.
        load_timeout: [s] for building the policy, and for its first answer with each k: JAX compiles then.
    """

    def __init__(self, build: Callable[[], Policy], timeout: float, load_timeout: float):
        self._build, self._timeout, self._load_timeout = build, timeout, load_timeout
        self._lock = threading.Lock()
        self._worker: PolicyWorker | None = None
        self._policy: Policy | None = None
        self._episode: tuple[str, int] | None = None
        self._warm: set[int] = set()  # numbers of candidates that this policy has drawn before
        self.owner: object | None = None  # connection whose episode it is; the server sets it

    def has_temperature(self) -> bool:
        """Tell whether the policy has a temperature; builds it when need be."""
        with self._lock:
            return hasattr(self._ready(), 'temperature')

    def reset(self, client: object, instruction: str, seed: int) -> None:
        """Begin an episode of the client."""
        with self._lock:
            self._check(client)
            policy, self._episode = self._ready(), (instruction, seed)
            self._run(lambda: policy.reset(instruction, seed), self._timeout)

    def propose(self, client: object, observation: Observation, k: int, temperature: float,
                committed: int | None) -> Candidates:
        """Return k checked candidates; temperature and committed index go to a policy that has a use for them."""
        def job() -> Candidates:
            if hasattr(policy, 'temperature'):
                policy.temperature = temperature
            if hasattr(policy, 'committed') and committed is not None:
                policy.committed(committed)
            return check_candidates(policy.propose(observation, k), k)
        with self._lock:
            self._check(client)
            policy = self._ready()
            candidates = self._run(job, self._timeout if k in self._warm else self._load_timeout)
            self._warm.add(k)
            return candidates

    def _check(self, client: object) -> None:
        # Within the lock: another client may have taken the seat while this one waited for it.
        if client is not self.owner:
            raise NotYourEpisodeError('another client has begun an episode: call reset again, or start the server '
                                      'with a larger --episodes')

    def _ready(self) -> Policy:
        """Return the policy; after a hang build it anew and begin the episode again."""
        if self._policy is None:
            self._worker = self._worker or PolicyWorker()
            policy = self._run(self._build, self._load_timeout)
            if self._episode is not None:
                self._run(lambda: policy.reset(*self._episode), self._timeout)
            self._policy = policy
        return self._policy

    def _run(self, job: Callable, timeout: float):
        """Run job in the policy's thread; abandon that thread when it hangs (a thread cannot be killed)."""
        answers: queue.SimpleQueue = queue.SimpleQueue()
        self._worker.submit(job, lambda result, error: answers.put((result, error)))
        try:
            result, error = answers.get(timeout=timeout)
        except queue.Empty:
            self._worker, self._policy = None, None
            self._warm.clear()
            raise PolicyTimeoutError(f'the policy did not answer within {timeout:g} s') from None
        if error is not None:
            raise error
        return result
