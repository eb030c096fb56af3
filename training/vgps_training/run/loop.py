"""One training run: data, algorithm, loop, saved states. Same seed, same machine, same numbers, interrupted or not."""
import copy
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from vgps_critic import checkpoint, text
from vgps_critic.config import CriticConfig
from vgps_critic.network import CriticNetwork
from vgps_training import device
from vgps_training.data import normalisation
from vgps_training.data.augmentation import AugmentationConfig
from vgps_training.data.index import read_indexed
from vgps_training.data.rlds import set_name
from vgps_training.data.sampling import Sampler, hash_pair
from vgps_training.data.splits import held_out
from vgps_training.data.table import Selection, StepTable, read_table
from vgps_training.run import guards
from vgps_training.run.actors import ActorWriter
from vgps_training.run.config import ALGORITHMS, TrainConfig, to_json
from vgps_training.run.frozen import encoder_of
from vgps_training.run.heartbeat import Heartbeat
from vgps_training.run.learner import Learner
from vgps_training.run.progress import Progress
from vgps_training.run.storage import Storage, load_state
from vgps_training.run.validation import Validation, improves

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
        config.network.check_trainable()
        self.config, self.quiet = config, quiet
        self.shard = guards.place()
        self.device = self._device()
        self._limit_threads()
        self.report = ''
        self.table = table or self._read()
        text_encoder = instruction_encoder(config.data.instruction_encoder)
        self.embeddings = text_encoder.encode_all(self.table.instructions)
        self.encoder = encoder_of(config)
        training, validation = held_out(self.table, config.data.validation_share)
        selection = self.encoder.features(self.table, self.embeddings, self.device).select(training)
        source = ', '.join(map(set_name, config.data.paths))
        self.action_space = self.encoder.action_space or normalisation.fit(
            config.data.action_space, self.table.actions, f'0.1 % and 99.9 % quantiles of {source}',
            selection.steps())
        self.sampler = self._sampler(selection)
        torch.manual_seed(config.seed)
        self.algorithm = ALGORITHMS[config.algorithm_name][1](config.algorithm, config.network)
        self.encoder.attach(self.algorithm.networks)
        self.learner = Learner(self.algorithm, config.optimiser, self.device, config.bf16, config.compile)
        self.critic_config = CriticConfig(
            self.action_space, config.network, text_encoder.identity, config.algorithm.discount,
            config.data.labels.success_steps, config.algorithm_name, source)
        self.actors = ActorWriter(self.critic_config, self.table, self.embeddings) \
            if 'actor' in self.algorithm.networks else None
        self.fingerprint = guards.fingerprint(config, self.table, self.action_space, text_encoder.identity)
        guards.agree('the data or the configuration', json.dumps(self.fingerprint))
        self.validation = Validation(self.table, validation, config.algorithm.discount, config.data.labels,
                                     self.embeddings, self.action_space)

    def _limit_threads(self) -> None:
        local = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if self.config.threads or local > 1:  # torchrun sets OMP_NUM_THREADS to 1, whatever the machine has
            torch.set_num_threads(self.config.threads or max(1, (os.cpu_count() or 1) // local))

    def _sampler(self, selection: Selection) -> Sampler:
        """Return the source of batches; features in place of images are neither augmented nor decoded."""
        data, frames = self.config.data, selection.table.frames
        images = not isinstance(frames, np.ndarray) or frames.dtype == np.uint8
        return Sampler(
            selection, self.config.algorithm.discount, data.labels, self.action_space.normalize, self.embeddings,
            batch_size=self.config.batch_size, seed=self.config.seed, weights=data.weights,
            augmentation=data.augmentation if images else AugmentationConfig(enabled=False),
            shuffled_next=data.shuffled_next, shard=self.shard,
            workers=0 if isinstance(frames, np.ndarray) else data.decoders)

    def _device(self) -> torch.device:
        chosen = device.choose(self.config.device)
        if self.shard.world > 1 and not dist.is_initialized():
            dist.init_process_group('nccl' if chosen.type == 'cuda' else 'gloo',
                                    timeout=timedelta(seconds=2 * self.config.hang_after))
        if chosen.type == 'cuda' and self.shard.world > 1:
            chosen = torch.device(f'cuda:{os.environ["LOCAL_RANK"]}')
            torch.cuda.set_device(chosen)
        return chosen

    def _read(self) -> StepTable:
        data = self.config.data
        if not data.paths:
            raise ValueError('no data: give --data PATH ...')
        read = read_indexed if data.lazy else read_table
        table, report = read(data.paths, self.config.network.image_size, split=data.split, unjudged=data.unjudged,
                             reading=data.reading, failures=data.labels.failures,
                             progress=not self.quiet and self.shard.rank == 0)
        if self.shard.rank == 0:
            self.report = report.text()
            logger.warning('%s', self.report)
        return table

    def train(self, stop_after: int | None = None) -> dict[str, float]:
        """Train to `config.steps` (or stop after an update, for tests) and return the last validation's metrics.

        Raises RunError where the folder's state is of another configuration or in use, where the run diverges, and
        where it cannot be saved; nothing that was saved before is touched.
        """
        storage = Storage(self.config.out) if self.shard.rank == 0 else None
        try:
            return self._train(storage, min(self.config.steps, stop_after or self.config.steps))
        finally:
            if storage:
                storage.close()

    def _train(self, storage: Storage | None, stop: int) -> dict[str, float]:
        config = self.config
        history = self._restore(storage.load() if storage else load_state(config.out))
        start = self.learner.step
        progress = self._begin(start) if storage else None
        shard = self.shard
        self.heartbeat = Heartbeat(shard.rank, shard.world, config.hang_after) if shard.world > 1 else None
        try:
            return self._updates(start, stop, history, storage, progress)
        finally:
            if self.heartbeat:
                self.heartbeat.close()
            if progress:
                progress.close()

    def _doing(self, what: str) -> None:
        if self.heartbeat:
            self.heartbeat.doing(what)

    def _updates(self, start: int, stop: int, history: dict, storage: Storage | None,
                 progress: Progress | None) -> dict[str, float]:
        config, parts = self.config, self.config.micro_batches
        part, result, clock = self.shard.slice(config.batch_size), {}, time.perf_counter()
        for batch in self.sampler.batches(start, stop, self.device):
            step = self.learner.step
            generator = torch.Generator().manual_seed(hash_pair(config.seed + 1, step))
            noise = {name: value[part] for name, value in self.algorithm.draw(config.batch_size, generator).items()}
            self._doing(f'update {step + 1}')
            parts = parts or self.learner.micro_batches(batch, noise)
            metrics = self.learner.update(batch, noise, parts)
            step = self.learner.step
            if self.heartbeat:
                self.heartbeat.finished()
            log = step % config.log_every == 0 or step == stop
            validate = step == config.steps or (config.validate_every and step % config.validate_every == 0)
            save = step == stop or step % config.save_every == 0
            if log or validate or save:
                guards.check_finite(step, metrics, self.algorithm.config.discount, config.divergence)
            if validate or save:
                guards.check_weights(step, {**self.learner.networks, **self.learner.targets})
                guards.agree('the weights', guards.weights_digest(self.learner.networks))
            self._doing(f'reading batch {step + 1}')
            if not storage:
                continue
            storage.check()
            progress.advance()
            if log:
                now = time.perf_counter()
                rate = (config.log_every if step % config.log_every == 0 else step % config.log_every) / (now - clock)
                clock = now
                progress.log(step, {**{k: float(v) for k, v in metrics.items()}, 'steps_per_second': rate})
            best = None
            if validate:
                self._doing('validating')
                result = self.validate()
                progress.log(step, {f'validation/{k}': v for k, v in result.items()})
                best = improves(result, history.get('best'))
                if best:
                    history['best'] = {'step': step, best: result[best]}
            if save or best:  # last: a run killed before it has its validation ahead
                self._doing('saving')
                storage.save(*self.snapshot(history), best=bool(best))
            self._doing(f'reading batch {step + 1}')
        return result

    def _restore(self, state: dict | None) -> dict:
        """Continue from a state; return what it remembers of the run besides its weights."""
        changed = ''
        if state is not None:
            changed = guards.check_same(state.get('fingerprint'), self.fingerprint, self.config.out, self.config.fork)
            self.learner.restore(state)
        guards.agree('the saved weights', f'{self.learner.step} {guards.weights_digest(self.learner.networks)}')
        history = dict((state or {}).get('history', {}))
        if changed:
            history['forks'] = [*history.get('forks', []), {'step': self.learner.step, 'changed': changed}]
        return history

    def _begin(self, start: int) -> Progress:
        config = self.config
        (config.out / 'config.json').write_text(to_json(replace(config, fork=False)) + '\n')
        if self.report:
            (config.out / 'data_report.txt').write_text(self.report + '\n')
        settings = json.loads(json.dumps(asdict(config), default=str))
        return Progress(config.out, start, config.steps, config.wandb, settings, self.quiet)

    def critic(self) -> CriticNetwork:
        """Return a copy of the critic as it stands, the averaged weights; it computes in float32."""
        return self.encoder.critic(self.learner.targets['critic'])

    def snapshot(self, history: dict) -> tuple[dict, Callable[[Path], None]]:
        """Return the state to continue from and a writer of the critic to steer with, both apart from training.

        The critic is the target network: with it the authors score. An actor is written beside it, as it stands: so the
        authors sample.
        """
        state = copied(self.learner.state()) | {'fingerprint': self.fingerprint, 'history': copy.deepcopy(history)}
        critic, config = self.critic().cpu(), replace(self.critic_config, step=self.learner.step)
        actor = self.encoder.actor(self.learner.networks['actor']).cpu() if self.actors else None

        def write(folder: Path) -> None:
            digest = checkpoint.save(folder, critic, config)
            if actor is not None:
                self.actors.write(folder, actor, digest, config.step)
        return state, write

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the critic and draw its value curves."""
        return self.validation.run(self.critic().to(self.device), self.device,
                                   Path(self.config.out) / f'values_{self.learner.step:07d}.png')


def copied(state):
    """Return a nested state whose tensors are copies on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to('cpu', copy=True)
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state
