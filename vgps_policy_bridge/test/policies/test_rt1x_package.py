"""The RT-1-X adapter on the real model code with random weights: VGPS_RT1X_SOURCE=open_x_embodiment/models pytest ...

The model is shrunk through the code's own configuration; `vgps-benchmark-policy rt-1-x-random-weights` runs all of it.
With VGPS_SIMPLERENV_SOURCE=SimplerEnv (and tensorflow, transforms3d) what is executed is compared with what
SimplerEnv's own wrapper of the TensorFlow checkpoint makes of the same tokens.
"""

import functools
import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

SOURCE = os.environ.get('VGPS_RT1X_SOURCE', '')
if not SOURCE:
    pytest.skip('set VGPS_RT1X_SOURCE to the folder with rt1.py', allow_module_level=True)
import jax  # noqa: E402
from flax.training import checkpoints  # noqa: E402

from vgps_policy_bridge.benchmarks.random_weights import write_rt1x  # noqa: E402
from vgps_policy_bridge.policies import rt1x  # noqa: E402
from vgps_policy_bridge.policy import FRACTAL, Observation  # noqa: E402

INSTRUCTION = 'put carrot on plate'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Return the module rt1, the folder's options and the policy, all of one small RT-1-X."""
    rt1 = rt1x.import_model_code(SOURCE)
    patch = pytest.MonkeyPatch()
    encoder = rt1.efficientnet.MODEL_CONFIGS['efficientnet-b3']
    patch.setattr(encoder, 'width_coefficient', 0.1)
    patch.setattr(encoder, 'depth_coefficient', 0.1)
    patch.setattr(rt1, 'RT1', functools.partial(rt1.RT1, num_layers=1, num_heads=1, feed_forward_hidden_size=32))
    options = {'source': SOURCE} | write_rt1x(rt1, tmp_path_factory.mktemp('rt1x'), INSTRUCTION)
    yield rt1, options, rt1x.RT1XPolicy(**options)
    patch.undo()


def frames():
    rng = np.random.default_rng(1)
    return [Observation(rng.integers(0, 255, (240, 320, 3), np.uint8), 0.2 * i) for i in range(3)]


def episode(policy, k, temperature):
    policy.temperature = temperature
    policy.reset(INSTRUCTION, 3)
    return [policy.propose(frame, k) for frame in frames()]


@pytest.fixture(scope='module')
def whole_model_logits(made):
    """Return what the repository's own inference computes from 15 stacked frames: (3 steps, 11, 512)."""
    return own_logits(made, [frame.image for frame in frames()])


def own_logits(made, pictures):
    rt1, options, _ = made
    model, state = rt1.RT1(**rt1x.MODEL), checkpoints.restore_checkpoint(options['checkpoint'], None)
    with np.load(options['embeddings']) as file:
        embedding = file['embeddings'][0]

    @jax.jit
    def forward(images, words):
        output = model.apply(state, {'image': images, 'natural_language_embedding': words}, act=None,
                             act_tokens=jax.numpy.zeros((1, 6, 11)), train=False,
                             rngs={'random': jax.random.PRNGKey(9)})
        return output.reshape(1, 15, 92, -1)[0, -1, 80:-1]
    logits = []
    for step in range(3):
        images, words = np.zeros((1, 15, 300, 300, 3), np.float32), np.zeros((1, 15, 512), np.float32)
        for age in range(step + 1):
            images[0, -1 - age], words[0, -1 - age] = rt1x.resize(pictures[step - age]), embedding
        logits.append(np.asarray(forward(images, words)))
    return logits


def test_draws_differ_and_repeat_with_the_seed(made):
    sampled, again = episode(made[2], 50, 1.0), episode(made[2], 50, 1.0)
    for one, other in zip(sampled, again):
        np.testing.assert_array_equal(one.actions, other.actions)
        assert one.actions.shape == (50, 1, 7) and len(np.unique(one.actions, axis=0)) == 50


def test_draws_follow_the_whole_models_logits_step_by_step(made, whole_model_logits):
    # The adapter encodes each frame once and keeps its tokens; the whole model encodes all 15 every time.
    for candidates, logits in zip(episode(made[2], 50, 0.7), whole_model_logits):
        tokens, log_p = rt1x.draw_tokens(logits[1:8], 50, 0.7, np.random.default_rng(candidates.seed))
        np.testing.assert_allclose(candidates.log_probabilities, log_p, atol=1e-3)
        np.testing.assert_allclose(candidates.actions[:, 0], rt1x.unnormalise(tokens), atol=1e-6)


def test_mode_is_the_argmax_decoded_by_the_repositorys_own_function(made, whole_model_logits):
    rt1, _, policy = made
    for candidates, logits in zip(episode(policy, 1, 0.0), whole_model_logits):
        own = rt1.detokenize_action(logits.argmax(-1)[None], 512, (-2.0, 2.0))
        own = {name: np.asarray(value)[0] for name, value in own.items()}
        expected = np.concatenate([np.clip(own['world_vector'] / 1.75, -1, 1) * 0.05,
                                   np.clip(own['rotation_delta'] / 1.4, -1, 1) * 0.25,
                                   own['gripper_closedness_action'] < 0])
        np.testing.assert_allclose(candidates.actions[0, 0], expected, atol=1e-5)


def test_the_google_robot_s_draws_mode_and_end_follow_the_whole_models_logits(made):
    rt1, options, _ = made
    policy = rt1x.RT1XPolicy(**options, statistics=FRACTAL)
    rng, openness = np.random.default_rng(4), 1.0
    seen = [Observation(rng.integers(0, 255, (512, 640, 3), np.uint8), i / 3) for i in range(3)]
    logits = own_logits(made, [rt1x.as_recorded(frame.image) for frame in seen])
    policy.reset(INSTRUCTION, 3)
    for frame, own in zip(seen, logits):
        candidates = policy.propose(frame, 50)
        tokens, log_p = rt1x.draw_tokens(rt1x.within_reach(own[1:8]), 50, 1.0, np.random.default_rng(candidates.seed))
        np.testing.assert_allclose(candidates.log_probabilities, log_p, atol=1e-3)
        decoded = {name: np.stack([np.asarray(rt1.detokenize_action(np.array([[0, *row, 255, 255, 255]]), 512,
                                                                    (-2.0, 2.0))[name])[0] for row in tokens])
                   for name in ('world_vector', 'gripper_closedness_action')}
        np.testing.assert_allclose(candidates.actions[:, 0, :3], decoded['world_vector'], atol=1e-6)
        changes = decoded['gripper_closedness_action'][:, 0]
        np.testing.assert_allclose(candidates.closing, np.where(np.abs(changes) < 0.01, 0, changes), atol=1e-6)
        ends = rt1.detokenize_action(own.argmax(-1)[None], 512, (-2.0, 2.0))['terminate_episode'][0]
        assert candidates.finished == bool(ends[0])
        kept = np.abs(changes) < 0.1
        assert (candidates.actions[kept, 0, 6] == openness).all()
        policy.committed(7)
        openness = candidates.actions[7, 0, 6]


@pytest.fixture
def simplerenv(monkeypatch):
    """Return SimplerEnv's wrapper without its model: robot, raw action, image -> what it executes, what it sees."""
    folder = os.environ.get('VGPS_SIMPLERENV_SOURCE', '')
    if not folder:
        pytest.skip('set VGPS_SIMPLERENV_SOURCE to the folder of the repository')
    pytest.importorskip('tensorflow')
    pytest.importorskip('transforms3d')
    for name in ('matplotlib', 'matplotlib.pyplot', 'tensorflow_hub', 'tf_agents', 'tf_agents.policies',
                 'tf_agents.trajectories'):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules['tf_agents.policies'].py_tf_eager_policy = None
    transition = SimpleNamespace(transition=lambda observation, reward: observation)
    sys.modules['tf_agents.trajectories'].time_step = transition
    spec = importlib.util.spec_from_file_location('rt1_model', Path(folder) / 'simpler_env/policies/rt1/rt1_model.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def execute(robot, raw, image):
        settings = {'google': (False, False, 'axis_angle'), 'widowx': (True, True, 'rpy')}[robot]
        wrapper = module.RT1Inference.__new__(module.RT1Inference)
        wrapper.image_width, wrapper.image_height, wrapper.action_scale = 320, 256, 1.0
        wrapper.policy_setup = {'google': 'google_robot', 'widowx': 'widowx_bridge'}[robot]
        wrapper.unnormalize_action, wrapper.invert_gripper_action, wrapper.action_rotation_mode = settings
        wrapper.unnormalize_action_fxn = wrapper._unnormalize_action_widowx_bridge
        wrapper.observation, wrapper.task_description_embedding, wrapper.policy_state = {}, None, None
        wrapper.tfa_policy = SimpleNamespace(action=lambda step, state: SimpleNamespace(action=dict(raw), state=None))
        return wrapper.step(image)[1], np.asarray(wrapper.observation['image'])
    return execute


def test_simplerenv_executes_the_same_of_the_same_tokens(simplerenv):
    from scipy.spatial.transform import Rotation
    rt1 = rt1x.import_model_code(SOURCE)
    rng = np.random.default_rng(6)
    image = rng.integers(0, 255, (512, 640, 3), np.uint8)
    tokens = rng.integers(0, 512, (60, 7))
    tokens[:7, 6] = 250, 253, 254, 255, 256, 257, 258  # hardly a change of the gripper
    google, closing = rt1x.google_actions(tokens, 1.0)
    widowx = rt1x.unnormalise(tokens)
    for row, token in enumerate(tokens):
        raw = {name: np.asarray(value)[0] for name, value in rt1.detokenize_action(
            np.array([[0, *token, 255, 255, 255]]), 512, (-2.0, 2.0)).items()}
        for robot, action, gripper in (('google', google, closing[row]), ('widowx', widowx, 2 * widowx[row, 6] - 1)):
            executed, seen = simplerenv(robot, raw, image)
            np.testing.assert_allclose(action[row, :3], executed['world_vector'], atol=1e-5)
            np.testing.assert_allclose(Rotation.from_euler('xyz', action[row, 3:6]).as_matrix(),
                                       Rotation.from_rotvec(executed['rot_axangle']).as_matrix(), atol=1e-5)
            assert gripper == pytest.approx(executed['gripper'].item(), abs=1e-6)
            assert executed['terminate_episode'][0] == 1
    np.testing.assert_array_equal(rt1x.as_recorded(image), seen)


def test_nothing_compiles_after_the_first_step_whatever_k(made, caplog):
    episode(made[2], 1, 1.0)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for k in (50, 3, 1000):
            assert len(episode(made[2], k, 1.0)[-1]) == k
        assert [r.message for r in caplog.records if 'XLA compilation' in r.message] == []
        jax.jit(lambda x: x + 1)(np.zeros(3))  # the log would have told
        assert [r for r in caplog.records if 'XLA compilation' in r.message]
