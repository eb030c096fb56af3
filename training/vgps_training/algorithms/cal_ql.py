"""Cal-QL: conservative Q-learning, calibrated by the returns of the data (V-GPS section 4.1, equation 1).

Above: the losses, pure functions of tensors. Below: `CalQL`, which computes those tensors with networks.
Shapes: E ensemble members, B transitions, N sampled actions per state. Values are discounted returns [steps].
"""
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vgps_critic.network import CriticNetwork, NetworkConfig
from vgps_policy_bridge.policies.actor.network import TanhGaussianActor
from vgps_training.algorithms.networks import Temperature
from vgps_training.data.batch import Batch, with_negative_instructions


@dataclass(frozen=True)
class CalQLConfig:
    """Hyper-parameters of Cal-QL. Defaults: the paper; `--preset reference`: the authors' code where it differs."""

    discount: float = 0.98                 # gamma, (0, 1); paper 0.98
    alpha: float = 5.0                     # weight of the conservative term, >= 0; paper 5
    calibrate: bool = True                 # bound the policy's values from below by the return; False is plain CQL
    regulariser: str = 'log_sum_exp'       # 'log_sum_exp' (authors' code) or 'expectation' (equation 1 to the letter)
    td_scale: float = 0.5                  # factor of the temporal-difference error; paper 1/2, authors' code 1
    max_backup: bool = True                # target from the best of the sampled next actions (authors' code), or one
    num_samples: int = 4                   # N, actions drawn from each of uniform, pi(s), pi(s'); authors' code 4
    target_rate: float = 0.005             # step of the target networks towards the trained ones, (0, 1]
    target_entropy: float = -7.0            # of the policy [nat]; authors' code: minus the action's dimensions
    negative_proportion: float = 0.0       # share of transitions given another item's instruction, [0, 1); code 0


class ActionValues(NamedTuple):
    """Q-values at s of the actions the conservative term pushes down, each (E, B, N), and their log densities."""

    random: Tensor
    current: Tensor
    next: Tensor
    random_log_density: float    # of the uniform draw on [-1, 1]^d
    current_log_density: Tensor  # (B, N) of pi(.|s)
    next_log_density: Tensor     # (B, N) of pi(.|s')


def td_target(rewards: Tensor, masks: Tensor, next_values: Tensor, discount: float) -> Tensor:
    """Return (B,) targets from target-critic values (E, B, N) of next actions: minimum over members, THEN maximum.

    The order is the clipped double Q of the authors' code; exchanging the two overestimates.
    """
    return rewards + discount * masks * next_values.amin(0).amax(-1)


def conservative_gap(q_data: Tensor, values: ActionValues, returns: Tensor, calibrate: bool,
                     regulariser: str) -> Tensor:
    """Return (E, B): value of actions outside the data minus value of the data's action (equation 1, first line).

    Only the policy's actions are bounded from below by the return (B,), never the uniform ones.
    'log_sum_exp' divides each sample by the density that drew it, after the bound (CQL appendix F).
    """
    current, following = values.current, values.next
    if calibrate:
        bound = returns[None, :, None]
        current, following = torch.maximum(current, bound), torch.maximum(following, bound)
    if regulariser == 'expectation':
        return current.mean(-1) - q_data
    candidates = torch.cat([values.random - values.random_log_density, current - values.current_log_density,
                            following - values.next_log_density], -1)
    return torch.logsumexp(candidates, -1) - q_data


def critic_loss(q_data: Tensor, target: Tensor, gap: Tensor, alpha: float, td_scale: float) -> Tensor:
    """Return the scalar loss (equation 1): `alpha` * mean gap + `td_scale` * mean squared error, over members too."""
    return td_scale * (q_data - target).square().mean() + alpha * gap.mean()


def actor_loss(q_policy: Tensor, log_pi: Tensor, temperature: Tensor) -> Tensor:
    """Return the soft actor-critic loss of reparameterised actions: q_policy (E, B), log_pi (B,)."""
    return -q_policy.amin(0).mean() + (temperature.detach() * log_pi).mean()


def temperature_loss(temperature: Tensor, log_pi: Tensor, target_entropy: float) -> Tensor:
    """Return the loss whose descent moves the policy's entropy, -mean log_pi, towards the target."""
    return temperature * (-log_pi.detach().mean() - target_entropy)


class Samples(NamedTuple):
    """Actions drawn for one update, normalised, (B, N, 7), with log densities (B, N); no gradient."""

    random: Tensor
    td_next: Tensor
    current: Tensor
    current_log_density: Tensor
    next: Tensor
    next_log_density: Tensor
    entropy_log_density: Tensor  # of a further draw at s', for the temperature


class CalQL:
    """Networks, draws and losses of Cal-QL. `trainer.Trainer` takes the gradients and moves the weights."""

    name = 'cal-ql'
    max_gradient_norm = None  # the authors clip IQL's gradients only

    def __init__(self, config: CalQLConfig, network: NetworkConfig):
        if config.regulariser not in ('log_sum_exp', 'expectation'):
            raise ValueError(f"regulariser is '{config.regulariser}'; it must be 'log_sum_exp' or 'expectation'")
        self.config, self.action_dim = config, network.action_dim
        self.networks = nn.ModuleDict({'critic': CriticNetwork(network), 'actor': TanhGaussianActor(network),
                                       'temperature': Temperature()})
        self.target_names = ('critic',)

    def draw(self, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return every random number of one update, batch first, so that it can be split over micro-batches."""
        shape = (batch_size, self.config.num_samples, self.action_dim)
        noise = {name: torch.randn(shape, generator=generator) for name in ('td_next', 'current', 'next', 'entropy')}
        noise['random'] = 2 * torch.rand(shape, generator=generator) - 1
        noise['actor'] = torch.randn((batch_size, self.action_dim), generator=generator)
        noise['negative'] = torch.rand(batch_size, generator=generator) < self.config.negative_proportion
        return noise

    @torch.no_grad()
    def sample(self, distribution, next_distribution, noise: dict[str, Tensor]) -> Samples:
        """Return the update's actions from the policy at s and s' (authors' code: fresh draws for each use)."""
        actor = self.networks['actor']
        td_next, _ = actor.sample(*next_distribution, noise['td_next'])
        current, current_log = actor.sample(*distribution, noise['current'])
        following, next_log = actor.sample(*next_distribution, noise['next'])
        _, entropy_log = actor.sample(*next_distribution, noise['entropy'])
        return Samples(noise['random'], td_next, current, current_log, following, next_log, entropy_log)

    def losses(self, batch: Batch, noise: dict[str, Tensor], targets: nn.ModuleDict,
               samples: Samples | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (loss per network, metrics). `samples` replaces the drawn actions (tests with recorded ones)."""
        config, critic, actor = self.config, self.networks['critic'], self.networks['actor']
        batch = with_negative_instructions(batch, noise['negative'], -1 / (1 - config.discount))
        temperature = self.networks['temperature']()

        distribution = actor(batch.images, batch.language)
        with torch.no_grad():
            next_distribution = actor(batch.next_images, batch.language)
        if samples is None:
            samples = self.sample(tuple(t.detach() for t in distribution), next_distribution, noise)

        with torch.no_grad():
            next_values = targets['critic'].q_values(targets['critic'].encoder(batch.next_images, batch.language),
                                                 samples.td_next)
            if not config.max_backup:
                next_values = next_values[..., :1]
            target = td_target(batch.rewards, batch.masks, next_values, config.discount)

        encoding = critic.encoder(batch.images, batch.language)
        n = config.num_samples
        actions = torch.cat([batch.actions[:, None], samples.random, samples.current, samples.next], 1)
        q = critic.q_values(encoding, actions)  # (E, B, 1 + 3N), one pass over the small head
        q_data = q[..., 0]
        values = ActionValues(q[..., 1:n + 1], q[..., n + 1:2 * n + 1], q[..., 2 * n + 1:],
                              -self.action_dim * math.log(2.0), samples.current_log_density,
                              samples.next_log_density)
        gap = conservative_gap(q_data, values, batch.returns, config.calibrate, config.regulariser)

        # The critic's encoding of s does not depend on the action: the actor needs only the head's gradient.
        policy_actions, log_pi = actor.sample(*distribution, noise['actor'][:, None])
        q_policy = critic.q_values(encoding.detach(), policy_actions)[..., 0]
        losses = {
            'critic': critic_loss(q_data, target, gap, config.alpha, config.td_scale),
            'actor': actor_loss(q_policy, log_pi[:, 0], temperature),
            'temperature': temperature_loss(temperature, samples.entropy_log_density, config.target_entropy),
        }
        below = torch.cat([values.current, values.next], -1) < batch.returns[None, :, None]
        metrics = {'td_error': (q_data - target).square().mean(), 'conservative_gap': gap.mean(),
                   'q_data': q_data.mean(), 'target': target.mean(), 'calibrated_share': below.float().mean(),
                   'entropy': -log_pi.mean(), 'temperature': temperature,
                   'disagreement': (q_data.amax(0) - q_data.amin(0)).mean()}
        return losses, {name: value.detach() for name, value in metrics.items()}
