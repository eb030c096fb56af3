"""Targets from recordings, and heads on a frozen encoder."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import make
from torch import nn

from vgps_critic.network import CriticNetwork, NetworkConfig
from vgps_msgs_py.film_resnet import ResNetEncoder
from vgps_training.data import hindsight
from vgps_training.data.table import LazyFrames, StepTable, read_table, save
from vgps_training.run import frozen
from vgps_training.run.frozen import FrozenEncoder
from vgps_training.run.pretrain import PretrainConfig, Pretraining

NETWORK = NetworkConfig(stage_sizes=(1, 1, 1), num_filters=8, image_size=64, hidden_dims=(8, 8))


def episode(grasp_at: int, release_at: int, length: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """The gripper moves 1 cm along x per step."""
    actions, states = np.zeros((length, 7), np.float32), np.zeros((length, 7), np.float32)
    actions[:, 6] = 1
    actions[grasp_at:release_at, 6] = 0
    states[:, 0] = 0.01 * np.arange(length)
    return states, actions


def test_a_frame_is_told_how_far_it_is_to_the_grasp_and_to_the_release():
    states, actions = episode(4, 9)
    starts, success = np.array([0]), np.array([1])
    when = hindsight.events(actions, starts)
    assert (when.held[0], when.released[0]) == (4 + hindsight.SETTLED, 9)
    truth = hindsight.targets(states, when, hindsight.own_places(states, when, success), starts, success)
    metres = truth.values[:, 7:] * hindsight.SCALE
    assert metres[0, 0] == pytest.approx(0.06)   # the grasp is 6 steps of 1 cm ahead
    assert metres[8, 0] == pytest.approx(0.0)    # and in the gripper while it is carried
    assert metres[11, 4] == pytest.approx(-0.02)  # the release is 2 steps behind at the end
    assert not truth.known[10, 7:11].any() and truth.known[:, 11:].all()


def test_nothing_is_known_of_an_object_after_a_failed_grasp():
    states, actions = episode(4, 9)
    starts, success = np.array([0]), np.array([0])
    when = hindsight.events(actions, starts)
    truth = hindsight.targets(states, when, hindsight.own_places(states, when, success), starts, success)
    assert truth.known[:7, 7:11].all() and not truth.known[7:, 7:11].any()
    assert not truth.known[:, 11:].any()  # only a success shows where to release


def test_an_episode_without_a_grasp_teaches_only_states():
    states, actions = episode(12, 12)
    starts, success = np.array([0]), np.array([0])
    when = hindsight.events(actions, starts)
    truth = hindsight.targets(states, when, hindsight.own_places(states, when, success), starts, success)
    assert truth.known[:, :7].all() and not truth.known[:, 7:].any()


def test_locating_averages_the_scatter_of_demonstrators_away():
    rng = np.random.default_rng(0)
    count = 800
    latent = rng.normal(size=(count, 10))
    features = latent @ rng.normal(size=(10, 50)) + 0.01 * rng.normal(size=(count, 50))
    scene = np.stack([0.3 + 0.05 * latent[:, 0], 0.05 * latent[:, 1], np.zeros(count), np.zeros(count)], 1)
    own = hindsight.Places(scene + rng.normal(size=scene.shape) * 0.016, np.full((count, 3), np.nan))
    training = np.arange(count) < 700
    located = hindsight.locate(features, own, np.ones(count), training, np.zeros(count, int))
    error = np.abs(located.grasp - scene)[~training, :2].mean()
    assert error < 0.25 * np.abs(own.grasp - scene)[~training, :2].mean()
    assert np.isnan(located.release).all()  # nobody released: unknown, not zero


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(0)
    encoder = ResNetEncoder(NETWORK.stage_sizes, NETWORK.num_filters)
    frozen.save(tmp_path, NETWORK, encoder, nn.Linear(encoder.output_dim, len(hindsight.NAMES) + 1))
    return tmp_path


@pytest.mark.parametrize('outcome', [True, False])
def test_the_folded_critic_scores_images_as_the_heads_score_features(pretrained, outcome):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    table = StepTable(frames, np.zeros((6, 7), np.float32), np.array([0, 3]), np.array([0, 1]), np.array([1, 0]),
                      np.array([0, 0]), ('a', 'b'), ('x', 'y'))
    embeddings = rng.normal(size=(2, 512)).astype(np.float32)
    encoder = FrozenEncoder(pretrained, NETWORK, outcome)
    features = encoder.features(table, embeddings)
    assert features.frames[:, len(hindsight.NAMES)].any() == outcome
    networks = nn.ModuleDict({'critic': CriticNetwork(NETWORK)})
    encoder.attach(networks)
    actions = torch.from_numpy(rng.uniform(-1, 1, (6, 5, 7)).astype(np.float32))
    language = torch.from_numpy(embeddings[table.per_step(table.instruction)])
    with torch.no_grad():
        expected = networks['critic'](torch.from_numpy(features.frames), language, actions)
        got = encoder.critic(networks['critic'])(torch.from_numpy(frames), language, actions)
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)
    if torch.cuda.is_available():  # the features of a GPU are those of a CPU; its convolutions may round to TF32
        torch.testing.assert_close(FrozenEncoder(pretrained, NETWORK, outcome).features(
            table, embeddings, torch.device('cuda')).frames, features.frames, atol=0.05, rtol=0.01)


def test_frames_that_are_decoded_on_demand_get_the_same_features(pretrained):
    frames = np.random.default_rng(1).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    starts, embeddings = np.array([0, 3]), np.ones((1, 512), np.float32)
    features = []
    for pixels in (frames, LazyFrames([frames[:3], frames[3:]], starts, 64)):
        table = StepTable(pixels, np.zeros((6, 7), np.float32), starts, np.array([0, 0]), np.array([1, 0]),
                          np.array([0, 0]), ('a',), ('x', 'y'))
        features.append(FrozenEncoder(pretrained, NETWORK).features(table, embeddings).frames)
    np.testing.assert_array_equal(*features)


def test_pretraining_says_what_it_skipped_and_refuses_to_hold_nothing_out(tmp_path, capsys):
    table, _ = read_table([make(tmp_path, episodes=4)], 64, progress=False)
    save(replace(table, states=table.actions), tmp_path / 'states')
    settings = PretrainConfig(tmp_path / 'run', (tmp_path / 'states',), NETWORK, first_steps=1, steps=1, batch_size=4,
                              instruction_encoder=str(tmp_path / 'text.npz'))
    Pretraining(settings).train()
    assert '4 episodes' in capsys.readouterr().out and not list((tmp_path / 'run').glob('*tmp*'))
    kept = torch.load(tmp_path / 'run' / frozen.FILE, weights_only=True)  # made on a GPU it is read without one
    assert {value.device.type for part in ('encoder', 'readout') for value in kept[part].values()} == {'cpu'}
    with pytest.raises(ValueError, match='validation_share is 0'):
        Pretraining(replace(settings, out=tmp_path / 'other', validation_share=0.0))


def test_another_network_than_the_pretrained_is_refused(pretrained):
    with pytest.raises(ValueError, match='num_filters'):
        FrozenEncoder(pretrained, NetworkConfig(**{**NETWORK.__dict__, 'num_filters': 16}))
    with pytest.raises(ValueError, match='vgps-pretrain'):
        FrozenEncoder(pretrained / 'nowhere', NETWORK)
