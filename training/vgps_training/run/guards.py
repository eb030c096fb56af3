"""What must hold before and while a run trains; each guard stops it before what is saved is spoilt."""
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vgps_critic.action_space import ActionSpace
from vgps_training.data.sampling import Shard
from vgps_training.data.table import StepTable, data_digest
from vgps_training.run.config import TrainConfig
from vgps_training.run.storage import RunError

# What may change while a run continues: where it runs, how often it tells, how long it goes on. Paths may move: the
# data themselves are compared, and so is the identity of the instruction encoder.
FREE = {'out', 'steps', 'micro_batches', 'device', 'threads', 'compile', 'log_every', 'save_every', 'validate_every',
        'wandb', 'fork', 'divergence', 'hang_after', 'encoder', 'data.paths', 'data.lazy', 'data.workers',
        'data.decoders', 'data.instruction_encoder'}
LAUNCHERS = ('SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE')  # how they tell the number of processes


def place() -> Shard:
    """Return which process of how many this is, as torchrun says.

    Raises RunError where a launcher started several processes without it: each would train alone on the whole batch
    and write into the same folder.
    """
    for name in LAUNCHERS:
        if 'RANK' not in os.environ and int(os.environ.get(name) or 1) > 1:
            raise RunError(f'{name} is {os.environ[name]}, but RANK is not set: these processes do not know of each '
                           'other. Start one torchrun per machine: srun --ntasks-per-node 1 torchrun ... '
                           '-m vgps_training.run.train ...')
    return Shard(int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1)))


def fingerprint(config: TrainConfig, table: StepTable, action_space: ActionSpace, text_encoder: str) -> dict[str, str]:
    """Return everything that decides what a run's weights mean, as text by name."""
    values = _flat(dataclasses.asdict(config))
    result = {name: json.dumps(value) for name, value in values.items()
              if not any(name == free or name.startswith(f'{free}.') for free in FREE)}
    if config.encoder:
        result['encoder'] = hashlib.sha256((config.encoder / 'encoder.pt').read_bytes()).hexdigest()
    result.update({'algorithm': config.algorithm_name, 'text_encoder': text_encoder, 'data': data_digest(table),
                   'data.episodes': str(len(table.starts)), 'data.steps': str(len(table)),
                   'action_space': json.dumps({**dataclasses.asdict(action_space), 'source': ''})})
    return result


def _flat(values: Mapping, prefix: str = '') -> dict:
    result = {}
    for name, value in values.items():
        result.update(_flat(value, f'{prefix}{name}.') if isinstance(value, Mapping) else
                      {prefix + name: str(value) if isinstance(value, Path) else value})
    return result


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in words what changed, '' for nothing; what an older state does not say counts as the same."""
    return '; '.join(f'{name} was {before[name]} and is {now[name]}' for name in sorted(before.keys() & now.keys())
                     if before[name] != now[name])


def check_same(before: Mapping[str, str] | None, now: Mapping[str, str], folder: Path, fork: bool) -> str:
    """Return what changed since a state was saved, '' for nothing. Raises RunError for a change without `fork`."""
    changed = difference(before or {}, now)
    if changed and not fork:
        raise RunError(f'{folder} was trained under another configuration or on other data: {changed}. Choose another '
                       '--out, undo the change, or give --fork to go on under the new one')
    return changed


def agree(what: str, digest: str) -> None:
    """Compare a hash over all processes. Raises RunError, in each of them, where one differs."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    digests: list[str] = [''] * dist.get_world_size()
    dist.all_gather_object(digests, digest)
    other = [rank for rank, value in enumerate(digests) if value != digests[0]]
    if other:
        raise RunError(f'{what} of process {", ".join(map(str, other))} differ from those of process 0: every machine '
                       'needs the same data, the same --out and the same version')


@torch.no_grad()
def weights_digest(networks: nn.ModuleDict) -> str:
    """Return a checksum of every weight's bits, taken where the weights are."""
    return str(sum(int(p.detach().view(torch.int32).to(torch.int64).sum()) for p in networks.parameters()))


def check_finite(step: int, metrics: Mapping[str, Tensor], discount: float, divergence: float) -> None:
    """Raise RunError where an update's figures are NaN, infinite, or beyond any value that data can have."""
    for name, value in metrics.items():
        if not math.isfinite(float(value)):
            raise RunError(f'{name} is {float(value)} at update {step}: the run has diverged and is stopped; what was '
                           'saved before is kept. Lower --optimiser.learning-rate or look at the data')
    limit = divergence / (1 - discount)
    for name in ('q_data', 'target'):
        if name in metrics and abs(float(metrics[name])) > limit:
            raise RunError(f'{name} is {float(metrics[name]):.4g} at update {step}, more than {divergence:g} times the '
                           f'largest return ({1 / (1 - discount):.4g}): the run diverges and is stopped; what was '
                           'saved before is kept. Lower --optimiser.learning-rate or raise --divergence')


@torch.no_grad()
def check_weights(step: int, networks: Mapping[str, nn.Module]) -> None:
    """Raise RunError where a network that is to be saved holds NaN or infinity."""
    for name, network in networks.items():
        if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
            raise RunError(f'the weights of {name} are not finite at update {step}: the run has diverged and is '
                           'stopped; what was saved before is kept. Lower --optimiser.learning-rate')
