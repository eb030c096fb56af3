"""Train the real algorithms on tasks whose state is a few numbers: the image encoders are replaced, nothing else."""
import torch
from torch import nn

from vgps_critic.config import NetworkConfig
from vgps_training.data.batch import Batch
from vgps_training.run.learner import Learner, OptimiserConfig

ENCODED = 4


class StateEncoder(nn.Module):
    """Hand the state through, where the image's encoding would be."""

    output_dim = ENCODED

    def forward(self, state, language):
        return nn.functional.pad(state, (0, ENCODED - state.shape[1]))


def make_learner(kind, config, action_dim, hidden=(128, 128), rate=3e-4, seed=0):
    torch.manual_seed(seed)
    network = NetworkConfig(stage_sizes=(1,), num_filters=ENCODED, image_size=64, hidden_dims=hidden)
    object.__setattr__(network, 'action_dim', action_dim)  # a checkpoint's is always 7; the losses take any
    algorithm = kind(config, network)
    for module in algorithm.networks.values():
        if hasattr(module, 'encoder'):
            module.encoder = StateEncoder()
    return Learner(algorithm, OptimiserConfig(rate, rate), torch.device('cpu'))


def train(learner, data, steps, batch_size=256, seed=0):
    """Train on a dictionary of tensors: state, next_state, action, next_action, reward, mask, returns."""
    generator = torch.Generator().manual_seed(seed)
    language = torch.zeros(batch_size, 1)
    for _ in range(steps):
        i = torch.randint(len(data['state']), (batch_size,), generator=generator)
        batch = Batch(data['state'][i], data['next_state'][i], language, language, data['action'][i],
                      data['next_action'][i], data['reward'][i], data['mask'][i], data['returns'][i])
        learner.update(batch, learner.algorithm.draw(batch_size, generator))


@torch.no_grad()
def q_values(learner, states, actions):
    """Return the ensemble minimum (S, N) for states (S, d) and actions (S, N, a)."""
    return learner.targets['critic'](states, torch.zeros(len(states), 1), actions).amin(0)
