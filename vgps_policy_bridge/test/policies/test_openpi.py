"""The adapter of openpi's policies, against a server that speaks its protocol."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from vgps_policy_bridge.errors import CandidatesError, ObservationError, PolicyError
from vgps_policy_bridge.policies import openpi
from vgps_policy_bridge.policy import Observation, load_policy

STATE = np.array([0.3, 0.0, 0.15, 0, 0, 0, 1.0])


def frame(value):
    return Observation(np.full((480, 640, 3), value, np.uint8), 0.0, STATE)


@pytest.fixture
def pi_server():
    pytest.importorskip('websockets', reason='needs pip install websockets')
    from websockets.sync.server import serve
    state = SimpleNamespace(seen=[], mood='random', parts={}, rng=np.random.default_rng(0))

    def handle(connection):
        connection.send(openpi.pack({'model': 'pi0'}))
        for request in connection:
            state.seen.append(openpi.unpack(request))
            actions = state.rng.uniform(0, 0.05, (5, 7)) if state.mood != 'greedy' else np.full((5, 7), 0.01)
            if state.mood == 'raises':
                connection.send('Traceback ...\nValueError: no such camera')
            elif state.mood == 'junk':
                connection.send(b'\xc1')
            else:
                shapes = {'narrow': actions[:, :3], 'wide': np.tile(actions, 2)[:, :8], 'parts': state.parts}
                connection.send(openpi.pack({'actions': shapes.get(state.mood, actions)}))
    with serve(handle, '127.0.0.1', 0, compression=None) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        state.url = f'ws://127.0.0.1:{listening.socket.getsockname()[1]}'
        yield state
        listening.shutdown()


def test_openpi_asks_k_times_and_sends_what_the_server_expects(pi_server):
    policy = load_policy('openpi', url=pi_server.url)
    policy.reset('put carrot on plate', 1)
    candidates = policy.propose(frame(200), 4)
    assert candidates.actions.shape == (4, 5, 7) and candidates.counts is None and len(pi_server.seen) == 4
    request = pi_server.seen[0]
    assert request['prompt'] == 'put carrot on plate'
    np.testing.assert_allclose(request['observation/state'], STATE, atol=1e-6)
    image = request['observation/image']
    assert image.shape == (224, 224, 3) and image.dtype == np.uint8
    assert (image[112] == 200).all() and (image[:28] == 0).all() and (image[28:196] == 200).all()
    policy.close()


def test_openpi_sends_the_wrist_camera_under_its_name_or_says_that_there_is_none(pi_server):
    policy = load_policy('openpi', url=pi_server.url, wrist_image_key='observation/wrist_image')
    candidates = policy.propose(Observation(frame(200).image, 0.0, STATE, np.full((80, 80, 3), 60, np.uint8)), 1)
    assert 'wrist_image' in candidates.used and (pi_server.seen[0]['observation/wrist_image'] == 60).all()
    assert pi_server.seen[0]['observation/image'].max() == 200
    with pytest.raises(ObservationError, match=r'needs a wrist camera.*wrist_topic'):
        policy.propose(frame(200), 1)
    policy.close()


def test_openpi_merges_the_chunks_of_a_greedy_server_and_turns_the_gripper(pi_server):
    pi_server.mood = 'greedy'
    policy = load_policy('openpi', url=pi_server.url, gripper='closedness', state_key='')
    candidates = policy.propose(Observation(frame(0).image, 0.0), 4)
    assert candidates.counts.tolist() == [4] and 'observation/state' not in pi_server.seen[0]
    np.testing.assert_allclose(candidates.actions[0, 0], [0.01] * 6 + [0.99], atol=1e-6)
    policy.close()


@pytest.mark.parametrize('mood, error, words', [('raises', PolicyError, 'no such camera'),
                                                ('junk', PolicyError, 'malformed'),
                                                ('narrow', PolicyError, '3 dimensions'),
                                                ('wide', PolicyError, r'8 dimensions \(joint positions')])
def test_openpi_errors_are_named_and_the_next_request_works(pi_server, mood, error, words):
    policy = load_policy('openpi', url=pi_server.url)
    pi_server.mood = mood
    with pytest.raises(error, match=words):
        policy.propose(frame(0), 2)
    pi_server.mood = 'random'
    policy.reset('x')
    assert len(policy.propose(frame(0), 2)) == 2
    with pytest.raises(ObservationError, match='robot state'):
        policy.propose(Observation(frame(0).image, 0.0), 2)
    policy.close()


def test_openpi_joins_the_parts_of_an_action_by_their_names(pi_server):
    pi_server.mood = 'parts'
    names = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper')
    values = {name: np.full((3, 1), 0.01 * (i + 1)) for i, name in enumerate(names)}
    # in no particular order, with a prefix, with and without an axis of one
    pi_server.parts = {f'action.{n}': values[n] if n < 'r' else values[n][:, 0] for n in reversed(names)}
    policy = load_policy('openpi', url=pi_server.url)
    chunk = policy.propose(frame(0), 1).actions[0]
    np.testing.assert_allclose(chunk, np.tile(0.01 * np.arange(1, 8), (3, 1)), atol=1e-6)
    policy.close()


def test_openpi_asks_which_parts_are_meant_where_names_do_not_tell(pi_server):
    pi_server.mood = 'parts'
    pi_server.parts = {'eef_delta': np.full((1, 3, 6), 0.02), 'gripper_position': np.ones((1, 3, 1)),
                       'joint_position': np.zeros((1, 3, 7))}
    policy = load_policy('openpi', url=pi_server.url)
    with pytest.raises(CandidatesError, match=r'eef_delta \(1, 3, 6\).*action_keys'):
        policy.propose(frame(0), 1)
    policy.close()
    policy = load_policy('openpi', url=pi_server.url, action_keys=['eef_delta', 'gripper_position'])
    np.testing.assert_allclose(policy.propose(frame(0), 1).actions[0], [[0.02] * 6 + [1.0]] * 3, atol=1e-6)
    policy.close()
    policy = load_policy('openpi', url=pi_server.url, action_keys=['joint_position', 'gripper_position'])
    with pytest.raises(PolicyError, match='8 dimensions'):
        policy.propose(frame(0), 1)
    policy.close()


def test_openpi_server_that_is_not_there_is_named():
    with pytest.raises(PolicyError, match=r'serve_policy\.py running'):
        load_policy('openpi', url='ws://127.0.0.1:1')


def test_openpi_never_takes_objects_from_the_wire():
    evil = {b'__ndarray__': True, b'data': b'x' * 8, b'dtype': '|O', b'shape': [1]}
    import msgpack
    with pytest.raises(PolicyError, match='array of type object'):
        openpi.unpack(msgpack.packb({'actions': evil}))
