"""Adapters whose packages are not here: what surrounds the model, on stand-ins with the real call signatures."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from vgps_policy_bridge.errors import MissingExtraError, ObservationError, PolicyError
from vgps_policy_bridge.policies import octo
from vgps_policy_bridge.policy import Observation, load_policy

STATE = np.array([0.3, 0.0, 0.15, 0, 0, 0, 1.0])


def frame(value, size=(480, 640)):
    return Observation(np.full((*size, 3), value, np.uint8), 0.0, STATE)


@pytest.mark.parametrize('name, options, package', [
    ('octo-small', {}, 'octo'), ('octo-base-1.5', {}, 'octo'), ('openvla', {}, 'timm'),
    ('lerobot', {'checkpoint': 'x'}, 'lerobot')])
def test_missing_package_says_exactly_what_to_install(name, options, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vgps-policy-bridge\[(octo|openvla|lerobot)\]'"):
        load_policy(name, **options)


def test_every_extra_that_an_error_names_is_one_that_pip_finds():
    package = Path(octo.__file__).parents[1]
    named = {extra for file in package.rglob('*.py')
             for extra in re.findall(r"MissingExtraError\([^,]+, '(\w+)'", file.read_text())}
    assert {'octo', 'rt1x', 'openvla', 'lerobot', 'small'} == named
    extras = re.findall(r"^        '(\w+)': \[", (package.parent / 'setup.py').read_text(), re.MULTILINE)
    assert named < set(extras)


# --- Octo ---


class FakeOcto:
    example_batch = {'observation': {'pad_mask': None}}
    mask = np.array([True] * 6 + [False])
    dataset_statistics = {'bridge_dataset': {'action': {
        'mean': np.array([.001, .002, .003, .01, .02, .03, .6]), 'std': np.array([.01, .02, .03, .1, .2, .3, .5]),
        'mask': mask}}}

    def __init__(self):
        self.calls, self.tasks = [], []

    def create_tasks(self, texts):
        self.tasks.append(texts)
        return {'text': texts}

    def sample_actions(self, observations, tasks, timestep_pad_mask, rng, sample_shape):
        self.calls.append((observations, tasks, timestep_pad_mask, rng, sample_shape))
        return np.broadcast_to(np.arange(sample_shape[0])[:, None, None, None] / 1000, (*sample_shape, 1, 4, 7))


@pytest.fixture
def octo_policy(monkeypatch):
    model = FakeOcto()
    module = ModuleType('octo.model.octo_model')
    module.OctoModel = SimpleNamespace(load_pretrained=lambda checkpoint: model)
    jax = ModuleType('jax')
    jax.random = SimpleNamespace(PRNGKey=lambda seed: ('key', seed), fold_in=lambda key, data: (*key, data))
    for name, entry in (('octo', ModuleType('octo')), ('octo.model', ModuleType('octo.model')),
                        ('octo.model.octo_model', module), ('jax', jax)):
        monkeypatch.setitem(sys.modules, name, entry)
    return load_policy('octo-small-1.5'), model


def test_octo_unnormalises_by_hand_computed_values():
    statistics = FakeOcto.dataset_statistics['bridge_dataset']['action']
    raw = np.array([[1.0, -1.0, 2.0, 0.5, 0.0, -2.0, 0.7], [0, 0, 0, 0, 0, 0, 1.3], [0, 0, 0, 0, 0, 0, -0.2]])
    np.testing.assert_allclose(octo.unnormalise(raw, statistics), [
        [.011, -.018, .063, .06, .02, -.57, .7], [.001, .002, .003, .01, .02, .03, 1.0],
        [.001, .002, .003, .01, .02, .03, 0.0]], atol=1e-7)


def test_octo_window_has_one_shape_from_the_first_step_on(octo_policy):
    policy, model = octo_policy
    policy.reset('put carrot on plate', 3)
    for value in (10, 20, 30):
        policy.propose(frame(value), 10)
    images = [call[0]['image_primary'] for call in model.calls]
    assert all(image.shape == (1, 2, 256, 256, 3) and image.dtype == np.uint8 for image in images)
    assert [image[0, :, 0, 0, 0].tolist() for image in images] == [[10, 10], [10, 20], [20, 30]]
    assert [call[2].tolist() for call in model.calls] == [[[False, True]], [[True, True]], [[True, True]]]
    np.testing.assert_array_equal(model.calls[0][0]['pad_mask'], model.calls[0][2])
    policy.reset('again', 3)
    policy.propose(frame(40), 10)
    assert model.calls[-1][2].tolist() == [[False, True]] and model.tasks == [['put carrot on plate'], ['again']]


def test_octo_looks_at_the_wrist_where_there_is_one_and_it_has_a_place_for_it(octo_policy, monkeypatch):
    policy, model = octo_policy
    both = Observation(frame(10).image, 0.0, STATE, np.full((96, 64, 3), 70, np.uint8))
    policy.reset('x')
    assert policy.propose(both, 1).used == ('image', 'instruction') and 'image_wrist' not in model.calls[-1][0]
    monkeypatch.setattr(model, 'example_batch', {'observation': {'image_wrist': None}})
    policy.reset('x')
    assert 'wrist_image' in policy.propose(both, 1).used
    wrist = model.calls[-1][0]['image_wrist']
    assert wrist.shape == (1, 2, 128, 128, 3) and (wrist == 70).all()
    policy.reset('x')
    assert 'wrist_image' not in policy.propose(frame(10), 1).used and 'image_wrist' not in model.calls[-1][0]


def test_octo_rounds_k_up_to_a_bucket_so_that_nothing_compiles_anew(octo_policy):
    policy, model = octo_policy
    policy.reset('x', 3)
    for k in (1, 9, 11, 50, 51, 1000):
        candidates = policy.propose(frame(0), k)
        assert candidates.actions.shape == (k, 4, 7)
    assert [call[4] for call in model.calls] == [(1,), (10,), (25,), (50,), (100,), (1000,)]
    keys = [call[3] for call in model.calls]
    assert len(set(keys)) == 6
    policy.reset('x', 3)
    policy.propose(frame(0), 1)
    assert model.calls[-1][3] == keys[0]
    assert not hasattr(policy, 'temperature')  # a diffusion head has none


def test_octo_names_the_statistics_it_has(octo_policy):
    with pytest.raises(PolicyError, match='bridge_dataset'):
        load_policy('octo-small-1.5', statistics='no_such')


def test_octo_fine_tuned_on_one_set_uses_that_sets_statistics_and_says_so(octo_policy):
    _, model = octo_policy
    model.dataset_statistics = model.dataset_statistics['bridge_dataset']
    policy = load_policy('octo-small-1.5')
    policy.reset('x')
    assert 'its own (unnamed)' in policy.propose(frame(0), 1).policy
    with pytest.raises(PolicyError, match='unnamed'):
        load_policy('octo-small-1.5', statistics='fractal20220817_data')


# --- LeRobot ---


def test_lerobot_draws_k_rows_from_one_batch(monkeypatch, caplog):
    torch = pytest.importorskip('torch', reason='needs torch')
    batches = []

    class Net:
        def eval(self):
            return self

        def reset(self):
            pass

        def predict_action_chunk(self, batch):
            batches.append(batch)
            return torch.rand(batch['observation.state'].shape[0], 6, 7)
    image = SimpleNamespace(shape=(3, 24, 32))
    config = SimpleNamespace(type='smolvla', device=None, image_features={'observation.images.image_0': image},
                             output_features={'action': SimpleNamespace(shape=(7,))})
    loaded = []
    configs, factory = ModuleType('lerobot.configs.policies'), ModuleType('lerobot.policies.factory')
    configs.PreTrainedConfig = SimpleNamespace(
        from_pretrained=lambda name, revision: loaded.append((name, revision)) or config)
    factory.get_policy_class = lambda kind: SimpleNamespace(from_pretrained=lambda *a, **k: Net())
    factory.make_pre_post_processors = lambda *a, **k: (
        lambda batch: {key: value[None] if torch.is_tensor(value) else [value] for key, value in batch.items()},
        lambda action: action / 10)
    for name in ('lerobot', 'lerobot.configs', 'lerobot.policies'):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, 'lerobot.configs.policies', configs)
    monkeypatch.setitem(sys.modules, 'lerobot.policies.factory', factory)
    policy = load_policy('lerobot', checkpoint='some/where@v2', device='cpu')
    assert loaded == [('some/where', 'v2')] and not caplog.messages
    config.drop_n_last_frames = 7  # the ends of the episodes, in which the gripper lets go
    load_policy('lerobot', checkpoint='x', device='cpu')
    assert 'x was trained without the last 7 frames' in caplog.text
    draws = []
    for _ in range(2):
        policy.reset('put carrot on plate', 4)
        draws.append(policy.propose(frame(255, (48, 64)), 5).actions)
    assert draws[0].shape == (5, 6, 7) and draws[0].max() <= 0.1
    np.testing.assert_array_equal(*draws)
    assert batches[0]['observation.images.image_0'].shape == (5, 3, 24, 32)
    assert batches[0]['observation.images.image_0'].max() == 1.0 and batches[0]['task'] == ['put carrot on plate'] * 5
    with pytest.raises(PolicyError, match=r'observation\.images\.image_0'):
        load_policy('lerobot', checkpoint='x', image_key='observation.images.top')
    config.image_features['observation.images.hand'] = SimpleNamespace(shape=(3, 8, 8))
    with pytest.raises(PolicyError, match=r'also uses observation\.images\.hand.*wrist_image_key'):
        load_policy('lerobot', checkpoint='x')
    both = load_policy('lerobot', checkpoint='x', wrist_image_key='observation.images.hand')
    hand = np.full((40, 40, 3), 51, np.uint8)
    assert 'wrist_image' in both.propose(Observation(frame(255).image, 0.0, STATE, hand), 2).used
    assert batches[-1]['observation.images.hand'].shape == (2, 3, 8, 8)
    assert float(batches[-1]['observation.images.hand'].max()) == pytest.approx(0.2)
    with pytest.raises(ObservationError, match='needs a wrist camera'):
        both.propose(frame(255), 2)
    config.empty_cameras = 0  # pi0 and SmolVLA do without some
    assert 'without observation.images.hand' in load_policy('lerobot', checkpoint='x').propose(frame(255), 2).policy
    config.output_features['action'].shape = (6,)
    with pytest.raises(PolicyError, match=r'6 dimensions \(joint positions'):
        load_policy('lerobot', checkpoint='x')

    def missing(*_, **__):
        raise ImportError('diffusers is required')
    config.output_features['action'].shape, config.type = (7,), 'diffusion'
    factory.get_policy_class = lambda kind: SimpleNamespace(from_pretrained=missing)
    with pytest.raises(PolicyError, match=r"diffusers is required.*pip install 'lerobot\[diffusion\]'"):
        load_policy('lerobot', checkpoint='x')
