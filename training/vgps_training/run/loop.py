"""One training run: data, algorithm, loop, saved states. Same seed, same machine, same numbers, killed or not."""
import json
import logging
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from vgps_critic import text
from vgps_critic.config import CriticConfig
from vgps_critic.network import CriticNetwork
from vgps_training.data import normalisation
from vgps_training.data.augmentation import AugmentationConfig
from vgps_training.data.sampling import Sampler, Shard, hash_pair
from vgps_training.data.table import StepTable, held_out, read_table
from vgps_training.run import storage
from vgps_training.run.config import ALGORITHMS, TrainConfig, to_json
from vgps_training.run.frozen import FrozenEncoder
from vgps_training.run.learner import Learner
from vgps_training.run.progress import Progress
from vgps_training.run.validation import Validation

logger = logging.getLogger(__name__)


def instruction_encoder(source: str) -> text.InstructionEncoder:
    """Return an instruction encoder by its name in `DataConfig`."""
    if source.endswith('.npz'):
        return text.table(source)
    known = {'muse-numpy': text.muse_numpy, 'tensorflow-hub': text.tensorflow_hub}
    if source not in known:
        raise ValueError(f"instruction encoder '{source}' is none of {', '.join(known)}, a path to .npz")
    return known[source]()


class Run:
    """A run in its folder; `train` continues from the last saved state, if there is one."""

    def __init__(self, config: TrainConfig, table: StepTable | None = None, quiet: bool = False):
        """Read the data (or take `table`) and build the algorithm."""
        self.config, self.quiet = config, quiet
        self.shard = Shard(int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1)))
        self.device = self._device()
        if config.threads:
            torch.set_num_threads(config.threads)
        config.out.mkdir(parents=True, exist_ok=True)
        self.table = table or self._read()
        self.encoder = instruction_encoder(config.data.instruction_encoder)
        self.embeddings = np.stack([self.encoder.encode(i) for i in self.table.instructions])
        training, validation = held_out(self.table, config.data.validation_share)
        self.frozen = None
        if config.encoder:  # why not everybody sees the outcome: see frozen.py
            self.frozen = FrozenEncoder(config.encoder, config.network, config.algorithm_name != 'monte-carlo')
        table = self.frozen.features(self.table, self.embeddings) if self.frozen else self.table
        selection = table.select(training)
        source = ', '.join(path.name for path in config.data.paths)
        self.action_space = normalisation.fit(config.data.action_space, self.table.actions[selection.steps()],
                                              f'0.1 % and 99.9 % quantiles of {source}')
        discount = config.algorithm.discount
        labels = self.table.labels(discount, config.data.labels)
        actions = self.action_space.normalize(self.table.actions)
        self.sampler = Sampler(
            selection, labels, actions, self.embeddings, batch_size=config.batch_size, seed=config.seed,
            weights=config.data.weights,
            augmentation=AugmentationConfig(enabled=False) if self.frozen else config.data.augmentation,
            shuffled_next=config.data.shuffled_next, shard=self.shard, decoders=config.data.decoders)
        torch.manual_seed(config.seed)
        self.algorithm = ALGORITHMS[config.algorithm_name][1](config.algorithm, config.network)
        if self.frozen:
            self.frozen.attach(self.algorithm.networks)
        self.learner = Learner(self.algorithm, config.optimiser, self.device, config.bf16, config.compile)
        self.critic_config = CriticConfig(
            self.action_space, config.network, self.encoder.identity, discount, config.data.labels.success_steps,
            config.algorithm_name, source)
        self.validation = Validation(self.table, validation, labels[2], self.embeddings, self.action_space)

    def _device(self) -> torch.device:
        name = self.config.device
        if name == 'auto':
            name = 'cuda' if torch.cuda.is_available() else 'cpu'
        if self.shard.world > 1 and not dist.is_initialized():
            dist.init_process_group('nccl' if name == 'cuda' else 'gloo')
        if name == 'cuda' and self.shard.world > 1:
            name = f'cuda:{os.environ["LOCAL_RANK"]}'
            torch.cuda.set_device(name)
        return torch.device(name)

    def _read(self) -> StepTable:
        data = self.config.data
        if not data.paths:
            raise ValueError('no data: give --data PATH ...')
        table, report = read_table(data.paths, self.config.network.image_size, split=data.split, lazy=data.lazy,
                                   unjudged=data.unjudged, failures=data.labels.failures,
                                   progress=not self.quiet and self.shard.rank == 0)
        if self.shard.rank == 0:
            logger.warning('%s', report.text())
            (self.config.out / 'data_report.txt').write_text(report.text() + '\n')
        return table

    def train(self, stop_after: int | None = None) -> dict[str, float]:
        """Train to `config.steps` (or stop after an update, for tests) and return the last validation's metrics."""
        config, first = self.config, self.shard.rank == 0
        state = storage.load_state(config.out)
        if state is not None:
            self.learner.restore(state)
        if first:
            (config.out / 'config.json').write_text(to_json(config) + '\n')
        start = self.learner.step
        stop = min(config.steps, stop_after or config.steps)
        settings = json.loads(json.dumps(asdict(config), default=str))
        progress = Progress(config.out, start, config.steps, config.wandb, settings, self.quiet) if first else None
        part, result, clock = self.shard.slice(config.batch_size), {}, time.perf_counter()
        for batch in self.sampler.batches(start, stop):
            step = self.learner.step
            generator = torch.Generator().manual_seed(hash_pair(config.seed + 1, step))
            noise = {name: value[part] for name, value in self.algorithm.draw(config.batch_size, generator).items()}
            metrics = self.learner.update(batch, noise, config.micro_batches)
            step = self.learner.step
            if not first:
                continue
            progress.advance()
            if step % config.log_every == 0 or step == stop:
                now = time.perf_counter()
                rate = (config.log_every if step % config.log_every == 0 else step % config.log_every) / (now - clock)
                clock = now
                progress.log(step, {**{k: float(v) for k, v in metrics.items()}, 'steps_per_second': rate})
            if step == config.steps or (config.validate_every and step % config.validate_every == 0):
                result = self.validate()
                progress.log(step, {f'validation/{k}': v for k, v in result.items()})
            if step == stop or step % config.save_every == 0:  # last: a run killed before it has its validation ahead
                self.save()
        if first:
            progress.close()
        return result

    def critic(self) -> CriticNetwork:
        """Return the critic as it stands, the averaged weights."""
        critic = self.learner.targets['critic']
        return self.frozen.critic(critic) if self.frozen else critic

    def save(self) -> None:
        """Write the state to continue from and the critic to steer with (the target network, as the authors score)."""
        storage.save_critic(self.config.out, self.critic(),
                            replace(self.critic_config, step=self.learner.step))
        storage.save_state(self.config.out, self.learner.state())

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the critic and draw its value curves."""
        return self.validation.run(self.critic().to(self.device), self.device,
                                   Path(self.config.out) / f'values_{self.learner.step:07d}.png')
