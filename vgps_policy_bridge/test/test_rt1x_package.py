"""The RT-1-X adapter on the real model code with random weights: VGPS_RT1X_SOURCE=open_x_embodiment/models pytest ...

Several minutes on a CPU, because the model of 35 million parameters is compiled for 15 frames of 300 x 300.
"""

import os

import numpy as np
import pytest

SOURCE = os.environ.get('VGPS_RT1X_SOURCE', '')
if not SOURCE:
    pytest.skip('set VGPS_RT1X_SOURCE to the folder with rt1.py', allow_module_level=True)
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax.training import checkpoints  # noqa: E402

from vgps_policy_bridge.policies import rt1x  # noqa: E402
from vgps_policy_bridge.policy import Observation  # noqa: E402


def test_real_model_code_gives_k_draws_whose_mode_is_its_own_argmax(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SOURCE)
    import rt1
    model = rt1.RT1(num_image_tokens=81, num_action_tokens=11, layer_size=256, vocab_size=512, use_token_learner=True,
                    world_vector_range=(-2.0, 2.0))
    folder = os.environ.get('VGPS_RT1X_CHECKPOINT', '')
    if not folder:
        inputs = {'image': jnp.ones((1, 15, 300, 300, 3)), 'natural_language_embedding': jnp.ones((1, 15, 512))}
        keys = {'params': jax.random.PRNGKey(0), 'random': jax.random.PRNGKey(0)}
        variables = model.init(keys, inputs, act=None, act_tokens=jnp.zeros((1, 15, 11)), train=False)
        folder = str(tmp_path / 'checkpoint')
        checkpoints.save_checkpoint(folder, {name: variables[name] for name in ('params', 'batch_stats')}, 0)
    embedding = np.random.default_rng(0).normal(0, 0.05, 512).astype(np.float32)
    np.savez(tmp_path / 'e.npz', instructions=np.array(['put carrot on plate']), embeddings=embedding[None])
    policy = rt1x.RT1XPolicy(SOURCE, folder, str(tmp_path / 'e.npz'))
    image = np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8)

    def propose(k, temperature):
        policy.temperature = temperature
        policy.reset('put carrot on plate', 3)
        return policy.propose(Observation(image, 0.0), k)
    sampled, again = propose(50, 1.0), propose(50, 1.0)
    np.testing.assert_array_equal(sampled.actions, again.actions)
    assert sampled.actions.shape == (50, 1, 7) and len(np.unique(sampled.actions, axis=0)) == 50
    # The model's own answer: argmax of the last step's logits, decoded by the repository's own function.
    state = checkpoints.restore_checkpoint(folder, None)
    images, words = np.zeros((1, 15, 300, 300, 3), np.float32), np.zeros((1, 15, 512), np.float32)
    images[0, -1], words[0, -1] = rt1x.resize(image), embedding
    logits = model.apply(state, {'image': images, 'natural_language_embedding': words}, act=None,
                         act_tokens=jnp.zeros((1, 6, 11)), train=False, rngs={'random': jax.random.PRNGKey(9)})
    tokens = logits.reshape(1, 15, 92, -1)[:, -1, 80:-1].argmax(-1)
    own = {name: np.asarray(value)[0] for name, value in rt1.detokenize_action(tokens, 512, (-2.0, 2.0)).items()}
    expected = np.concatenate([np.clip(own['world_vector'] / 1.75, -1, 1) * 0.05,
                               np.clip(own['rotation_delta'] / 1.4, -1, 1) * 0.25,
                               own['gripper_closedness_action'] < 0])
    np.testing.assert_allclose(propose(1, 0.0).actions[0, 0], expected, atol=1e-5)
