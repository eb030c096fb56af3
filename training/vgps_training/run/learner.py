"""One update of any algorithm: draws, gradients over micro-batches and processes, Adam, target networks."""
import contextlib
import copy
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vgps_training.data.batch import Batch


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, one per network, as in the authors' code (betas 0.9 / 0.999, eps 1e-8, no weight decay)."""

    learning_rate: float = 3e-4          # of every network, > 0; paper 3e-4
    actor_learning_rate: float = 3e-4    # of the policy, > 0; paper 3e-4, authors' Cal-QL code 1e-4
    warmup_steps: int = 0                # linear from 0, >= 0; authors' code 2000 (its first update has rate 0)


class Learner:
    """Moves an algorithm's weights. Update order as in the authors' code: all gradients at the old weights, then
    Adam on each network, then the target networks.
    """

    def __init__(self, algorithm, optimiser: OptimiserConfig, device: torch.device, bf16: bool = False,
                 compile_networks: bool = False):
        self.algorithm, self.config, self.device, self.bf16 = algorithm, optimiser, device, bf16
        self.networks: nn.ModuleDict = algorithm.networks.to(device, memory_format=torch.channels_last)
        self.targets = nn.ModuleDict({name: copy.deepcopy(self.networks[name]) for name in algorithm.target_names})
        self.targets.requires_grad_(False)
        self.optimisers = {name: torch.optim.Adam(network.parameters(), lr=self.learning_rate(name, 0), foreach=True)
                           for name, network in self.networks.items()}
        self.step = 0
        if compile_networks:
            for networks in (self.networks, self.targets):
                for network in networks.values():
                    if hasattr(network, 'encoder'):
                        network.encoder.compile()

    def learning_rate(self, name: str, step: int) -> float:
        """Return the rate of a network at a 0-based step. The temperature has no warm-up (reference 2.5)."""
        rate = self.config.actor_learning_rate if name == 'actor' else self.config.learning_rate
        if name == 'temperature' or not self.config.warmup_steps:
            return rate
        return rate * min(step / self.config.warmup_steps, 1.0)

    def update(self, batch: Batch, noise: dict[str, Tensor], micro_batches: int = 1) -> dict[str, Tensor]:
        """Take one step on this process's share of the batch and of the draws. Returns scalars over all processes."""
        size = len(batch) // micro_batches
        if size * micro_batches != len(batch):
            raise ValueError(f'a batch of {len(batch)} does not divide into {micro_batches} micro-batches')
        self.networks.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for start in range(0, len(batch), size):
            part = batch.part(start, start + size).to(self.device)
            part_noise = {name: value[start:start + size].to(self.device) for name, value in noise.items()}
            autocast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
            with autocast:
                losses, metrics = self.algorithm.losses(part, part_noise, self.targets)
            for name, loss in losses.items():
                # each loss moves its own network only, although several flow through the critic
                torch.autograd.backward(loss / micro_batches, inputs=list(self.networks[name].parameters()))
                metrics[f'loss/{name}'] = loss.detach()
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0) + value.float() / micro_batches
        totals = self._average(totals)
        for name, network in self.networks.items():
            if self.algorithm.max_gradient_norm is not None:
                norm = nn.utils.clip_grad_norm_(network.parameters(), self.algorithm.max_gradient_norm)
                totals[f'gradient_norm/{name}'] = norm
            for group in self.optimisers[name].param_groups:
                group['lr'] = self.learning_rate(name, self.step)
            self.optimisers[name].step()
        self._move_targets(self.algorithm.config.target_rate)
        self.step += 1
        return totals

    def _average(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average gradients and metrics over processes, in one message each."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return totals
        gradients = [p.grad for p in self.networks.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        values = torch.stack([value.to(self.device) for value in totals.values()])
        for message in (flat, values):
            dist.all_reduce(message)
            message /= dist.get_world_size()
        offset = 0
        for gradient in gradients:
            gradient.copy_(flat[offset:offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()
        return dict(zip(totals, values))

    @torch.no_grad()
    def _move_targets(self, rate: float) -> None:
        for name, target in self.targets.items():
            torch._foreach_lerp_(list(target.parameters()), list(self.networks[name].parameters()), rate)

    def state(self) -> dict:
        """Return everything an exact continuation needs, but the draws' and the data's generators."""
        return {'step': self.step, 'networks': self.networks.state_dict(), 'targets': self.targets.state_dict(),
                'optimisers': {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}}

    def restore(self, state: dict) -> None:
        """Continue from `state()`."""
        self.step = state['step']
        self.networks.load_state_dict(state['networks'])
        self.targets.load_state_dict(state['targets'])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state['optimisers'][name])
