"""The policy server against hostile clients and hostile policies: a named error each time, then business as usual."""

import contextlib
import os
import pickle
import socket
import threading
import time

import msgpack
import numpy as np
import pytest

pytest.importorskip('websockets', reason='needs pip install websockets')
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vgps_policy_bridge.errors import CandidatesError, PolicyError
from vgps_policy_bridge.policies.random_policy import RandomPolicy
from vgps_policy_bridge.policies.server_client import RemotePolicyError, ServerLostError, ServerPolicy
from vgps_policy_bridge.policy import Candidates, Observation
from vgps_policy_bridge.server import protocol, server

OBSERVATION = Observation(np.zeros((48, 64, 3), np.uint8), 1.5, np.arange(7) / 10)


class Moody(RandomPolicy):
    """Random, or in the mood that the test gives it."""

    mood = 'good'
    built = 0
    told: list = []

    def __init__(self):
        super().__init__()
        Moody.built += 1
        self.temperature = 1.0

    def committed(self, index):
        Moody.told.append(index)

    def propose(self, observation, k):
        Moody.seen, Moody.temperature_seen = observation, self.temperature
        Moody.told_before = Moody.told.copy()
        if Moody.mood == 'hangs':
            time.sleep(1.5)
        if Moody.mood == 'raises':
            raise RuntimeError('out of memory')
        if Moody.mood == 'nan':
            return Candidates(np.full((k, 1, 7), np.nan), policy='p')
        if Moody.mood == 'shape':
            return Candidates(np.zeros((k, 7)), policy='p')
        if Moody.mood == 'too many':
            return super().propose(observation, k + 1)
        if Moody.mood == 'nothing':
            return None
        return super().propose(observation, k)


@contextlib.contextmanager
def serving(episodes=1, port=0):
    Moody.mood, Moody.built, Moody.told = 'good', 0, []
    connections = []

    class Server(server.PolicyServer):
        def _handle(self, connection):
            connections.append(connection)
            super()._handle(connection)

    with Server(Moody, timeout=0.5, episodes=episodes).listen(port=port) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f'ws://127.0.0.1:{listening.socket.getsockname()[1]}'
        listening.shutdown()
    for connection in connections:  # they end with a process; websockets before 17 leaves them open here
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture
def url():
    with serving() as address:
        yield address


@pytest.fixture
def client(url):
    client = ServerPolicy(url, timeout=5)
    client.reset('put carrot on plate', 7)
    yield client
    client.close()


def works(client):
    client.reset('put carrot on plate', 7)
    return len(client.propose(OBSERVATION, 3)) == 3


def test_candidates_are_those_of_the_policy_itself(client):
    local = RandomPolicy()
    local.reset('put carrot on plate', 7)
    client.temperature = 0.25
    for _ in range(2):
        near, far = local.propose(OBSERVATION, 20), client.propose(OBSERVATION, 20)
        np.testing.assert_array_equal(near.actions, far.actions)
        np.testing.assert_allclose(near.log_probabilities, far.log_probabilities)
        assert far.seed == near.seed and far.policy == 'server random-policy' and 'server' in far.stages
    np.testing.assert_array_equal(Moody.seen.image, OBSERVATION.image)
    np.testing.assert_allclose(Moody.seen.state, OBSERVATION.state)
    assert Moody.temperature_seen == 0.25


@pytest.mark.parametrize('mood, name', [('raises', 'PolicyFailedError: .*out of memory'), ('nan', 'CandidatesError'),
                                        ('shape', 'CandidatesError'), ('too many', 'CandidatesError'),
                                        ('nothing', 'CandidatesError'), ('hangs', 'PolicyTimeoutError')])
def test_bad_policy_costs_one_named_error(client, mood, name):
    client.propose(OBSERVATION, 3)
    Moody.mood = mood
    with pytest.raises(RemotePolicyError, match=name):
        client.propose(OBSERVATION, 3)
    Moody.mood = 'good'
    assert len(client.propose(OBSERVATION, 3)) == 3  # without a new reset
    assert Moody.built == (2 if mood == 'hangs' else 1)


@pytest.mark.slow
def test_first_answer_with_each_number_of_candidates_may_take_longer_because_it_compiles(client):
    Moody.mood = 'hangs'  # for three times the server's timeout
    assert len(client.propose(OBSERVATION, 3)) == 3
    with pytest.raises(RemotePolicyError, match='PolicyTimeoutError'):
        client.propose(OBSERVATION, 3)
    assert len(client.propose(OBSERVATION, 4)) == 4 and Moody.built == 2


def raw(url):
    return connect(url, compression=None, max_size=None, proxy=None)


def ask(connection, frame):
    connection.send(frame)
    return msgpack.unpackb(connection.recv(timeout=5))


def frame(**fields):
    return msgpack.packb({'version': 1} | fields, default=protocol._pack_array)


def array(name, shape, content):
    return msgpack.ExtType(1, msgpack.packb([name, shape, content]))


@pytest.mark.parametrize('bad', [
    b'', b'\xc1', os.urandom(1000), 'text', msgpack.packb([1, 2]), msgpack.packb({'type': 'hello'}),
    msgpack.packb({'type': 7, 'version': 1}), frame(type='shutdown'), b'\x91' * 100_000,
    b'\xdf\xff\xff\xff\xff', b'\xc6\xff\xff\xff\xff',
    pickle.dumps({'type': 'hello', 'version': 1}),
    frame(type='reset', instruction=3, seed=0), frame(type='reset', instruction='x', seed=-1),
    frame(type='reset', instruction='x' * 10_001, seed=0), frame(type='reset', instruction='x', seed=True),
    frame(type='propose', k=0, stamp=0.0, temperature=1.0), frame(type='propose', k=1001, stamp=0.0, temperature=1.0),
    frame(type='propose', k=2, stamp=0.0, temperature=1.0, image=array('uint8', [4, 4, 3], b'short')),
    frame(type='propose', k=2, stamp=0.0, temperature=1.0, image=array('uint8', [2**62, 4], b'')),
    frame(type='propose', k=2, stamp=0.0, temperature=1.0, image=array('uint8', [-1, 3], b'')),
    frame(type='propose', k=2, stamp=0.0, temperature=1.0, image=array('object', [1], b'12345678')),
    frame(type='propose', k=2, stamp=0.0, temperature=1.0, image=msgpack.ExtType(9, b'x')),
    frame(type='propose', k=2, stamp=0.0, temperature=1.0, image=array('uint8', [4, 4], b'0' * 16)),
    frame(type='propose', k='50', stamp=0.0, temperature=1.0),
    frame(type='propose', k=2, stamp=0.0, temperature=1.0, image=array('uint8', [2, 2, 3], b'0' * 12), committed='1'),
], ids=range(26))
def test_malformed_frame_gets_a_named_error_on_the_same_connection(url, client, bad):
    with raw(url) as connection:
        answer = ask(connection, bad)
        assert answer['type'] == 'error' and answer['name'] in ('MalformedFrameError', 'ObservationError')
        assert ask(connection, frame(type='hello'))['type'] == 'hello'
    assert works(client)


def test_frame_of_a_gigabyte_is_refused_before_it_is_read(url, client):
    host, port = url[5:].split(':')
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                     b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n')
        assert b'101' in peer.recv(4096)
        # A masked binary frame that announces 2**30 bytes and begins to send them.
        peer.sendall(b'\x82\xff' + (2**30).to_bytes(8, 'big') + b'\0\0\0\0' + b'\0' * 1000)
        peer.settimeout(5)
        assert (1009).to_bytes(2, 'big') in peer.recv(4096)  # close frame: message too big
    assert works(client)


def test_own_client_refuses_to_send_too_much(client):
    with pytest.raises(protocol.MalformedFrameError, match='smaller image'):
        client.propose(Observation(np.zeros((4000, 4000, 3), np.uint8), 0.0), 2)
    assert works(client)


def test_slow_and_silent_clients_do_not_delay_others(url, client):
    host, port = url[5:].split(':')
    silent = [socket.create_connection((host, int(port))) for _ in range(3)]  # never say a word
    with raw(url) as slow:  # begins a frame that never ends
        slow.socket.sendall(b'\x82\xff' + (10_000).to_bytes(8, 'big') + b'\0\0\0\0' + b'\0' * 10)
        start = time.monotonic()
        assert works(client) and time.monotonic() - start < 3
        slow.socket.close()
    for peer in silent:
        peer.close()


def test_too_many_clients_are_told(url):
    with contextlib.ExitStack() as connections:
        for _ in range(server.MAX_CONNECTIONS):
            ask(connections.enter_context(raw(url)), frame(type='hello'))
        with raw(url) as extra, pytest.raises(ConnectionClosed, match='1013'):
            extra.recv(timeout=5)


def test_browser_pages_are_turned_away(url):
    with pytest.raises(InvalidStatus, match='403'):
        connect(url, origin='http://evil.example', proxy=None)


def test_second_client_takes_over_and_the_first_is_told(url, client):
    second = ServerPolicy(url, timeout=5)
    second.reset('other', 1)
    with pytest.raises(RemotePolicyError, match='NotYourEpisodeError'):
        client.propose(OBSERVATION, 2)
    assert works(client)
    second.close()


def test_episodes_at_the_same_time_have_a_policy_each():
    with serving(episodes=2) as url:
        clients = [ServerPolicy(url, timeout=5) for _ in range(3)]
        for seed, client in enumerate(clients[:2]):
            client.reset('put carrot on plate', seed)
        for _ in range(3):
            for client in clients[:2]:
                client.propose(OBSERVATION, 2)
        alone = RandomPolicy()
        alone.reset('put carrot on plate', 1)
        expected = [alone.propose(OBSERVATION, 2).actions for _ in range(4)][-1]
        np.testing.assert_array_equal(clients[1].propose(OBSERVATION, 2).actions, expected)
        clients[2].reset('put carrot on plate', 2)  # one too many: the episode that began first is over
        assert len(clients[2].propose(OBSERVATION, 2)) == len(clients[1].propose(OBSERVATION, 2)) == 2
        with pytest.raises(RemotePolicyError, match='NotYourEpisodeError'):
            clients[0].propose(OBSERVATION, 2)
        clients[1].close()
        deadline = time.monotonic() + 5
        while not works(clients[0]) or not len(clients[2].propose(OBSERVATION, 2)):  # the seat of who left is free
            assert time.monotonic() < deadline
        assert Moody.built == 2
        clients[0].close(), clients[2].close()


def test_policy_is_told_what_was_committed_before_it_is_asked_again(client):
    client.propose(OBSERVATION, 3)
    client.committed(2)
    assert Moody.told == []  # costs no message of its own
    client.propose(OBSERVATION, 3)
    assert Moody.told_before == [2]
    client.committed(1)
    client.reset('put carrot on plate', 8)
    client.propose(OBSERVATION, 3)
    assert Moody.told == [2]  # an episode that is over is nobody's business


def test_client_waits_for_a_server_that_is_still_loading():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    found = []
    thread = threading.Thread(target=lambda: found.append(ServerPolicy(f'ws://127.0.0.1:{port}', connect_timeout=20)))
    thread.start()
    time.sleep(0.5)
    with serving(port=port):
        thread.join(20)
        assert works(found[0])
        found[0].close()


def test_client_names_a_server_that_is_not_there(url):
    with pytest.raises(ServerLostError, match='is vgps-policy-server running'):
        ServerPolicy('ws://127.0.0.1:1', connect_timeout=0.3)
    with pytest.raises(PolicyError, match='must look like'):
        ServerPolicy('http://127.0.0.1')


def test_client_names_a_server_that_went_away_and_goes_on_when_it_is_back():
    with serving() as url:
        client = ServerPolicy(url, timeout=5, connect_timeout=0.3)
        client.reset('put carrot on plate', 7)
    with pytest.raises(ServerLostError, match='is vgps-policy-server running'):
        client.propose(OBSERVATION, 2)
    with serving(port=int(url.rsplit(':')[-1])):
        with pytest.raises(RemotePolicyError, match='NotYourEpisodeError'):
            client.propose(OBSERVATION, 2)  # the episode went with the old server: no silent restart in mid-air
        assert works(client)
        client.close()


def test_what_the_google_robot_s_runner_needs_arrives_and_an_older_server_does_without():
    said = Candidates(np.zeros((2, 1, 7)), policy='p', statistics='fractal20220817_data', closing=[0.5, -1.0],
                      finished=True)
    message = protocol.decode(protocol.encode(protocol.write_candidates(said)))
    heard = protocol.read_candidates(message)
    assert (heard.statistics, heard.closing.tolist(), heard.finished) == ('fractal20220817_data', [0.5, -1.0], True)
    older = {name: value for name, value in message.items() if name not in ('statistics', 'closing', 'finished')}
    heard = protocol.read_candidates(older)
    assert (heard.statistics, heard.closing, heard.finished) == ('', None, False)
    with pytest.raises(protocol.MalformedFrameError, match='statistics must be a text'):
        protocol.read_candidates(message | {'statistics': 3})
    with pytest.raises(CandidatesError, match='closing must lie in -1'):
        protocol.read_candidates(message | {'closing': np.array([0, 7], np.float32)})


@pytest.mark.parametrize('answer, error', [
    (b'junk', protocol.MalformedFrameError),
    (frame(type='candidates', actions=array('float32', [3, 1, 7], np.full(21, np.nan, np.float32).tobytes()),
           policy='evil', temperature=1.0, seed=0, stages={}, used=[]), CandidatesError),
    (frame(type='ok'), protocol.MalformedFrameError), (None, ServerLostError)])
def test_client_does_not_trust_the_server(answer, error):
    from websockets.sync.server import serve

    def evil(connection):
        connection.recv()
        connection.send(frame(type='hello', has_temperature=False))
        connection.recv()
        if answer is None:
            time.sleep(1.0)
        else:
            connection.send(answer)
        time.sleep(0.2)
    with serve(evil, '127.0.0.1', 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        client = ServerPolicy(f'ws://127.0.0.1:{listening.socket.getsockname()[1]}', load_timeout=0.5)
        with pytest.raises(error):
            client.propose(OBSERVATION, 3)
        assert not hasattr(client, 'temperature')
        listening.shutdown()
