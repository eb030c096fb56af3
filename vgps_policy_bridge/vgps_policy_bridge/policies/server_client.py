"""`server`: a policy that runs elsewhere, behind vgps-policy-server."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import Candidates, Observation, check_candidates
from vgps_policy_bridge.server import protocol
from vgps_policy_bridge.server.server import DEFAULT_PORT

RETRY = 0.2  # [s] between two attempts to reach a server that is still loading


class ServerLostError(PolicyError):
    """The policy server cannot be reached or closed the connection."""


class RemotePolicyError(PolicyError):
    """The policy server answered with an error; `name` says which."""

    def __init__(self, name: str, message: str):
        super().__init__(f'{name}: {message}')
        self.name = name


class ServerPolicy:
    """Speaks to vgps-policy-server.

    Args:
        url: of the server.
        timeout: [s] for an answer.
        load_timeout: [s] for the first answer with each number of candidates: a policy in JAX compiles then.
        connect_timeout: [s] for the connection; a server that is still loading is waited for this long.
    """

    def __init__(self, url: str = f'ws://127.0.0.1:{DEFAULT_PORT}', timeout: float = 90.0,
                 load_timeout: float = 600.0, connect_timeout: float = 5.0):
        self._url, self._timeout, self._load_timeout = url, timeout, load_timeout
        self._connect_timeout = connect_timeout
        self._warm: set[int] = set()  # numbers of candidates that were answered on this connection
        parts = urlsplit(url)
        if parts.scheme != 'ws' or not parts.hostname:
            raise PolicyError(f'server: url must look like ws://127.0.0.1:{DEFAULT_PORT}, not {url!r}')
        self._address = parts.hostname, parts.port or DEFAULT_PORT
        self._stack, self._connection = ExitStack(), None
        self._committed: int | None = None
        # Only where the policy behind the server has one; its absence is how a policy says so.
        if self._request({'type': 'hello'}, 'hello').get('has_temperature'):
            self.temperature = 1.0

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode; connects again when the connection was lost.

        The seed is the policy's own: candidates are those it would draw in this process.
        """
        self._committed = None
        self._request({'type': 'reset', 'instruction': instruction, 'seed': int(seed)}, 'ok')

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Ask the server for k candidates.

        Raises RemotePolicyError with the server's reason, ServerLostError, or CandidatesError.
        """
        start = time.perf_counter()
        answer = self._request({
            'type': 'propose', 'k': int(k), 'temperature': float(getattr(self, 'temperature', 1.0)),
            'stamp': float(observation.stamp), 'image': observation.image, 'state': observation.state,
            'wrist_image': observation.wrist_image, 'committed': self._committed}, 'candidates',
            self._timeout if k in self._warm else self._load_timeout)
        self._warm.add(k)
        candidates = check_candidates(protocol.read_candidates(answer), k)
        return replace(candidates, policy=f'server {candidates.policy}',
                       stages=candidates.stages | {'server': 1e3 * (time.perf_counter() - start)})

    def committed(self, index: int) -> None:
        """Take note of the candidate that went to the robot; the policy hears of it with the next request."""
        self._committed = int(index)

    def close(self) -> None:
        """Close the connection."""
        self._warm.clear()
        self._connection = None
        self._stack.close()

    def _connect(self) -> ClientConnection:
        deadline = time.monotonic() + self._connect_timeout
        while True:
            try:
                # A socket of our own: proxies of the environment are for the web, not for a robot's loopback.
                peer = socket.create_connection(self._address, self._connect_timeout)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY)
        # No pings: a server whose policy keeps the interpreter busy for long (loading, compiling) cannot answer them;
        # the request's own timeout decides.
        return connect(self._url, sock=peer, open_timeout=self._connect_timeout, max_size=protocol.MAX_FRAME,
                       compression=None, ping_interval=None)

    def _request(self, message: dict, expected: str, timeout: float | None = None) -> dict:
        frame, timeout = protocol.encode(message | {'version': protocol.VERSION}), timeout or self._timeout
        if len(frame) > protocol.MAX_FRAME:
            raise protocol.MalformedFrameError(f'the request takes {len(frame)} bytes, at most {protocol.MAX_FRAME} '
                                               'are allowed: use a smaller image')
        try:
            if self._connection is None:
                self._connection = self._stack.enter_context(self._connect())
            self._connection.send(frame)
            answer = protocol.decode(self._connection.recv(timeout=timeout))
        except TimeoutError as error:
            self.close()  # an answer that comes late must not be taken for the next one's
            raise ServerLostError(f'no answer from {self._url} within {timeout:g} s') from error
        except (ConnectionClosed, InvalidHandshake, OSError) as error:
            self.close()
            raise ServerLostError(f'policy server at {self._url}: {error}; is vgps-policy-server running?') from error
        except protocol.MalformedFrameError:
            self.close()
            raise
        if answer['type'] == 'error':
            raise RemotePolicyError(str(answer.get('name')), str(answer.get('message')))
        if answer['type'] != expected:
            raise protocol.MalformedFrameError(f'expected {expected!r}, got {answer["type"]!r}')
        return answer
