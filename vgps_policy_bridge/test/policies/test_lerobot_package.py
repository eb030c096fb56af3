"""The LeRobot adapters on the real package with tiny random policies; runs where `lerobot` is installed."""


import numpy as np
import pytest

pytest.importorskip('lerobot', reason="needs pip install 'vgps-policy-bridge[lerobot]'")
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

from vgps_policy_bridge.policies.lerobot import LeRobotPolicy
from vgps_policy_bridge.policy import Observation

FEATURES = {
    'input_features': {'observation.images.image_0': PolicyFeature(FeatureType.VISUAL, (3, 96, 128)),
                       'observation.state': PolicyFeature(FeatureType.STATE, (7,))},
    'output_features': {'action': PolicyFeature(FeatureType.ACTION, (7,))}}
# Actions are un-normalised with these: what leaves the adapter must lie around the means.
MEAN = torch.tensor([.01, -.02, .03, .1, -.2, .3, .5])
STATISTICS = {
    'observation.images.image_0': {name: torch.full((3, 1, 1), value) for name, value in
                                   (('mean', 0.5), ('std', 0.25), ('min', 0.0), ('max', 1.0))},
    'observation.state': {'mean': torch.zeros(7), 'std': torch.ones(7), 'min': -torch.ones(7), 'max': torch.ones(7)},
    'action': {'mean': MEAN, 'std': torch.full((7,), .01), 'min': MEAN - .05, 'max': MEAN + .05}}


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    torch.manual_seed(0)
    configs = {
        'act': ACTConfig(**FEATURES, chunk_size=5, n_action_steps=5, dim_model=32, n_heads=2, dim_feedforward=64,
                         n_encoder_layers=1, n_vae_encoder_layers=1, latent_dim=8, device='cpu',
                         pretrained_backbone_weights=None),
        'diffusion': DiffusionConfig(**FEATURES, horizon=8, n_action_steps=4, crop_shape=None, down_dims=(16, 32),
                                     diffusion_step_embed_dim=16, n_groups=4, spatial_softmax_num_keypoints=4,
                                     num_train_timesteps=10, num_inference_steps=3, device='cpu',
                                     pretrained_backbone_weights=None)}
    folders = {}
    for kind, config in configs.items():
        folders[kind] = str(tmp_path_factory.mktemp(kind))
        get_policy_class(kind)(config).save_pretrained(folders[kind])
        for processor in make_pre_post_processors(config, dataset_stats=STATISTICS):
            processor.save_pretrained(folders[kind])
    return folders


def frames(size=(96, 128)):
    rng = np.random.default_rng(1)
    return [Observation(rng.integers(0, 255, (*size, 3), np.uint8), 0.2 * i, rng.normal(0, 0.1, 7)) for i in range(3)]


def episode(policy, k, size=(96, 128)):
    policy.reset('put carrot on plate', 3)
    return [policy.propose(observation, k) for observation in frames(size)]


def test_diffusion_gives_k_chunks_that_differ_and_repeat_with_the_seed(checkpoints):
    policy = LeRobotPolicy(checkpoints['diffusion'], device='cpu')
    draws, again = episode(policy, 6), episode(policy, 6)
    for one, other in zip(draws, again):
        assert one.actions.shape == (6, 4, 7) and one.counts is None
        assert len(np.unique(one.actions.reshape(6, -1), axis=0)) == 6
        np.testing.assert_array_equal(one.actions, other.actions)
        assert np.abs(one.actions - MEAN.numpy()).max() < 0.06  # physical units: within the statistics' range


def test_diffusion_sees_the_frames_before_even_when_k_changes(checkpoints):
    policy = LeRobotPolicy(checkpoints['diffusion'], device='cpu')
    # The package's own way to fill the history; its second chunk is drawn from the same noise.
    own = get_policy_class('diffusion').from_pretrained(checkpoints['diffusion']).eval()
    before, after = make_pre_post_processors(own.config, pretrained_path=checkpoints['diffusion'])
    policy.reset('put carrot on plate', 3)
    seen = frames()
    policy.propose(seen[0], 5)
    second = policy.propose(seen[1], 1)
    for observation in seen[:2]:
        batch = before({'observation.images.image_0': torch.from_numpy(observation.image).permute(2, 0, 1) / 255.0,
                        'observation.state': torch.from_numpy(observation.state), 'task': 'put carrot on plate'})
        own._queues['action'].clear()
        torch.manual_seed(second.seed)
        action = after(own.select_action(batch)).numpy()[0]
    np.testing.assert_allclose(second.actions[0, 0], action, atol=1e-6)


def test_act_has_no_noise_so_its_equal_chunks_are_counted(checkpoints):
    for candidates in episode(LeRobotPolicy(checkpoints['act'], device='cpu'), 6, size=(480, 640)):
        assert candidates.actions.shape == (1, 5, 7) and candidates.counts.tolist() == [6]
