"""How the node answers action goals and calls services without ever waiting. Takes ROS objects, imports no ROS."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from vgps_msgs_py.vocabulary import Outcome
from vgps_policy_bridge.loop.episode import episode_name
from vgps_policy_bridge.loop.events import Goal

BUSY_PATIENCE = 2.0  # [s] a new goal waits for a sample that the episode before no longer wants
CLIENT_GONE = 5  # looks in a row, a second apart
BUSY = 'the policy is still busy with a request of an earlier episode'


def goal_of(request, max_steps: int) -> Goal:
    """Return the goal of an ExecuteInstruction request, named by the present time; max_steps where it gives none."""
    utc = datetime.now(timezone.utc).strftime('%Y%m%dT%H%M%S%f')[:-3]
    return Goal(episode_name(utc, request.task, request.instruction, request.seed), request.instruction, request.task,
                request.seed, request.max_steps or max_steps, request.reset)


def refusal(handle, machine, session) -> tuple[Outcome, str]:
    """Return how a goal that cannot begin now is answered, and why; no reason where it can begin."""
    if handle.is_cancel_requested:
        return Outcome.CANCELLED, 'cancelled before it began'
    if machine.running:
        return Outcome.ABORTED, f'episode {machine.goal.episode_id} is running: cancel it first'
    return Outcome.ABORTED, BUSY if session.busy else ''


class GoalAnswers:
    """Answers goals of an action server whose `execute_callback` is `execute`.

    A goal is executed only when its result is known: a coroutine that waited meanwhile would spin a whole core
    (rclpy polls it), and a callback that waited would block the executor.
    """

    def __init__(self):
        self._results: dict[bytes, Any] = {}

    def answer(self, handle, result) -> None:
        """Finish a goal with an ExecuteInstruction.Result."""
        self._results[bytes(handle.goal_id.uuid)] = result
        handle.execute()

    def execute(self, handle):
        """Hand over the result with the status that fits: cancelled, aborted, or succeeded (judged or timed out)."""
        result = self._results.pop(bytes(handle.goal_id.uuid))
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.outcome in (Outcome.ABORTED, Outcome.CANCELLED):
            handle.abort()
        else:
            handle.succeed()
        return result


class ClientWatch:
    """Notices that the action client is gone: one that was killed cancels nothing. `count` tells how many listen."""

    def __init__(self, count: Callable[[], int]):
        self._count, self._missing, self._next = count, 0, 0.0

    def gone(self, running: bool, now: float) -> bool:
        """Tell whether nobody listened in several looks in a row; a starved machine may lose sight for a moment."""
        if not running:
            self._missing = 0
        elif now >= self._next:
            self._next = now + 1.0
            self._missing = 0 if self._count() else self._missing + 1
        return self._missing >= CLIENT_GONE


class Renewals:
    """Requests that are sent again and again, each with its own time; only the newest answer is waited for."""

    def __init__(self, client):
        self._client, self._pending = client, None

    def send(self, request, on_answer: Callable[[Any], None] = lambda answer: None,
             wanted: Callable[[], bool] = lambda: False) -> None:
        """Send if the service is there. An unanswered request is forgotten here: a hung server answers none of them."""
        if not self._client.service_is_ready():
            return
        if self._pending is not None and not self._pending.done():
            self._client.remove_pending_request(self._pending)
        self._pending = self._client.call_async(request)
        self._pending.add_done_callback(lambda future: wanted() and on_answer(future.result()))


class PatientCall:
    """A service call that is sent once the service is there; `retry` is to be called a few times a second.

    Args:
        client: rclpy client.
        request: of its type.
        on_answer: called with the response.
        wanted: tells whether anybody still waits; an answer to a goal that is over must not reach the next one.
    """

    def __init__(self, client, request, on_answer: Callable[[Any], None], wanted: Callable[[], bool]):
        self._client, self._request, self._on_answer, self._wanted = client, request, on_answer, wanted
        self._sent = False
        self.retry()

    def retry(self) -> None:
        """Send the request if it was not sent yet and somebody answers."""
        if not self._sent and self._wanted() and self._client.service_is_ready():
            self._sent = True
            self._client.call_async(self._request).add_done_callback(self._done)

    def _done(self, future) -> None:
        if self._wanted():
            self._on_answer(future.result())
