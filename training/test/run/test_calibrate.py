"""A calibrated critic stays within the range of returns and ranks as before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vgps_critic import checkpoint
from vgps_critic.action_space import ActionSpace
from vgps_critic.config import CheckpointError, CriticConfig, NetworkConfig
from vgps_critic.critic import Critic
from vgps_critic.network import CriticNetwork, bounded
from vgps_training.run.calibrate import calibrate

LOW, HIGH = -50.0, 0.0


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = CriticNetwork(NetworkConfig((1, 1), 8, 64)).eval()
    with torch.no_grad():
        network.last.weight *= 60  # values far beyond the range
    return network


def values(network, seed=1, count=40):
    noise = torch.Generator().manual_seed(seed)
    features = torch.randn((1, network.encoder.output_dim), generator=noise)
    with torch.no_grad():
        return network.q_values(features, torch.rand((1, count, 7), generator=noise) * 2 - 1)[:, 0].numpy()


def test_no_value_leaves_the_range_and_every_ranking_stays(network):
    before = values(network)
    assert ((before < LOW) | (before > HIGH)).mean() > 0.1
    returns = np.where(before[0] > np.median(before[0]), -10.0, -50.0)
    found = calibrate(network, before, returns, LOW, HIGH)
    after = values(found.network)
    assert LOW < after.min() and after.max() < HIGH and found.outside > 0.1
    assert np.array_equal(np.argsort(before, axis=1), np.argsort(after, axis=1))
    assert before.min(0).argmax() == after.min(0).argmax()
    assert found.calibrated_error < found.error


def test_values_that_were_right_are_hardly_changed_in_the_middle_of_the_range():
    middle = torch.tensor([-26.0, -25.0, -24.0])
    assert torch.allclose(bounded(middle, LOW, HIGH), middle, atol=0.01)


def test_outputs_that_determine_nothing_are_refused(network):
    with pytest.raises(ValueError, match='both outcomes'):
        calibrate(network, np.zeros((2, 5)), np.zeros(5), LOW, HIGH)


def test_the_range_travels_in_the_checkpoint_and_older_ones_keep_their_hash(network, tmp_path):
    config = CriticConfig(ActionSpace.named('bridge'), network.config, text_encoder='x')
    assert 'value_range' not in config.to_dict()['network']
    before = values(network)
    found = calibrate(network, before, before[0] / 4 - 25, LOW, HIGH)
    checkpoint.save(tmp_path / 'c', found.network, replace(config, network=found.network.config))
    critic = Critic.load(tmp_path / 'c', instructions='muse-numpy')
    assert critic.config.network.value_range == (LOW, HIGH)
    assert np.array_equal(values(critic.network), values(found.network))
    text = (tmp_path / 'c' / checkpoint.CONFIG).read_text()
    (tmp_path / 'c' / checkpoint.CONFIG).write_text(text.replace('-50.0', '"never"'))
    with pytest.raises(CheckpointError, match='value_range must be two numbers'):
        checkpoint.read(tmp_path / 'c')
