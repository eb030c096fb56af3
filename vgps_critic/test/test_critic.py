"""A critic is loaded whole or not at all, and gives the same values wherever it runs."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from vgps_critic import ActionSpace, CheckpointError, Critic, NetworkConfig, checkpoint, select
from vgps_critic.config import CriticConfig
from vgps_critic.text import MUSE_NUMPY

torch.set_num_threads(1)
SMALL = dict(num_filters=8, image_size=64)


@pytest.fixture(scope='module')
def critic():
    return Critic.untrained(**SMALL)


@pytest.fixture
def saved(critic, tmp_path):
    critic.save(tmp_path)
    return tmp_path


def observation(seed=0):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (60, 80, 3), np.uint8)
    return image, generator.normal(0, 0.04, 512).astype(np.float32)


def some_actions(k, seed=1):
    return np.random.default_rng(seed).uniform(-0.05, 0.05, (k, 7)).astype(np.float32)


@pytest.mark.parametrize('k', [1, 2, 10, 1000])
def test_any_number_of_candidates_is_scored_each_as_if_alone(critic, k):
    encoded = critic.encode(*observation())
    actions = some_actions(k)
    q = critic.score(encoded, actions)
    assert q.shape == (2, k) and q.dtype == np.float32
    np.testing.assert_allclose(critic.score(encoded, actions[-1:])[:, 0], q[:, -1], atol=1e-6)


def test_scoring_is_the_whole_network_on_resized_image_and_normalised_actions(critic):
    image, language = observation()
    from vgps_msgs_py.lanczos import resize
    with torch.inference_mode():
        direct = critic.network(torch.from_numpy(resize(image, 64)[None]), torch.from_numpy(language[None]),
                                torch.from_numpy(critic.action_space.normalize(some_actions(5))[None]))
    np.testing.assert_allclose(critic.score(critic.encode(image, language), some_actions(5)), direct[:, 0], atol=1e-6)


def test_the_encoder_runs_once_per_frame_whatever_k(critic):
    calls = []
    handle = critic.network.encoder.register_forward_hook(lambda *args: calls.append(1))
    encoded = critic.encode(*observation())
    for k in (1, 10, 100):
        critic.score(encoded, some_actions(k))
    handle.remove()
    assert len(calls) == 1


@pytest.mark.parametrize('actions, words', [
    (np.zeros((0, 7)), 'K >= 1'), (np.zeros(7), r'shape \(7,\)'), (np.zeros((3, 6)), r'\(3, 6\)'),
    (np.array([[0] * 7, [np.nan] * 7]), 'action 1 is not finite'),
    (np.array([[np.inf] * 7]), 'action 0 is not finite')])
def test_bad_actions_are_refused_by_name(critic, actions, words):
    with pytest.raises(ValueError, match=words):
        critic.score(critic.encode(*observation()), actions)


@pytest.mark.parametrize('language, words', [(np.zeros(511, np.float32), r'shape \(511,\)'),
                                             (np.full(512, np.nan), 'NaN')])
def test_bad_embeddings_are_refused_by_name(critic, language, words):
    with pytest.raises(ValueError, match=words):
        critic.encode(observation()[0], language)


def test_a_saved_critic_loads_with_the_same_values_configuration_and_hash(critic, saved):
    loaded = Critic.load(saved)
    encoded = critic.encode(*observation())
    assert loaded.hash == critic.hash and loaded.config == critic.config
    np.testing.assert_array_equal(loaded.score(loaded.encode(*observation()), some_actions(50)),
                                  critic.score(encoded, some_actions(50)))
    card = (saved / 'README.md').read_text()
    assert critic.hash in card and 'droll | rad | -0.25 | 0.25' in card


def test_seeds_make_critics_apart_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    one, same, other = (Critic.untrained(seed, **SMALL) for seed in (0, 0, 1))
    assert one.hash == same.hash != other.hash
    assert torch.equal(before, torch.random.get_rng_state())


def rewrite_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_weights(folder, change):
    state = load_file(folder / 'model.safetensors')
    change(state)
    save_file(state, folder / 'model.safetensors')
    # the hash is brought up to date, so that the check under test is the one that speaks
    config = json.loads((folder / 'config.json').read_text())
    values = {k: v for k, v in config.items() if k not in ('format', 'hash')}
    rewrite_config(folder, hash=checkpoint.content_hash(state, CriticConfig.from_dict(values, '')))


def truncate(folder):
    with (folder / 'model.safetensors').open('r+b') as file:
        file.truncate(100_000)


@pytest.mark.parametrize('damage, words', [
    (truncate, 'model.safetensors'),
    (lambda f: (f / 'model.safetensors').unlink(), 'model.safetensors'),
    (lambda f: (f / 'config.json').write_text('{'), 'config.json'),
    (lambda f: (f / 'config.json').unlink(), 'config.json'),
    (lambda f: rewrite_config(f, format='other'), 'not a critic of this project'),
    (lambda f: rewrite_config(f, colour='red'), "unknown key 'colour'"),
    (lambda f: rewrite_config(f, step=7), 'content hash'),
    (lambda f: rewrite_config(f, action_space={'rule': 'bounds'}), "key 'action_space'"),
    (lambda f: rewrite_config(f, network={'num_filters': 5}), "key 'network'.*multiple of 4"),
    (lambda f: rewrite_weights(f, lambda s: s.pop('last.weight')), 'key last.weight is missing'),
    (lambda f: rewrite_weights(f, lambda s: s.update(more=np.zeros(2, np.float32))), 'key more is not part'),
    (lambda f: rewrite_weights(f, lambda s: s.update({'last.bias': np.zeros(3, np.float32)})), r'last.bias has shape'),
    (lambda f: rewrite_weights(f, lambda s: s.update({'last.bias': np.zeros(1, np.float16)})), 'last.bias is F16')])
def test_a_damaged_checkpoint_is_refused_and_the_key_or_file_is_named(saved, damage, words):
    damage(saved)
    with pytest.raises(CheckpointError, match=words):
        Critic.load(saved)


def test_one_changed_weight_is_noticed_by_the_hash(saved):
    state = load_file(saved / 'model.safetensors')
    state['last.bias'] = state['last.bias'] + np.float32(1e-6)
    save_file(state, saved / 'model.safetensors')
    with pytest.raises(CheckpointError, match='content hash'):
        Critic.load(saved)


def test_configuration_and_network_must_agree_when_saving(critic, tmp_path):
    with pytest.raises(ValueError, match='its configuration says'):
        checkpoint.save(tmp_path, critic.network, CriticConfig(ActionSpace.named('bridge'), NetworkConfig()))


@pytest.mark.slow
def test_a_hub_id_loads_from_the_local_cache_without_a_network(saved, tmp_path_factory):
    cache, revision = tmp_path_factory.mktemp('hub'), '0' * 40
    repo = cache / 'models--lab--critic'
    (repo / 'refs').mkdir(parents=True)
    for name in ('main', 'v1'):
        (repo / 'refs' / name).write_text(revision)
    (repo / 'snapshots').mkdir()
    (repo / 'snapshots' / revision).symlink_to(saved)
    code = ("from vgps_critic import Critic, CheckpointError\n"
            "print(len({Critic.load('lab/critic' + at).hash for at in ('', '@v1', '@' + '0' * 40)}),"
            " Critic.load('lab/critic').hash)\n"
            "try:\n    Critic.load('lab/critic@v2')\nexcept CheckpointError as e:\n    print(str(e).splitlines()[0])\n"
            "try:\n    Critic.load('lab/other')\nexcept CheckpointError as e:\n    print(e)")
    out = run_python(code, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE='1').splitlines()
    assert out[0] == f'1 {Critic.load(saved).hash}'
    assert out[1].startswith('lab/critic@v2: not a folder, and not found on the hub or in its local cache')
    assert out[-1].startswith('lab/other: not a folder, and not found on the hub or in its local cache')


@pytest.mark.parametrize('revision, loads', [('0' * 40, True), ('main', False), (None, False)])
def test_where_the_hub_refuses_only_a_pinned_commit_comes_from_the_cache(saved, revision, loads, monkeypatch):
    def download(name, local_files_only=False, **wanted):
        if local_files_only:
            return str(saved)
        raise OSError('401: access was withdrawn')

    monkeypatch.setattr('huggingface_hub.snapshot_download', download)
    if loads:
        assert Critic.load('lab/critic', revision=revision).hash == Critic.load(saved).hash
    else:
        with pytest.raises(CheckpointError, match='401: access was withdrawn'):
            Critic.load('lab/critic', revision=revision)


def test_a_path_that_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(CheckpointError, match='no such folder, and not a hub id'):
        Critic.load('/nowhere/at/all')


@pytest.mark.parametrize('name, revision, words', [
    ('lab/critic@', None, 'owner/name@revision'), ('lab@v1', None, 'not a hub id'),
    ('lab/critic@v1', 'v2', 'give only one')])
def test_a_revision_that_is_half_written_or_contradicted_is_refused(name, revision, words):
    with pytest.raises(CheckpointError, match=words):
        Critic.load(name, revision=revision)


FOREIGN = {  # files -> what the refusal says of the folder
    ('manifest.ocdbt', '_METADATA', 'd/0'): r"orbax's OCDBT format .* `vgps-import-reference checkpoint OUT`",
    ('checkpoint', 'ocdbt.process_0/manifest.ocdbt'): "orbax's OCDBT format",
    ('500/default/manifest.ocdbt', '500/_CHECKPOINT_METADATA'): "orbax's OCDBT format .*500/default",
    ('checkpoint', 'params.layer.kernel/.zarray'): "orbax's Zarr format",
    ('_METADATA', 'checkpoint'): "authors' JAX code: `vgps-import-reference",
    ('checkpoint_9/checkpoint', 'checkpoint_10/checkpoint'): "holds checkpoints of the authors' JAX code",
    ('saved_model.pb',): 'TensorFlow SavedModel',
    ('dataset_statistics.json', 'config.json', '300000/default/manifest.ocdbt'): 'policy:=octo-checkpoint',
    ('config.json', 'model.safetensors', 'train_config.json'): 'LeRobot policy',
    ('critic/config.json', 'checkpoints/1/state.pt'): 'is a training run: give .*critic',
}


@pytest.mark.parametrize('files', FOREIGN, ids=lambda files: files[0])
def test_a_folder_of_something_else_is_named_for_what_it_is(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"type": "diffusion"}')
    with pytest.raises(CheckpointError, match=FOREIGN[files]):
        Critic.load(tmp_path)


@pytest.mark.parametrize('name, words', [('state.pt', 'a pickle'), ('model.safetensors', 'give the folder that holds'),
                                         ('checkpoint_500', 'vgps-import-reference')])
def test_a_file_is_named_for_what_it_is(tmp_path, name, words):
    (tmp_path / name).write_bytes(b'x')
    with pytest.raises(CheckpointError, match=words):
        Critic.load(tmp_path / name)


def test_the_default_is_the_shipped_critic_and_its_absence_is_named(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, 'SHIPPED', saved)
    assert Critic.load('default').hash == Critic.load(saved).hash
    monkeypatch.setattr(checkpoint, 'SHIPPED', saved / 'absent')
    with pytest.raises(CheckpointError, match="no critic is shipped as 'default'"):
        Critic.load('default')


def run_python(code, **environment):
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, capture_output=True, text=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1', **environment}).stdout


@pytest.mark.slow
def test_the_same_frame_actions_beta_and_seed_give_the_same_choice_in_another_process(saved):
    code = f"""
import numpy as np
from vgps_critic import Critic, select
critic = Critic.load({str(saved)!r})
g = np.random.default_rng(0)
encoded = critic.encode(g.integers(0, 256, (60, 80, 3), np.uint8), g.normal(0, 0.04, 512).astype(np.float32))
q = critic.score(encoded, np.random.default_rng(1).uniform(-0.05, 0.05, (50, 7)).astype(np.float32))
print([select(q, 0.1, np.random.default_rng(seed)).index for seed in range(20)], q.tobytes().hex())"""
    elsewhere = run_python(code)
    critic = Critic.load(saved)
    q = critic.score(critic.encode(*observation()), some_actions(50))
    choices = [select(q, 0.1, np.random.default_rng(seed)).index for seed in range(20)]
    assert elsewhere.strip() == f'{choices} {q.tobytes().hex()}'
    assert len(set(choices)) > 5


@pytest.mark.slow
def test_the_core_imports_no_ros_and_the_importer_no_torch():
    code = ("import sys, pkgutil, vgps_critic\n"
            "import vgps_critic.import_reference\nprint('torch' in sys.modules)\n"
            "for m in pkgutil.iter_modules(vgps_critic.__path__):\n"
            "    if not m.name.endswith('_node'): __import__('vgps_critic.' + m.name)\n"
            "print([m for m in sys.modules if m.split('.')[0] in ('rclpy', 'sensor_msgs', 'vgps_msgs')])")
    assert run_python(code).split('\n')[:2] == ['False', '[]']


def test_an_untrained_critic_embeds_text_without_a_warning(critic):
    assert critic.config.text_encoder == MUSE_NUMPY
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        critic.encode(observation()[0], 'open the drawer')
