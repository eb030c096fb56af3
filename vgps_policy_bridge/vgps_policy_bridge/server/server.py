"""vgps-policy-server: runs one policy in this environment and serves it to policy_node (policy:=server).

    python3.10 -m venv octo && octo/bin/pip install './vgps_policy_bridge[octo]'
    octo/bin/vgps-policy-server octo-small-1.5
    ros2 launch vgps_bringup robot.launch.py policy:=server

The episode's seed comes with the client's reset, so the candidates are those of the same policy in the client's own
process. A policy that raises, breaks the contract or hangs costs the client one named error; after a hang the policy
is built anew for the next request.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import threading
from collections.abc import Callable

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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('policy', help="entry-point name (group 'vgps.policies')")
    parser.add_argument('--options', default='{}', help='options of the policy, YAML')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on')
    parser.add_argument('--port', type=int, default=DEFAULT_PORT)
    parser.add_argument('--timeout', type=float, default=60.0, help='[s] for one request')
    parser.add_argument('--episodes', type=int, default=1, choices=range(1, MAX_CONNECTIONS + 1), metavar='N',
                        help='episodes at the same time, each with a policy of its own: one per worker of '
                             'vgps-evaluate trials')
    parser.add_argument('--allow-remote', action='store_true',
                        help='listen beyond this machine: there is no password and no encryption')
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')
    logging.getLogger('websockets').setLevel(logging.ERROR)
    if not is_loopback(arguments.host) and not arguments.allow_remote:
        parser.error(f'{arguments.host} can be reached from other machines; there is no password and no encryption. '
                     'Use an SSH tunnel, or say --allow-remote on a network you trust')
    server = PolicyServer(lambda: build_policy(arguments.policy, yaml.safe_load(arguments.options)),
                          arguments.timeout, episodes=arguments.episodes)
    try:
        server.load()
        with server.listen(arguments.host, arguments.port) as listening:
            LOG.info('policy %r on ws://%s:%d', arguments.policy, *listening.socket.getsockname()[:2])
            listening.serve_forever()
    except PolicyError as error:
        raise SystemExit(f'error: {error}') from error
    except KeyboardInterrupt:
        pass
