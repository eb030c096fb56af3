"""SARSA: the value of the data's own behaviour by temporal differences (V-GPS section 6, policy evaluation).

The same critic as Cal-QL's with no policy and no conservative term: the next action is the data's.
"""
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgps_critic.network import CriticNetwork, NetworkConfig
from vgps_training.batch import Batch


@dataclass(frozen=True)
class SARSAConfig:
    """Hyper-parameters of SARSA."""

    discount: float = 0.98      # gamma, (0, 1); paper 0.98
    target_rate: float = 0.005  # step of the target networks towards the trained ones, (0, 1]; as Cal-QL's


def td_target(rewards: Tensor, masks: Tensor, next_q: Tensor, discount: float) -> Tensor:
    """Return (B,) targets from the target critic's values (E, B) of the data's next action, minimum over members."""
    return rewards + discount * masks * next_q.amin(0)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of Q(s, a) (E, B) against its target (B,), mean over members too."""
    return (q - target).square().mean()


class SARSA:
    """Network and loss of SARSA."""

    name = 'sarsa'
    max_gradient_norm = None

    def __init__(self, config: SARSAConfig, network: NetworkConfig):
        self.config = config
        self.networks = nn.ModuleDict({'critic': CriticNetwork(network)})
        self.target_names = ('critic',)

    def draw(self, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return no random numbers: the update needs none."""
        return {}

    def losses(self, batch: Batch, noise: dict[str, Tensor],
               targets: nn.ModuleDict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (loss per network, metrics)."""
        with torch.no_grad():
            next_q = targets['critic'](batch.next_images, batch.language, batch.next_actions[:, None])[..., 0]
            target = td_target(batch.rewards, batch.masks, next_q, self.config.discount)
        q = self.networks['critic'](batch.images, batch.language, batch.actions[:, None])[..., 0]
        metrics = {'q_data': q.mean(), 'target': target.mean(), 'disagreement': (q.amax(0) - q.amin(0)).mean()}
        return {'critic': critic_loss(q, target)}, {name: value.detach() for name, value in metrics.items()}
