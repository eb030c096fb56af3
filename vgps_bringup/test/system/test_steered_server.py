"""A steered policy behind openpi's protocol: what a client of that protocol sees."""

import threading
import urllib.request

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from vgps_bringup.system.steered_server import ServedPolicy, listen
from vgps_critic import Critic
from vgps_critic.steering import Steerer, SteeringConfig, step_seed
from vgps_policy_bridge.policies.openpi import pack, unpack
from vgps_policy_bridge.policy import Candidates, Observation, load_policy

INSTRUCTION = 'put the eggplant in the basket'


@pytest.fixture(scope='module')
def critic():
    return Critic.load('default')


@pytest.fixture
def served(critic):
    steerer = Steerer(critic, SteeringConfig(beta=0.0, deadline_ms=10000.0))
    return ServedPolicy(load_policy('random-policy'), steerer, 10)


@pytest.fixture
def url(served):
    with listen(served, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f'ws://127.0.0.1:{server.socket.getsockname()[1]}'
        server.shutdown()
        thread.join(5)


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (224, 224, 3), np.uint8)


def ask(connection, **request):
    connection.send(pack(request))
    answer = connection.recv(timeout=60)
    return answer if isinstance(answer, str) else unpack(answer)


def observation(seed=0, **more):
    return {'observation/image': image(seed), 'prompt': INSTRUCTION, **more}


def test_the_chunk_is_the_one_the_critic_values_most(url, critic):
    with connect(url, compression=None) as connection:
        assert unpack(connection.recv())['critic_hash'] == critic.hash
        answer = ask(connection, **observation())
    policy = load_policy('random-policy')
    policy.reset(INSTRUCTION, 0)
    candidates = policy.propose(Observation(image(), 0.0), 10)
    values = critic.score(critic.encode(image(), INSTRUCTION), candidates.actions[:, 0])
    best = int(values.min(axis=0).argmax())
    np.testing.assert_array_equal(answer['actions'], candidates.actions[best])
    steering = answer['steering']
    assert (steering['reason'], steering['chosen'], steering['candidates']) == ('STEERED', best, 10)
    np.testing.assert_allclose(steering['values'], values, atol=1e-4)
    assert answer['server_timing']['infer_ms'] > 0


def test_an_episode_begins_with_a_connection_another_prompt_or_another_number(url):
    def first(connection, **request):
        return ask(connection, **request)['steering']
    with connect(url, compression=None) as connection:
        connection.recv()
        seen = [first(connection, **observation(i)) for i in range(2)]
        seen.append(first(connection, **{**observation(), 'prompt': 'put the carrot on the plate'}))
        seen += [first(connection, **{**observation(), 'prompt': 'put the carrot on the plate', 'episode': n})
                 for n in (1, 1, 2)]
    assert [(s['seed'], s['step']) for s in seen] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0)]
    assert step_seed(0, 0) != step_seed(1, 0)


@pytest.mark.parametrize('request_, words', [
    ({'prompt': INSTRUCTION}, "no image under 'observation/image'; the request holds prompt"),
    ({'observation/image': image()}, 'no instruction'),
    ({'observation/image': image() / 255.0, 'prompt': INSTRUCTION}, 'float64; uint8'),
    ({'observation/image': image()[..., 0], 'prompt': INSTRUCTION}, 'must be (H, W, 3)')])
def test_a_request_that_lacks_something_is_answered_in_words_and_the_next_one_works(url, request_, words):
    with connect(url, compression=None) as connection:
        connection.recv()
        assert words in ask(connection, **request_)
        assert ask(connection, **observation())['actions'].shape == (1, 7)


def test_channels_first_is_the_same_picture(url):
    with connect(url, compression=None) as connection:
        connection.recv()
        one = ask(connection, **observation(episode=1))['steering']['values']
    with connect(url, compression=None) as connection:
        connection.recv()
        request = {**observation(episode=1), 'observation/image': np.ascontiguousarray(np.moveaxis(image(), 2, 0))}
        np.testing.assert_array_equal(ask(connection, **request)['steering']['values'], one)


def test_a_step_without_a_decision_moves_nothing(critic):
    class Broken:
        def reset(self, instruction, seed=0):
            pass

        def propose(self, observation, k):
            actions = np.full((k, 1, 7), 0.2, np.float32)  # beyond what this critic's data ever did
            actions[..., 6] = 1.0
            return Candidates(actions, policy='far')
    served = ServedPolicy(Broken(), Steerer(critic, SteeringConfig(fallback='hold', deadline_ms=10000.0)), 4)
    with listen(served, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with connect(f'ws://127.0.0.1:{server.socket.getsockname()[1]}', compression=None) as connection:
            connection.recv()
            answer = ask(connection, **observation())
        server.shutdown()
        thread.join(5)
    assert answer['steering']['reason'] == 'ACTION_SPACE_MISMATCH' and answer['steering']['value'] is None
    np.testing.assert_array_equal(answer['actions'], [[0, 0, 0, 0, 0, 0, 1]])


def test_one_client_at_a_time_and_a_health_page(url):
    with connect(url, compression=None) as one:
        one.recv()
        with pytest.raises(ConnectionClosed), connect(url, compression=None) as two:
            two.recv(timeout=10)
        assert urllib.request.urlopen(url.replace('ws', 'http') + '/healthz', timeout=10).read() == b'OK\n'


def test_the_openpi_adapter_is_such_a_client(url):
    policy = load_policy('openpi', url=url, state_key='')
    policy.reset(INSTRUCTION)
    assert policy.propose(Observation(image(), 0.0), 1).actions.shape == (1, 1, 7)
    policy.close()
