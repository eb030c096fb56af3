"""vgps-policy-server: runs one policy in this environment and serves it to policy_node (policy:=server).

    python3.10 -m venv octo && octo/bin/pip install './vgps_policy_bridge[octo]'
    octo/bin/vgps-policy-server octo-small-1.5
    ros2 launch vgps_bringup robot.launch.py policy:=server

Requests are worked on one at a time. A policy that raises, breaks the contract or hangs costs the client one named
error; after a hang the policy is built anew for the next request.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import queue
import threading
from collections.abc import Callable

import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import Candidates, Observation, Policy, check_candidates
from vgps_policy_bridge.proposals import build_policy
from vgps_policy_bridge.server import protocol
from vgps_policy_bridge.worker import PolicyWorker

DEFAULT_PORT = 8765
MAX_CONNECTIONS = 8
LOG = logging.getLogger('vgps-policy-server')


class PolicyTimeoutError(PolicyError):
    """The policy did not answer in time; it is built anew for the next request."""


class NotYourEpisodeError(PolicyError):
    """Another client has begun an episode since this one's reset."""


class PolicyServer:
    """Serves one policy. `listen` opens the port and returns; the caller closes the server it gets.

    Args:
        build: returns a new policy; called in the policy's thread, again after a hang.
        timeout: [s] for one request of the policy.
        load_timeout: [s] for building the policy.
    """

    def __init__(self, build: Callable[[], Policy], timeout: float = 60.0, load_timeout: float = 600.0):
        self._build, self._timeout, self._load_timeout = build, timeout, load_timeout
        self._lock = threading.Lock()  # one request at a time
        self._worker: PolicyWorker | None = None
        self._policy: Policy | None = None
        self._episode: tuple[str, int] | None = None
        self._owner: object | None = None  # connection whose reset came last
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def load(self) -> None:
        """Build the policy now, so that a bad option is found before anybody connects."""
        with self._lock:
            self._ready()

    def listen(self, host: str = '127.0.0.1', port: int = DEFAULT_PORT) -> Server:
        """Open the port (0 takes a free one); run serve_forever() of what is returned."""
        # No compression: a small frame must not become a large one. No Origin: a web page in the operator's browser
        # must not reach a server on the loopback.
        return serve(self._handle, host, port, max_size=protocol.MAX_FRAME, compression=None, origins=[None],
                     open_timeout=10)

    def _handle(self, connection: ServerConnection) -> None:
        if not self._slots.acquire(blocking=False):
            connection.close(1013, f'{MAX_CONNECTIONS} clients are connected already')
            return
        try:
            for frame in connection:
                connection.send(self._answer(frame, connection))
        except ConnectionClosed:
            pass  # a client that sends too much is closed with 1009 by the websocket layer
        finally:
            self._slots.release()

    def _answer(self, frame: bytes | str, connection: object) -> bytes:
        try:
            answer = self._dispatch(protocol.decode(frame), connection)
        except Exception as error:
            LOG.warning('%s: %s', type(error).__name__, error)
            answer = protocol.error_message(error)
        frame = protocol.encode(answer)
        if len(frame) > protocol.MAX_FRAME:
            return protocol.encode(protocol.error_message(PolicyError('the answer is larger than a frame may be')))
        return frame

    def _dispatch(self, message: dict, connection: object) -> dict:
        kind = message['type']
        if kind == 'hello':
            with self._lock:
                policy = self._ready()
            return {'type': 'hello', 'version': protocol.VERSION, 'has_temperature': hasattr(policy, 'temperature')}
        if kind == 'reset':
            episode = protocol.read_reset(message)
            with self._lock:
                policy = self._ready()
                self._episode, self._owner = episode, connection
                self._run(lambda: policy.reset(*episode), self._timeout)
            return {'type': 'ok', 'version': protocol.VERSION}
        if kind == 'propose':
            observation, k, temperature = protocol.read_propose(message)
            with self._lock:
                if connection is not self._owner:
                    raise NotYourEpisodeError('reset first: another client has begun an episode, or nobody has')
                policy = self._ready()
                return protocol.write_candidates(
                    self._run(lambda: _propose(policy, observation, k, temperature), self._timeout))
        raise protocol.MalformedFrameError(f'unknown request {kind!r}')

    def _ready(self) -> Policy:
        """Return the policy; after a hang build it anew and begin the episode again."""
        if self._policy is None:
            self._worker = PolicyWorker()
            self._policy = policy = self._run(self._build, self._load_timeout)
            if self._episode is not None:
                self._run(lambda: policy.reset(*self._episode), self._timeout)
        return self._policy

    def _run(self, job: Callable, timeout: float):
        """Run job in the policy's thread; abandon that thread when it hangs (a thread cannot be killed)."""
        answers: queue.SimpleQueue = queue.SimpleQueue()
        self._worker.submit(job, lambda result, error: answers.put((result, error)))
        try:
            result, error = answers.get(timeout=timeout)
        except queue.Empty:
            self._worker, self._policy = None, None
            raise PolicyTimeoutError(f'the policy did not answer within {timeout:g} s') from None
        if error is not None:
            raise error
        return result


def _propose(policy: Policy, observation: Observation, k: int, temperature: float) -> Candidates:
    if hasattr(policy, 'temperature'):
        policy.temperature = temperature
    return check_candidates(policy.propose(observation, k), k)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address."""
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('policy', help="entry-point name (group 'vgps.policies')")
    parser.add_argument('--options', default='{}', help='options of the policy, YAML')
    parser.add_argument('--tools', default='[]', help='proposal tools around it, YAML')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on')
    parser.add_argument('--port', type=int, default=DEFAULT_PORT)
    parser.add_argument('--timeout', type=float, default=60.0, help='[s] for one request')
    parser.add_argument('--allow-remote', action='store_true',
                        help='listen beyond this machine: there is no password and no encryption')
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')
    logging.getLogger('websockets').setLevel(logging.ERROR)
    if not is_loopback(arguments.host) and not arguments.allow_remote:
        parser.error(f'{arguments.host} can be reached from other machines; there is no password and no encryption. '
                     'Use an SSH tunnel, or say --allow-remote on a network you trust')
    server = PolicyServer(lambda: build_policy(arguments.policy, yaml.safe_load(arguments.options),
                                               yaml.safe_load(arguments.tools)), arguments.timeout)
    try:
        server.load()
        with server.listen(arguments.host, arguments.port) as listening:
            LOG.info('policy %r on ws://%s:%d', arguments.policy, *listening.socket.getsockname()[:2])
            listening.serve_forever()
    except PolicyError as error:
        raise SystemExit(f'error: {error}') from error
    except KeyboardInterrupt:
        pass
