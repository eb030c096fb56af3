"""A trained critic goes on: its heads learn from a robot's own episodes, its encoder and its bounds stay."""
import dataclasses

import numpy as np
import pytest
import torch
from synthetic import NETWORK, config, make

from vgps_critic.critic import Critic
from vgps_training.data.hindsight import NAMES
from vgps_training.data.table import StepTable
from vgps_training.run import readout
from vgps_training.run.loop import Run

pytestmark = pytest.mark.slow


@pytest.fixture
def trained(tmp_path):
    """Return a configuration to go on with from a critic that was trained on the same data."""
    make(tmp_path)
    first = config(tmp_path, 'monte-carlo', 'first')
    Run(first, quiet=True).train()
    return dataclasses.replace(config(tmp_path, 'monte-carlo', 'on', steps=30), critic=str(first.out / 'critic'))



def test_the_encoder_and_the_bounds_stay_and_the_heads_learn(trained):
    Run(trained, quiet=True).train()
    before, after = Critic.load(trained.critic), Critic.load(trained.out / 'critic')
    assert after.action_space == before.action_space
    for name, value in before.network.state_dict().items():
        same = torch.equal(value, after.network.state_dict()[name])
        assert same if name.startswith('encoder.') else not same, name


def test_training_begins_with_the_values_of_the_critic_it_goes_on_from(trained):
    run = Run(trained, quiet=True)
    begun, old = run.critic(), Critic.load(trained.critic).network
    images, words = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8), torch.randn(3, 512) / 20
    actions = torch.rand(3, 4, 7) * 2 - 1
    torch.testing.assert_close(begun(images, words, actions), old(images, words, actions))


def test_another_size_or_discount_and_two_encoders_are_refused_in_words(trained, tmp_path):
    wider = dataclasses.replace(trained, network=dataclasses.replace(NETWORK, num_filters=16))
    with pytest.raises(ValueError, match='num_filters=16'):
        Run(wider, quiet=True)
    with pytest.raises(ValueError, match='discount'):
        Run(dataclasses.replace(trained, algorithm=dataclasses.replace(trained.algorithm, discount=0.9)), quiet=True)
    with pytest.raises(ValueError, match='leave out --encoder'):
        Run(dataclasses.replace(trained, encoder=tmp_path), quiet=True)


def test_a_new_readout_finds_the_states_that_features_tell_and_looks_nowhere_else():
    rng = np.random.default_rng(0)
    lengths = np.full(20, 30)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    states = np.cumsum(rng.normal(0, 0.01, (600, 7)), 0).astype(np.float32)
    actions = np.zeros((600, 7), np.float32)
    actions[:, 6] = (np.arange(600) % 30) < 15
    table = StepTable(np.zeros((600, 1, 1, 3), np.uint8), actions, starts, np.zeros(20, np.int32),
                      (np.arange(20) % 2).astype(np.int8), np.zeros(20, np.int32), ('a',), tuple(map(str, range(20))),
                      states)
    directions = np.linalg.qr(rng.normal(0, 1, (40, 10)))[0]
    seen = np.concatenate([states, rng.normal(0, 1, (600, 3))], 1)
    linear = readout.fit(seen @ directions.T, directions, table)
    predicted = linear(torch.from_numpy((seen @ directions.T).astype(np.float32))).detach().numpy()
    deviation = np.maximum(states.std(0), [0.01, 0.01, 0.01, 0.05, 0.05, 0.05, 0.1])
    truth = (states - states.mean(0)) / deviation
    assert np.abs(predicted[:, :7] - truth).mean() < 0.1
    assert predicted.shape == (600, len(NAMES) + 1)
    outside = rng.normal(0, 1, 40)
    outside -= directions @ (directions.T @ outside)
    np.testing.assert_allclose(linear.weight.detach().numpy() @ outside, 0, atol=1e-4)
