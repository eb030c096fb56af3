"""The Octo adapter on the real package with a tiny random checkpoint; runs where `octo` is installed (see README)."""

import logging

import numpy as np
import pytest

pytest.importorskip('octo', reason='needs the package octo, which is not on PyPI')
import jax
from octo.model.octo_model import OctoModel

from vgps_policy_bridge.benchmarks.random_weights import OCTO_STATISTICS, write_octo
from vgps_policy_bridge.policies.octo import OctoPolicy, resize
from vgps_policy_bridge.policy import Observation


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('octo')
    write_octo(folder, layers=1, width=32, heads=2, head_width=32)
    return str(folder)


@pytest.fixture(scope='module')
def policy(checkpoint):
    return OctoPolicy(checkpoint)


def observations():
    rng = np.random.default_rng(0)
    return [Observation(rng.integers(0, 255, (480, 640, 3), np.uint8), 0.1 * i) for i in range(3)]


def test_k_chunks_differ_and_repeat_with_the_seed(policy):
    draws = []
    for _ in range(2):
        policy.reset('put carrot on plate', 7)
        draws.append([policy.propose(observation, 7).actions for observation in observations()])
    np.testing.assert_array_equal(draws[0], draws[1])
    first = draws[0][0]
    assert first.shape == (7, 4, 7) and len(np.unique(first.reshape(7, -1), axis=0)) == 7
    assert not np.array_equal(draws[0][0], draws[0][1])


def test_candidates_are_what_the_package_itself_computes_and_unnormalises(policy, checkpoint):
    model = OctoModel.load_pretrained(checkpoint)
    policy.reset('put carrot on plate', 7)
    seen = observations()
    first, second = policy.propose(seen[0], 10), policy.propose(seen[1], 10)
    frames = np.stack([resize(o.image) for o in seen[:2]])
    # The first step's window is padded in front; what stands there must not matter.
    for candidates, window, mask in ((first, frames[::-1], [False, True]), (second, frames, [True, True])):
        key = jax.random.fold_in(jax.random.PRNGKey(candidates.seed & 0xFFFFFFFF), candidates.seed >> 32)
        own = np.array(model.sample_actions(
            {'image_primary': window[None], 'timestep_pad_mask': np.array([mask])},
            model.create_tasks(texts=['put carrot on plate']),
            unnormalization_statistics=OCTO_STATISTICS['bridge_dataset']['action'], rng=key, sample_shape=(10,)))[:, 0]
        own[..., 6] = np.clip(own[..., 6], 0, 1)
        np.testing.assert_allclose(candidates.actions, own, atol=1e-5)


def test_k_chunks_cost_one_transformer_pass_over_one_observation(policy, monkeypatch):
    passes, whole = [], OctoModel.run_transformer

    def counted(self, observations, *arguments, **options):
        passes.append(observations['image_primary'].shape)
        return whole(self, observations, *arguments, **options)
    monkeypatch.setattr(OctoModel, 'run_transformer', counted)
    policy.reset('put carrot on plate', 7)
    assert len(policy.propose(observations()[0], 20)) == 20
    # Seen while tracing, which no test before has done for this many samples: once, with a batch of one window of two.
    assert passes == [(1, 2, 256, 256, 3)]


def test_nothing_compiles_once_k_is_warm(policy, caplog):
    def compiled():
        return [r.message for r in caplog.records if 'XLA compilation' in r.message]
    seen = observations()
    policy.reset('put carrot on plate', 7)
    policy.propose(seen[0], 50)
    policy.propose(seen[1], 50)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for observation, k in zip(seen, (49, 26, 50)):
            assert len(policy.propose(observation, k)) == k
        policy.reset('another instruction', 8)
        policy.propose(seen[0], 30)
        assert compiled() == []
        policy.propose(seen[0], 51)  # the next bucket: the price of leaving the warm one
        assert len([text for text in compiled() if 'sample_actions' in text]) == 1
