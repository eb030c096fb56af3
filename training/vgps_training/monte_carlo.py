"""Monte-Carlo regression: Q(s, a) is fitted to the return that followed. The simplest value function, a baseline."""
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgps_critic.network import CriticNetwork, NetworkConfig
from vgps_training.batch import Batch


@dataclass(frozen=True)
class MonteCarloConfig:
    """Hyper-parameters of Monte-Carlo regression."""

    discount: float = 0.98      # gamma, (0, 1), of the returns; paper 0.98
    target_rate: float = 0.005  # step of the averaged weights that are saved, (0, 1]; as Cal-QL's


def critic_loss(q: Tensor, returns: Tensor) -> Tensor:
    """Return the squared error of Q(s, a) (E, B) against the return (B,), mean over members too."""
    return (q - returns).square().mean()


class MonteCarlo:
    """Network and loss of Monte-Carlo regression."""

    name = 'monte-carlo'
    max_gradient_norm = None

    def __init__(self, config: MonteCarloConfig, network: NetworkConfig):
        self.config = config
        self.networks = nn.ModuleDict({'critic': CriticNetwork(network)})
        self.target_names = ('critic',)

    def draw(self, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return no random numbers: the update needs none."""
        return {}

    def losses(self, batch: Batch, noise: dict[str, Tensor],
               targets: nn.ModuleDict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (loss per network, metrics). `targets` are averaged copies that nothing here reads."""
        q = self.networks['critic'](batch.images, batch.language, batch.actions[:, None])[..., 0]
        metrics = {'q_data': q.mean(), 'returns': batch.returns.mean(),
                   'disagreement': (q.amax(0) - q.amin(0)).mean()}
        return {'critic': critic_loss(q, batch.returns)}, {name: value.detach() for name, value in metrics.items()}
