"""A critic's checkpoint is somebody else's file: whatever is in it, it loads whole or is refused by name, at once."""

import json
import math
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from vgps_critic import CheckpointError, Critic, checkpoint, network as network_module
from vgps_critic.config import CriticConfig, NetworkConfig
from vgps_critic.text import load_instruction_encoder

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp('critic')
    Critic.untrained(num_filters=4, image_size=64).save(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path, monkeypatch):
    shutil.copytree(original, tmp_path / 'c')

    def built(*_, **__):
        raise AssertionError('a network was built')
    monkeypatch.setattr(network_module, 'CriticNetwork', built)  # everything here is refused before that
    return tmp_path / 'c'


def refused(folder, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        Critic.load(folder)
    assert len(str(caught.value)) < 1000


def edit(folder, place, **values):
    """Change values of the configuration, with the hash that an attacker would compute."""
    path = folder / 'config.json'
    content = json.loads(path.read_text())
    (content[place] if place else content).update(values)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('value', [0, -1, True, False, 4.0, '4', None, [4], 2**31, 10**9, 10**30])
@pytest.mark.parametrize('name', ['num_filters', 'image_size', 'num_members', 'language_dim', 'action_dim'])
def test_a_size_that_is_no_sensible_integer_is_refused(folder, name, value):
    edit(folder, 'network', **{name: value})
    refused(folder, f'{name} must be an integer|has shape')


@pytest.mark.parametrize('value', [None, 3, 'abc', {}, [], [0], [-1], [True], [1.0], ['3'], [10**9], [1] * 60,
                                   [200] * 8, [[3]]])
@pytest.mark.parametrize('name', ['stage_sizes', 'hidden_dims'])
def test_a_list_of_sizes_that_cannot_be_is_refused(folder, name, value):
    edit(folder, 'network', **{name: value})
    refused(folder, f'{name} must be|has shape|is missing')


@pytest.mark.parametrize('name, value', [('num_filters', 4096), ('num_members', 1000), ('hidden_dims', [65536] * 16),
                                         ('stage_sizes', [200] * 8), ('language_dim', 65536)])
def test_sizes_that_are_not_the_file_s_are_refused_before_anything_is_built(folder, name, value):
    edit(folder, 'network', **{name: value})
    refused(folder, r'model.safetensors: key .* (has shape|is missing)')


@pytest.mark.parametrize('name, value', [
    ('discount', 'x'), ('discount', True), ('discount', 1.5), ('discount', None), ('success_steps', -1),
    ('success_steps', 2.5), ('step', '7'), ('step', 10**40), ('text_encoder', 5), ('text_encoder', 'x' * 10**5),
    ('algorithm', ['a']), ('data', {})])
def test_facts_of_another_kind_are_refused(folder, name, value):
    edit(folder, '', **{name: value})
    refused(folder, name)


@pytest.mark.parametrize('low', [[-1e300] * 7, [1e5] * 7, [float('nan')] * 7, ['a'] * 7, [True] * 7, [None] * 7,
                                 'abcdefg', 3, None, [], [0.0] * 6, {}])
def test_bounds_that_are_no_physical_range_are_refused(folder, low):
    edit(folder, 'action_space', low=low)
    refused(folder, 'action_space|not a number')


@pytest.mark.parametrize('text', ['[' * 100_000 + ']' * 100_000,
                                  '{"format": "vgps-critic/1", "hash": ' + '9' * 10_000 + '}',
                                  '', '5', 'null', '[]', '{"format": NaN}', '{"a": 1', ' ' * 2_000_000, '\ud800'])
def test_a_configuration_that_is_no_small_json_table_is_refused(folder, text):
    (folder / 'config.json').write_bytes(text.encode(errors='surrogatepass'))
    refused(folder, 'config.json')


def with_header(folder, header, body=b''):
    (folder / 'model.safetensors').write_bytes(struct.pack('<Q', len(header)) + header + body)


def entry(dtype='F32', shape=(4,), offsets=(0, 16)):
    return json.dumps({'a': {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}}).encode()


@pytest.mark.parametrize('header', [
    entry('BF16', (8,)), entry('F8_E4M3', (16,)), entry('F64', (2,)), entry('I64', (2,)), entry('NONSENSE'), entry(5),
    entry(shape=[2**62, 4]), entry(shape=[-4]), entry(shape=[True]), entry(shape=['4']), entry(shape=4),
    entry(shape=[4.0]), entry(offsets=[0, 2**62]), entry(offsets=[16, 0]), entry(offsets=[0]), entry(shape=[1] * 50),
    b'{"a":' + b'[' * 200_000 + b']' * 200_000 + b'}', b'[]', b'{"a": 5}', b'{"__metadata__": 5}', b'{', b'\xff\xfe'])
def test_a_header_that_cannot_be_is_refused(folder, header):
    with_header(folder, header, bytes(16))
    refused(folder, 'model.safetensors')


@pytest.mark.parametrize('content', [b'', b'\0' * 7, struct.pack('<Q', 2**62) + b'{}', struct.pack('<Q', 0)])
def test_a_file_that_is_no_safetensors_is_refused(folder, content):
    (folder / 'model.safetensors').write_bytes(content)
    refused(folder, 'not a safetensors file')


def test_a_truncated_file_is_refused_wherever_it_was_cut(folder):
    whole = (folder / 'model.safetensors').read_bytes()
    for size in {*range(0, 64, 7), *np.linspace(64, len(whole) - 1, 20).astype(int).tolist()}:
        (folder / 'model.safetensors').write_bytes(whole[:size])
        refused(folder, 'not a safetensors file|extends beyond the end of the file')


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
@pytest.mark.parametrize('kind', ['pipe', 'folder', 'circle', 'dangling', 'device'])
def test_what_is_not_a_regular_file_is_refused_without_waiting(folder, name, kind):
    path = folder / name
    path.unlink()
    {'pipe': lambda: os.mkfifo(path), 'folder': path.mkdir, 'circle': lambda: path.symlink_to(name),
     'dangling': lambda: path.symlink_to('nowhere'), 'device': lambda: path.symlink_to('/dev/zero')}[kind]()
    refused(folder, name)


@pytest.mark.parametrize('text', ['[' * 100_000, '5', '{"current": 5}', '{"current": "../../etc"}', ' ' * 2_000_000,
                                  json.dumps({'current': 'a' * 5000}), '{"current": ' + '9' * 10_000 + '}', '\ud800'])
def test_a_registry_that_does_not_say_which_critic_steers_is_refused(folder, text):
    (folder / 'current.json').write_bytes(text.encode(errors='surrogatepass'))
    refused(folder, 'current.json')


@pytest.mark.parametrize('name', ['x' * 5000, '~nobody-of-this-name/critic', 'a\0b', ''])
def test_a_name_that_no_folder_can_have_is_refused(name, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(CheckpointError):
        Critic.load(name)


@pytest.mark.parametrize('value', [math.nan, math.inf, 3e38])
def test_weights_that_give_no_values_are_refused_when_the_critic_is_loaded(original, tmp_path, value):
    shutil.copytree(original, tmp_path / 'c')
    state = load_file(tmp_path / 'c/model.safetensors')
    name = max(state, key=lambda name: state[name].size)
    state[name] = np.full_like(state[name], value)
    save_file(state, tmp_path / 'c/model.safetensors')
    content = json.loads((tmp_path / 'c/config.json').read_text())
    config = CriticConfig.from_dict({k: v for k, v in content.items() if k not in ('format', 'hash')}, '')
    content['hash'] = checkpoint.content_hash(state, config)
    (tmp_path / 'c/config.json').write_text(json.dumps(content))
    refused(tmp_path / 'c', 'NaN or inf|not finite')


@pytest.mark.parametrize('identity', ['/etc/passwd', 'https://example.org/x', 'x' * 10_000])
def test_the_name_of_a_foreign_text_encoder_is_compared_and_never_opened(identity):
    with pytest.raises(CheckpointError, match='was trained with instruction encoder') as caught:
        load_instruction_encoder(identity, 'muse-numpy')
    assert len(str(caught.value)) < 1000


def test_shapes_that_tell_the_sizes_are_those_of_the_network():
    config = NetworkConfig(stage_sizes=(2, 1), num_filters=8, hidden_dims=(16, 12), num_members=3, language_dim=20)
    network = network_module.CriticNetwork(config)
    config.check_shapes({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
