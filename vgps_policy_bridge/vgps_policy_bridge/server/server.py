"""``vgps-policy-server``: one policy in a Python environment of its own, for policy_node (policy:=server).

    python3.10 -m venv octo && octo/bin/pip install './vgps_policy_bridge[octo]'

The episode's seed comes with the client's reset, so the candidates are those of the same policy in the client's own
process. A policy that raises, breaks the contract or hangs costs the client one named error; after a hang the policy
is built anew for the next request.
"""

from __future__ import annotations

import ipaddress
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import tyro
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import Policy
from vgps_policy_bridge.proposals import build_policy
from vgps_policy_bridge.server import protocol
from vgps_policy_bridge.server.seat import Seat

DEFAULT_PORT = 8765
MAX_CONNECTIONS = 8
PING_TIMEOUT = 120.0  # [s] until a client counts as gone; a policy may keep this very interpreter busy for a while
LOG = logging.getLogger('vgps-policy-server')


class PolicyServer:
    """Serves one kind of policy. `listen` opens the port and returns; the caller closes the server it gets.

    Args:
        build: returns a new policy; called once per seat, and again after a hang.
        timeout: [s] for one request of the policy.
        load_timeout: [s] for building the policy, and for its first answer with each number of candidates.
        episodes: that can go on at the same time, each with a policy of its own. One client more takes over the
            episode that began first.
    """

    def __init__(self, build: Callable[[], Policy], timeout: float = 60.0, load_timeout: float = 600.0,
                 episodes: int = 1):
        self._lock = threading.Lock()  # of the seats' owners and order
        self._seats = [Seat(build, timeout, load_timeout) for _ in range(episodes)]  # the last to be reset comes last
        self._has_temperature: bool | None = None  # known once the policies are loaded
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def load(self) -> None:
        """Build the policies now, so that a bad option is found before anybody connects."""
        for seat in self._seats:
            self._has_temperature = seat.has_temperature()

    def listen(self, host: str = '127.0.0.1', port: int = DEFAULT_PORT) -> Server:
        """Open the port (0 takes a free one); run serve_forever() of what is returned."""
        # No compression: a small frame must not become a large one. No Origin: a web page in the operator's browser
        # must not reach a server on the loopback.
        return serve(self._handle, host, port, max_size=protocol.MAX_FRAME, compression=None, origins=[None],
                     open_timeout=10, ping_timeout=PING_TIMEOUT)

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
            with self._lock:
                for seat in self._seats:
                    if seat.owner is connection:
                        seat.owner = None

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
            if self._has_temperature is None:
                self.load()
            return {'type': 'hello', 'version': protocol.VERSION, 'has_temperature': self._has_temperature}
        if kind == 'reset':
            episode = protocol.read_reset(message)
            self._take_seat(connection).reset(connection, *episode)
            return {'type': 'ok', 'version': protocol.VERSION}
        if kind == 'propose':
            request = protocol.read_propose(message)
            return protocol.write_candidates(self._seat(connection).propose(connection, *request))
        raise protocol.MalformedFrameError(f'unknown request {kind!r}')

    def _seat(self, connection: object) -> Seat:
        """Return the seat of this client's episode; any other one refuses it by name."""
        with self._lock:
            return next((seat for seat in self._seats if seat.owner is connection), self._seats[0])

    def _take_seat(self, connection: object) -> Seat:
        """Give the client its own seat, a free one, or the one whose episode began first."""
        with self._lock:
            seat = next((seat for owner in (connection, None) for seat in self._seats if seat.owner is owner),
                        self._seats[0])
            seat.owner = connection
            self._seats.remove(seat)
            self._seats.append(seat)
            return seat


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address."""
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class Serve:
    """Serve one policy of this Python environment to policy_node (policy:=server), here or on another machine.

    Example: vgps-policy-server octo-small-1.5

    Next, on the robot's workstation: vgps-run robot policy:=server
    """

    policy: tyro.conf.Positional[str]
    """entry-point name of the policy (group vgps.policies)"""
    options: str = '{}'
    """the policy's options as YAML"""
    host: str = '127.0.0.1'
    """address to listen on"""
    port: int = DEFAULT_PORT
    """port to listen on, 0 .. 65535; 0 takes a free one"""
    timeout: float = 60.0
    """longest time for one request [s], above 0"""
    episodes: int = 1
    """episodes at the same time, 1 .. 8, each with its own instance of the policy: one per worker of vgps-evaluate
    trials"""
    allow_remote: bool = False
    """accept other machines, without a password and without encryption"""


def check(options: Serve) -> None:
    """Raise ValueError, naming cause and remedy, for what cannot be right."""
    if not 1 <= options.episodes <= MAX_CONNECTIONS:
        raise ValueError(f'--episodes must be 1 .. {MAX_CONNECTIONS}, not {options.episodes}')
    if not 0 <= options.port < 2**16:
        raise ValueError(f'--port must be 0 .. 65535, not {options.port}')
    if not options.timeout > 0:
        raise ValueError(f'--timeout must be above 0 s, not {options.timeout:g}')
    if not is_loopback(options.host) and not options.allow_remote:
        raise ValueError(f'{options.host} can be reached from other machines, without password and encryption: use an '
                         'SSH tunnel, or say --allow-remote on a network you trust')


def main() -> None:
    """Run the command line."""
    # nothing of vgps_msgs_py: what a policy needs is all that its environment holds
    options = tyro.cli(Serve, prog='vgps-policy-server', config=(tyro.conf.FlagCreatePairsOff,))
    logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')
    logging.getLogger('websockets').setLevel(logging.ERROR)
    try:
        check(options)
        server = PolicyServer(lambda: build_policy(options.policy, yaml.safe_load(options.options)), options.timeout,
                              episodes=options.episodes)
        server.load()
        with server.listen(options.host, options.port) as listening:
            LOG.info('policy %r on ws://%s:%d', options.policy, *listening.socket.getsockname()[:2])
            listening.serve_forever()
    except (PolicyError, OSError, ValueError, yaml.YAMLError) as error:
        print(f'vgps-policy-server: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        pass


if __name__ == '__main__':
    main()
