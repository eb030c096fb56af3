"""Checkpoints of the authors' code come over exactly and cheaply; files made to hurt are refused."""

import os
import pickle
import struct
import subprocess
import sys

import msgpack
import numpy as np
import pytest
import torch
from golden import DATA, golden, golden_path

from vgps_critic import ActionSpace, Critic
from vgps_critic.config import CheckpointError
from vgps_critic.import_reference import find_file, import_reference, read_leaves

torch.set_num_threads(1)
BRIDGE = ActionSpace.named('bridge')


def ndarray(array):
    array = np.ascontiguousarray(array)
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def tree_of(leaves, value=ndarray):
    tree = {}
    for name, leaf in leaves.items():
        node = tree
        *folders, last = name.split('/')
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = value(leaf)
    return tree


@pytest.fixture(scope='module')
def leaves():
    with np.load(DATA / 'reference_small.npz') as archive:
        return {name.removeprefix('weights/'): a for name, a in archive.items() if name.startswith('weights/')}


def write_checkpoint(path, critic_tree, **more):
    networks = {'modules_actor': {}, 'modules_critic': critic_tree, 'modules_temperature': {}}
    state = {'opt_states': {'actor': [1, 2.5, None, True]}, 'params': {}, 'rng': ndarray(np.zeros(2, np.uint32)),
             'step': 77, 'target_params': networks, **more}
    path.write_bytes(msgpack.packb({'state': state}))
    return path


def q_values(critic, images, language, actions):
    with torch.inference_mode():
        return critic.network(*(torch.from_numpy(a) for a in (images, language, actions))).numpy().transpose(1, 0, 2)


def test_a_checkpoint_directory_of_the_reference_scores_as_the_reference(tmp_path):
    config = import_reference(golden_path('reference_checkpoint_2000'), tmp_path / 'out', action_space=BRIDGE)
    assert config.network.num_filters == 4 and config.algorithm.startswith('cal-ql')
    scores, critic = golden('reference_checkpoint_scores.npz'), Critic.load(tmp_path / 'out')
    q = q_values(critic, scores['images'], scores['language'], scores['actions'])
    assert np.abs(q - scores['q_target']).max() <= 5e-6


def test_the_online_critic_is_another_one(tmp_path):
    online, _, _ = read_leaves(find_file(golden_path('reference_checkpoint_2000')), 'params')
    target, _, _ = read_leaves(find_file(golden_path('reference_checkpoint_2000')))
    assert any((online[name] != target[name]).any() for name in target)


def test_a_plain_file_as_older_flax_wrote_it_is_taken_and_its_step_kept(tmp_path, leaves):
    config = import_reference(write_checkpoint(tmp_path / 'checkpoint_77', tree_of(leaves)), tmp_path / 'out',
                              action_space=BRIDGE, data='bridge')
    critic = Critic.load(tmp_path / 'out')
    assert critic.config == config and config.step == 77 and config.data == 'bridge'
    arrays = dict(np.load(DATA / 'reference_small.npz'))
    q = q_values(critic, arrays['image'][None], arrays['language'][None], arrays['actions'][None])
    assert np.abs(q[0] - arrays['q_target']).max() <= 5e-6


def with_leaf(change):
    def damage(leaves):
        tree = tree_of(leaves)
        change(tree)
        return tree
    return damage


def set_bias(value):
    return with_leaf(lambda tree: tree['Dense_0'].update(bias=value))


HOSTILE = [
    (with_leaf(lambda tree: tree['Dense_0'].pop('bias')), 'Dense_0/bias is missing'),
    (with_leaf(lambda tree: tree.update(more=ndarray(np.zeros(1, np.float32)))), 'more is not part of a critic'),
    (with_leaf(lambda tree: tree['encoder'].clear()), 'encoder/encoder/conv_init/kernel'),
    (set_bias(ndarray(np.zeros(9, np.float32))), r'Dense_0/bias has shape \(9,\), expected \(1,\)'),
    (set_bias(ndarray(np.zeros(1, np.float64))), 'Dense_0/bias is float64'),
    (set_bias(ndarray(np.full(1, np.nan, np.float32))), 'last.bias holds NaN'),
    (set_bias(msgpack.ExtType(2, b'1234')), 'Dense_0/bias has msgpack extension type 2'),
    (set_bias(msgpack.ExtType(1, b'1234')), r'Dense_0/bias is not \[shape, dtype, bytes\]'),
    (set_bias(msgpack.ExtType(1, msgpack.packb([[4], 'float32', b'1234']))), r'shape \[4\] does not fit its 4 bytes'),
    (set_bias(msgpack.ExtType(1, msgpack.packb([[2**62, 2**62], 'float32', b'']))), 'does not fit its 0 bytes'),
    (set_bias(msgpack.ExtType(1, msgpack.packb([[-1, -1], 'float32', b'1234']))), 'an impossible shape'),
    (set_bias(msgpack.ExtType(1, msgpack.packb([['a'], 'float32', b'1234']))), 'impossible shape'),
    (set_bias(msgpack.ExtType(1, msgpack.packb([[1], 'object', b'1234']))), 'Dense_0/bias is object'),
    (set_bias('text'), 'Dense_0/bias is a str, expected an array'),
    (set_bias(3.0), r'Dense_0/bias has shape \(\)'),
]


@pytest.mark.parametrize('damage, words', HOSTILE, ids=[words for _, words in HOSTILE])
def test_a_leaf_that_is_not_as_it_should_be_is_named(tmp_path, leaves, damage, words):
    path = write_checkpoint(tmp_path / 'checkpoint', damage(leaves))
    with pytest.raises(CheckpointError, match=words):
        import_reference(path, tmp_path / 'out', action_space=BRIDGE)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('keep', [0, 1, 7, 1000, 500_000, -1])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, leaves, keep):
    path = write_checkpoint(tmp_path / 'checkpoint', tree_of(leaves))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match='truncated'):
        import_reference(path, tmp_path / 'out', action_space=BRIDGE)


class Bomb:
    def __reduce__(self):
        return os.system, ('touch bomb_went_off',)


def nested(depth):
    return b'\x81\xa1a' * depth + b'\xc0'


FILES = {
    'pickle': (pickle.dumps(Bomb()), 'checkpoint'),
    'numpy': (b'\x93NUMPY\x01\x00v\x00{}', 'is a array|expected a map|expected a name'),
    'not msgpack': (b'\xc1' * 100, '0xc1 is not msgpack'),
    'empty map': (b'\x80', 'there is no state/target_params/modules_critic'),
    'more after the end': (b'\x80\x00', '1 bytes follow'),
    'map of four billion': (b'\xdf\xff\xff\xff\xff', 'truncated'),
    'skipped string of four gigabytes': (b'\x81\xa1a\xdb\xff\xff\xff\xff', 'truncated'),
    'name of four gigabytes': (b'\x81\xdb\xff\xff\xff\xff', 'expected a name'),
    'deep nesting': (nested(100_000), 'there is no state/target_params/modules_critic'),
    'many objects': (b'\x81\xa1a\xdd\x7f\xff\xff\xff' + b'\x00' * 1_100_000, 'more than 1000000 objects'),
    'critic nested too deep': (b'\x81\xa5state\x81\xadtarget_params\x81\xaemodules_critic' + nested(100),
                               'nested more than 32 deep'),
}


@pytest.mark.parametrize('name', FILES)
def test_a_hostile_file_is_refused_and_nothing_in_it_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, words = FILES[name]
    (tmp_path / 'checkpoint').write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        import_reference(tmp_path / 'checkpoint', tmp_path / 'out', action_space=BRIDGE)
    assert not (tmp_path / 'bomb_went_off').exists()


def test_a_gigabyte_of_zeros_is_refused_at_once(tmp_path):
    with (tmp_path / 'checkpoint').open('wb') as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(CheckpointError, match='at byte 1: the file is a value, expected a map'):
        import_reference(tmp_path / 'checkpoint', tmp_path / 'out', action_space=BRIDGE)


def test_a_directory_without_the_file_says_what_it_holds(tmp_path):
    (tmp_path / 'checkpoint_5').mkdir()
    with pytest.raises(CheckpointError, match="holds no file 'checkpoint' .*checkpoint_5"):
        find_file(tmp_path)
    with pytest.raises(CheckpointError, match='no such file'):
        find_file(tmp_path / 'nowhere')


def test_arrays_that_lie_in_a_store_beside_the_file_are_said_to(tmp_path):
    (tmp_path / 'checkpoint').write_bytes(msgpack.packb({'state': 'PLACEHOLDER://state'}))
    (tmp_path / 'manifest.ocdbt').write_bytes(b'')
    with pytest.raises(CheckpointError, match=r"orbax's OCDBT format .*restore"):
        find_file(tmp_path)


def test_a_critic_is_not_overwritten(tmp_path, leaves):
    path = write_checkpoint(tmp_path / 'checkpoint', tree_of(leaves))
    import_reference(path, tmp_path / 'out', action_space=BRIDGE)
    with pytest.raises(CheckpointError, match='holds a critic already'):
        import_reference(path, tmp_path / 'out', action_space=BRIDGE)


def command(*arguments):
    return subprocess.run([sys.executable, '-m', 'vgps_critic.import_reference', *map(str, arguments)],
                          capture_output=True, text=True)


def test_the_command_line_imports_and_explains_its_refusals_in_one_line(tmp_path, leaves):
    path = write_checkpoint(tmp_path / 'checkpoint', tree_of(leaves))
    space = tmp_path / 'space.json'
    space.write_text('{"rule": "quantiles", "low": [0,0,0,0,0,0,0], "high": [1,1,1,1,1,1,1]}')
    done = command(path, tmp_path / 'out', '--action-space', space)
    assert done.returncode == 0, done.stderr
    assert Critic.load(tmp_path / 'out').action_space.rule == 'quantiles'
    failed = command(path, tmp_path / 'out')
    assert failed.returncode == 2 and failed.stderr.startswith('vgps-import-reference: ')
    assert failed.stderr.count('\n') == 1


def write_full_width(path, copies):
    """Write the published critic, all zeros, and `copies` more of it as the optimisers' moments would be."""
    from vgps_critic.config import NetworkConfig
    from vgps_critic.flax_names import expected_leaves
    shapes = {name: leaf.shape for name, leaf in expected_leaves(NetworkConfig()).items()}

    def write_tree(file, tree):
        if isinstance(tree, dict):
            file.write(msgpack.Packer().pack_map_header(len(tree)))
            for name, child in tree.items():
                file.write(msgpack.packb(name))
                write_tree(file, child)
            return
        size = 4 * int(np.prod(tree))
        payload = b'\x93' + msgpack.packb(tree) + msgpack.packb('float32') + b'\xc6' + struct.pack('>I', size)
        file.write(b'\xc9' + struct.pack('>I', len(payload) + size) + b'\x01' + payload)
        file.seek(size, 1)

    critic = tree_of(shapes, tuple)
    with path.open('wb') as file:
        write_tree(file, {'state': {
            'opt_states': {str(i): critic for i in range(copies)}, 'target_params': {'modules_critic': critic}}})
        file.truncate(file.tell())


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='peak memory is read from /proc')
def test_a_checkpoint_of_the_originals_size_stays_under_twice_the_critic_and_one_leaf(tmp_path):
    write_full_width(tmp_path / 'checkpoint', copies=15)
    assert (tmp_path / 'checkpoint').stat().st_size > 1.6e9
    # not getrusage: its peak would include this process, which the child was forked from
    code = ("from vgps_critic.import_reference import main; main()\n"
            "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])")
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'checkpoint'), str(tmp_path / 'out')],
                          capture_output=True, text=True, check=True)
    critic, leaf = 25_563_201 * 4, 3 * 3 * 512 * 512 * 4
    assert 1024 * int(done.stdout.split()[-1]) < 2 * critic + leaf  # 140 MB, interpreter included
