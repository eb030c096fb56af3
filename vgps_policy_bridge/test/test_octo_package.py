"""The Octo adapter on the real package with a tiny random checkpoint; runs where `octo` is installed (see README)."""

import numpy as np
import pytest

pytest.importorskip('octo', reason='needs the package octo, which is not on PyPI')
import jax
from octo.data.utils.text_processing import TextProcessor
from octo.model.components.action_heads import DiffusionActionHead
from octo.model.components.tokenizers import ImageTokenizer
from octo.model.components.vit_encoders import SmallStem16
from octo.model.octo_model import OctoModel
from octo.utils.spec import ModuleSpec

from vgps_policy_bridge.policies.octo import OctoPolicy, resize, unnormalise
from vgps_policy_bridge.policy import Observation

STATISTICS = {'bridge_dataset': {'action': {
    'mean': np.array([.001, .002, .003, .01, .02, .03, .6]), 'std': np.array([.01, .02, .03, .1, .2, .3, .5]),
    'mask': np.array([True] * 6 + [False])}}}


class LengthOfText(TextProcessor):
    """Stands for the tokenizer, whose vocabulary is a download."""

    def encode(self, strings):
        return np.array([[float(len(text))] for text in strings], np.float32)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    stem = ModuleSpec.create(SmallStem16, use_film=False, features=(32, 32, 32, 32), num_features=32)
    config = {
        'model': {
            'observation_tokenizers': {'primary': ModuleSpec.create(
                ImageTokenizer, obs_stack_keys=['image_primary'], task_stack_keys=['image_primary'], encoder=stem)},
            'task_tokenizers': {}, 'repeat_task_tokens': True, 'use_correct_attention': True,
            'heads': {'action': ModuleSpec.create(
                DiffusionActionHead, readout_key='readout_action', action_horizon=4, action_dim=7, hidden_dim=32)},
            'readouts': {'action': 1}, 'token_embedding_size': 32, 'max_horizon': 4,
            'transformer_kwargs': {'num_layers': 1, 'mlp_dim': 64, 'num_attention_heads': 2, 'dropout_rate': 0.0,
                                   'attention_dropout_rate': 0.0, 'add_position_embedding': False}},
        'text_processor': ModuleSpec.create(LengthOfText)}
    image = np.zeros((1, 2, 256, 256, 3), np.uint8)
    batch = {'observation': {'image_primary': image, 'timestep_pad_mask': np.ones((1, 2), bool),
                             'pad_mask_dict': {'image_primary': np.ones((1, 2), bool)}},
             'task': {'image_primary': image[:, 0], 'language_instruction': np.zeros((1, 1), np.float32),
                      'pad_mask_dict': {'image_primary': np.ones(1, bool), 'language_instruction': np.ones(1, bool)}},
             'action': np.zeros((1, 2, 4, 7), np.float32)}
    model = OctoModel.from_config(config, batch, LengthOfText(), dataset_statistics=STATISTICS)
    folder = tmp_path_factory.mktemp('octo')
    model.save_pretrained(0, str(folder))
    return str(folder)


def observations():
    rng = np.random.default_rng(0)
    return [Observation(rng.integers(0, 255, (480, 640, 3), np.uint8), 0.1 * i) for i in range(3)]


def test_real_package_gives_k_chunks_that_differ_and_repeat_with_the_seed(checkpoint):
    policy = OctoPolicy(checkpoint)
    draws = []
    for _ in range(2):
        policy.reset('put carrot on plate', 7)
        draws.append([policy.propose(observation, 7).actions for observation in observations()])
    np.testing.assert_array_equal(draws[0], draws[1])
    first = draws[0][0]
    assert first.shape == (7, 4, 7) and len(np.unique(first.reshape(7, -1), axis=0)) == 7
    assert not np.array_equal(draws[0][0], draws[0][1])


def test_one_call_with_k_samples_is_what_the_package_itself_computes(checkpoint):
    policy, model = OctoPolicy(checkpoint), OctoModel.load_pretrained(checkpoint)
    policy.reset('put carrot on plate', 7)
    seen = observations()
    policy.propose(seen[0], 10)
    candidates = policy.propose(seen[1], 10)
    frames = np.stack([resize(o.image) for o in seen[:2]])[None]
    key = jax.random.fold_in(jax.random.PRNGKey(candidates.seed & 0xFFFFFFFF), candidates.seed >> 32)
    own = model.sample_actions(
        {'image_primary': frames, 'timestep_pad_mask': np.ones((1, 2), bool)}, model.create_tasks(texts=['put carrot']),
        unnormalization_statistics=STATISTICS['bridge_dataset']['action'], rng=key, sample_shape=(10,))
    own = np.asarray(own)[:, 0].copy()
    own[..., 6] = np.clip(own[..., 6], 0, 1)
    np.testing.assert_allclose(candidates.actions, own, atol=1e-5)


def test_nothing_compiles_anew_after_the_first_step(checkpoint):
    policy = OctoPolicy(checkpoint)
    policy.reset('put carrot on plate', 7)
    seen = observations()
    policy.propose(seen[0], 50)
    compiled = OctoModel.sample_actions._cache_size()
    for observation, k in zip(seen, (49, 26, 50)):
        policy.propose(observation, k)
    policy.reset('another instruction', 8)
    policy.propose(seen[0], 30)
    assert OctoModel.sample_actions._cache_size() == compiled


def test_unnormalisation_agrees_with_the_mask():
    raw = np.full((2, 4, 7), 0.5, np.float32)
    np.testing.assert_allclose(unnormalise(raw, STATISTICS['bridge_dataset']['action'])[0, 0],
                               [.006, .012, .018, .06, .12, .18, .5], atol=1e-7)
