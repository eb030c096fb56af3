"""One update of any algorithm: draws, gradients over micro-batches and processes, Adam, target networks."""
import copy
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vgps_training.data.batch import Batch

PROBE = 8           # transitions on which the memory of an update is measured
MEMORY_SHARE = 0.9  # of the GPU's free memory that an update may take


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
        self.algorithm, self.config, self.device = algorithm, optimiser, device
        self.networks: nn.ModuleDict = algorithm.networks.to(device, memory_format=torch.channels_last)
        self.targets = nn.ModuleDict({name: copy.deepcopy(self.networks[name]) for name in algorithm.target_names})
        self.targets.requires_grad_(False)
        self.optimisers = {name: torch.optim.Adam(network.parameters(), lr=self.learning_rate(name, 0), foreach=True)
                           for name, network in self.networks.items()}
        self.step = 0
        for network in [*self.networks.values(), *self.targets.values()]:
            if bf16 and hasattr(network, 'encoder'):
                bfloat16_encoder(network, device)
            if compile_networks and hasattr(network, 'encoder'):
                network.encoder.compile()

    def learning_rate(self, name: str, step: int) -> float:
        """Return the rate of a network at a 0-based step. The temperature has no warm-up (reference 2.5)."""
        rate = self.config.actor_learning_rate if name == 'actor' else self.config.learning_rate
        if name == 'temperature' or not self.config.warmup_steps:
            return rate
        return rate * min(step / self.config.warmup_steps, 1.0)

    def update(self, batch: Batch, noise: dict[str, Tensor], micro_batches: int = 1) -> dict[str, Tensor]:
        """Take one step on this process's share of the batch and of the draws. Returns scalars over all processes."""
        totals = self._average(self._gradients(batch, noise, micro_batches))
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

    def _gradients(self, batch: Batch, noise: dict[str, Tensor], micro_batches: int) -> dict[str, Tensor]:
        """Leave the mean gradient in the networks and return the mean of every loss and metric."""
        size = len(batch) // micro_batches
        if size * micro_batches != len(batch):
            raise ValueError(f'a batch of {len(batch)} does not divide into {micro_batches} micro-batches')
        self.networks.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for start in range(0, len(batch), size):
            part = batch.part(start, start + size).to(self.device)
            part_noise = {name: value[start:start + size].to(self.device) for name, value in noise.items()}
            losses, metrics = self.algorithm.losses(part, part_noise, self.targets)
            for name, loss in losses.items():
                # each loss moves its own network only, although several flow through the critic
                torch.autograd.backward(loss / micro_batches, inputs=list(self.networks[name].parameters()))
                metrics[f'loss/{name}'] = loss.detach()
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0) + value.float() / micro_batches
        return totals

    def micro_batches(self, batch: Batch, noise: dict[str, Tensor]) -> int:
        """Return into how few equal parts this share of a batch must be cut to fit the GPU's memory; 1 on a CPU.

        Measured on the first transitions; nothing is learnt from them. All processes get the same number.
        """
        if self.device.type != 'cuda':
            return 1
        peaks, sizes = [], (min(2, len(batch)), min(PROBE, len(batch)))
        for size in sizes:
            torch.cuda.reset_peak_memory_stats(self.device)
            self._gradients(batch.part(0, size), {name: value[:size] for name, value in noise.items()}, 1)
            peaks.append(torch.cuda.max_memory_allocated(self.device))
        self.networks.zero_grad(set_to_none=True)
        each = (peaks[1] - peaks[0]) / max(1, sizes[1] - sizes[0])
        moments = sum(2 * p.nbytes for p in self.networks.parameters()) if self.step == 0 else 0
        torch.cuda.empty_cache()
        free = MEMORY_SHARE * torch.cuda.mem_get_info(self.device)[0] - moments - sum(
            p.nbytes for p in self.networks.parameters())
        parts = torch.tensor(fewest_parts(len(batch), each, free), device=self.device)
        if _processes() > 1:
            dist.all_reduce(parts, dist.ReduceOp.MAX)
        return int(parts)

    def _average(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average gradients and metrics over processes, in one message each.

        Not DistributedDataParallel: it reduces in the backward pass of one loss over all its parameters. Here each
        network has a loss of its own, several of them flow through the critic and must not move it, and the encoders
        of the targets belong to no pass.
        """
        if _processes() == 1:
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


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def bfloat16_encoder(network: nn.Module, device: torch.device) -> None:
    """Let a network's encoder compute in bfloat16 and return float32; its head, losses and weights stay float32.

    Under a bfloat16 head the values of 50 actions at one state fall on one or two numbers, which rank nothing.
    """
    plain = network.encoder.forward

    def forward(images: Tensor, language: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return plain(images, language).float()

    network.encoder.forward = forward


def float32_encoder(network: nn.Module) -> nn.Module:
    """Undo `bfloat16_encoder`, in a copy of a network too, and return it."""
    network.encoder.__dict__.pop('forward', None)
    return network


def fewest_parts(share: int, bytes_each: float, free: float) -> int:
    """Return the least number of equal micro-batches of `share` transitions that fit into `free` bytes.

    Raises ValueError where not even one transition fits.
    """
    for parts in range(1, share + 1):
        if share % parts == 0 and share / parts * bytes_each <= free:
            return parts
    raise ValueError(f'one transition needs {bytes_each / 2**20:.0f} MB, {free / 2**20:.0f} MB of the GPU are free')
