"""Values of the data's own behaviour: SARSA (V-GPS section 6, policy evaluation) and Monte-Carlo regression.

The critic of Cal-QL with no policy and no conservative term; the two differ in what Q(s, a) is fitted to.
"""
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgps_critic.network import CriticNetwork, NetworkConfig
from vgps_training.data.batch import Batch


@dataclass(frozen=True)
class SARSAConfig:
    """Hyper-parameters of SARSA."""

    discount: float = 0.98      # gamma, (0, 1); paper 0.98
    target_rate: float = 0.005  # step of the target networks towards the trained ones, (0, 1]; as Cal-QL's


@dataclass(frozen=True)
class MonteCarloConfig:
    """Hyper-parameters of Monte-Carlo regression."""

    discount: float = 0.98      # gamma, (0, 1), of the returns; paper 0.98
    target_rate: float = 0.005  # step of the averaged weights that are saved, (0, 1]; as Cal-QL's


def td_target(rewards: Tensor, masks: Tensor, next_q: Tensor, discount: float) -> Tensor:
    """Return (B,) targets from the target critic's values (E, B) of the data's next action, minimum over members."""
    return rewards + discount * masks * next_q.amin(0)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of Q(s, a) (E, B) against its target (B,), mean over members too."""
    return (q - target).square().mean()


class _PolicyEvaluation:
    """One critic and its regression; a subclass says towards what."""

    max_gradient_norm = None
    target_names = ('critic',)

    def __init__(self, config: SARSAConfig | MonteCarloConfig, network: NetworkConfig):
        self.config = config
        self.networks = nn.ModuleDict({'critic': CriticNetwork(network)})

    def draw(self, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return no random numbers: the update needs none."""
        return {}

    def target(self, batch: Batch, targets: nn.ModuleDict) -> Tensor:
        """Return (B,) what Q(s, a) of the data is fitted to."""
        raise NotImplementedError

    def losses(self, batch: Batch, noise: dict[str, Tensor],
               targets: nn.ModuleDict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (loss per network, metrics)."""
        with torch.no_grad():
            target = self.target(batch, targets)
        q = self.networks['critic'](batch.images, batch.language, batch.actions[:, None])[..., 0]
        metrics = {'q_data': q.mean(), 'target': target.mean(), 'disagreement': (q.amax(0) - q.amin(0)).mean()}
        return {'critic': critic_loss(q, target)}, {name: value.detach() for name, value in metrics.items()}


class SARSA(_PolicyEvaluation):
    """Temporal differences towards the data's next action."""

    name = 'sarsa'

    def target(self, batch: Batch, targets: nn.ModuleDict) -> Tensor:
        """Return (B,) reward plus the discounted value of the data's next action."""
        next_q = targets['critic'](batch.next_images, batch.language, batch.next_actions[:, None])[..., 0]
        return td_target(batch.rewards, batch.masks, next_q, self.config.discount)


class MonteCarlo(_PolicyEvaluation):
    """The return that followed: the simplest value function. Its averaged copies are saved, nothing reads them here."""

    name = 'monte-carlo'

    def target(self, batch: Batch, targets: nn.ModuleDict) -> Tensor:
        """Return (B,) returns."""
        return batch.returns
