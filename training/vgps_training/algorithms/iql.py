"""IQL: implicit Q-learning, a value function by expectile regression (V-GPS section 4.1, equations 3 and 4).

Above: the losses, pure functions of tensors. Below: `IQL`, which computes those tensors with networks.
Shapes: E ensemble members, B transitions.
"""
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgps_critic.network import CriticNetwork, NetworkConfig
from vgps_policy_bridge.policies.actor.network import GaussianActor
from vgps_training.algorithms.networks import ValueNetwork
from vgps_training.data.batch import Batch, with_negative_instructions


@dataclass(frozen=True)
class IQLConfig:
    """Hyper-parameters of IQL. Defaults: the paper; `--preset reference`: the authors' code where it differs."""

    discount: float = 0.98             # gamma, (0, 1); paper 0.98
    expectile: float = 0.7             # tau, [0.5, 1); paper 0.7
    target_rate: float = 0.002         # step of the target networks towards the trained ones, (0, 1]; code 0.002
    negative_proportion: float = 0.1   # share of transitions given another item's instruction, [0, 1); code 0.1
    averaged_next_value: bool = False  # bootstrap from V's target network (authors' code) or from V itself (equation 4)
    train_actor: bool = False          # also extract a policy, kept beside the critic, which never depends on it
    advantage_temperature: float = 1.0   # of the actor's weights exp(temperature * advantage), > 0; authors' code 1


def value_loss(q_min: Tensor, v: Tensor, expectile: float) -> Tensor:
    """Return the expectile regression of V(s) (B,) on the target critic's minimum (B,) (equation 3)."""
    difference = q_min - v
    weight = torch.where(difference > 0, expectile, 1 - expectile)
    return (weight * difference.square()).mean()


def td_target(rewards: Tensor, masks: Tensor, next_v: Tensor, discount: float) -> Tensor:
    """Return (B,) targets from V(s') (equation 4)."""
    return rewards + discount * masks * next_v


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of Q(s, a) (E, B) against its target (B,), mean over members too (equation 4)."""
    return (q - target).square().mean()


def actor_loss(log_pi: Tensor, q_min: Tensor, v: Tensor, temperature: float) -> Tensor:
    """Return the advantage-weighted negative log-likelihood of the data's actions, weights at most 100."""
    weight = ((q_min - v) * temperature).exp().clamp(max=100.0)
    return -(weight.detach() * log_pi).mean()


class IQL:
    """Networks, draws and losses of IQL. `trainer.Trainer` takes the gradients and moves the weights."""

    name = 'iql'
    max_gradient_norm = 1.0  # per network, before Adam (authors' code)

    def __init__(self, config: IQLConfig, network: NetworkConfig):
        self.config = config
        self.networks = nn.ModuleDict({'critic': CriticNetwork(network), 'value': ValueNetwork(network)})
        if config.train_actor:
            self.networks['actor'] = GaussianActor(network)
        self.target_names = ('critic', 'value') if config.averaged_next_value else ('critic',)

    def draw(self, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return every random number of one update, batch first: which items get another item's instruction."""
        p = self.config.negative_proportion
        return {name: torch.rand(batch_size, generator=generator) < p for name in ('critic_negative', 'value_negative')}

    def losses(self, batch: Batch, noise: dict[str, Tensor],
               targets: nn.ModuleDict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (loss per network, metrics)."""
        config, critic, value = self.config, self.networks['critic'], self.networks['value']
        absorbing = -1 / (1 - config.discount)

        item = with_negative_instructions(batch, noise['critic_negative'], absorbing)
        with torch.no_grad():
            next_value = targets['value'] if config.averaged_next_value else value
            target = td_target(item.rewards, item.masks, next_value(item.next_images, item.language), config.discount)
        q = critic(item.images, item.language, item.actions[:, None])[..., 0]

        item = with_negative_instructions(batch, noise['value_negative'], absorbing)
        with torch.no_grad():
            q_min = targets['critic'](item.images, item.language, item.actions[:, None])[..., 0].amin(0)
        v = value(item.images, item.language)

        losses = {'critic': critic_loss(q, target), 'value': value_loss(q_min, v, config.expectile)}
        metrics = {'q_data': q.mean(), 'target': target.mean(), 'value': v.mean(), 'advantage': (q_min - v).mean(),
                   'disagreement': (q.amax(0) - q.amin(0)).mean()}
        if config.train_actor:
            with torch.no_grad():
                q_true = targets['critic'](batch.images, batch.language, batch.actions[:, None])[..., 0].amin(0)
                v_true = value(batch.images, batch.language)
            actor = self.networks['actor']
            log_pi = actor.log_density(*actor(batch.images, batch.language), batch.actions)
            losses['actor'] = actor_loss(log_pi, q_true, v_true, config.advantage_temperature)
        return losses, {name: value.detach() for name, value in metrics.items()}
