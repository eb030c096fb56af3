"""Train a small critic's image encoder on what recordings hold: robot states, actions and outcomes.

Example: vgps-pretrain --data demonstrations --out runs/encoder

Next: vgps-train iql --preset small --network.num-filters 24 --network.image-size 96 --encoder runs/encoder
--data demonstrations --out runs/iql

This departs from the paper, whose encoder learns from the value loss alone. The targets (`hindsight`) need nothing that
only a simulator knows.
"""
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from vgps_critic.network import NetworkConfig
from vgps_critic.whole_files import whole
from vgps_msgs_py import command_line
from vgps_msgs_py.film_resnet import ResNetEncoder
from vgps_training import device
from vgps_training.data import hindsight
from vgps_training.data.episode import Reading
from vgps_training.data.hindsight import NAMES, Targets
from vgps_training.data.splits import held_out
from vgps_training.data.table import read_table
from vgps_training.run import frozen, readout, storage
from vgps_training.run.loop import instruction_encoder

BASIC = NetworkConfig(stage_sizes=(1, 1, 1, 1), num_filters=24, image_size=96)


@dataclass(frozen=True)
class PretrainConfig:
    """One pre-training run. Defaults: measured in the simulation, 20 minutes of one CPU core."""

    out: Path                        # folder of the run
    # data sets with recorded robot states (bags), or saved tables
    paths: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=['--data'])] = ()
    reading: Annotated[Reading, tyro.conf.arg(name='')] = field(default_factory=Reading)  # which camera, which units
    network: NetworkConfig = field(default_factory=lambda: BASIC)  # the critic's network; its encoder is trained
    first_steps: int = 2000          # updates with each success's own grasp as target, for features that locate grasps
    steps: int = 3500                # updates with the located grasps as targets
    batch_size: int = 64             # frames per update
    learning_rate: float = 1.2e-3    # peak learning rate of AdamW; 200 steps of warm-up, then cosine to 0
    weight_decay: float = 1e-3       # of AdamW
    shift: int = 3                   # largest random shift of the image [pixels], as much as camera poses differ
    brightness: float = 0.1          # standard deviation of the random factor on all pixels
    tint: float = 6.0                # standard deviation of the random offset of each colour, of 255
    outcome_weight: float = 0.3      # weight of predicting success, relative to the positions
    validation_share: float = 0.05   # share of the episodes to hold out, chosen by a hash of their names, 0..1
    instruction_encoder: str = 'muse-numpy'  # 'muse-numpy', 'tensorflow-hub', or a table of embeddings (.npz)
    critic: str = ''                 # keep this critic's encoder and only fit its readout to the data (takes seconds)
    save_every: int = 250            # updates between saved states and validations
    seed: int = 0                    # seed of weights, sampling and augmentation
    device: str = 'auto'             # what to train on: 'auto' (a GPU, if there is one), 'cpu', 'cuda'
    threads: int = 1                 # CPU threads of torch


class Predictor(nn.Module):
    """The critic's encoder and a linear readout of the targets."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.encoder = ResNetEncoder(config.stage_sizes, config.num_filters, config.language_dim)
        self.readout = nn.Linear(self.encoder.output_dim, len(NAMES) + 1)

    def forward(self, images: Tensor, language: Tensor) -> Tensor:
        """Return (B, 15): standardised targets, then the logit of success."""
        return self.readout(self.encoder(images, language))


def augment(images: Tensor, config: PretrainConfig, generator: torch.Generator) -> Tensor:
    """Return images (B, S, S, 3) float32 0..255 shifted by whole pixels and lit differently."""
    batch, size, pad = len(images), images.shape[1], config.shift
    # drawn on the CPU: the same on every device
    gain = 1 + config.brightness * torch.randn((batch, 1, 1, 1), generator=generator).to(images.device)
    x = images.float() * gain + config.tint * torch.randn((batch, 1, 1, 3), generator=generator).to(images.device)
    padded = functional.pad(x.permute(0, 3, 1, 2), (pad,) * 4, mode='replicate').permute(0, 2, 3, 1)
    corner = torch.randint(0, 2 * pad + 1, (batch, 2), generator=generator).tolist()
    return torch.stack([padded[i, y:y + size, x:x + size] for i, (y, x) in enumerate(corner)]).clamp(0, 255)


def loss(prediction: Tensor, values: Tensor, known: Tensor, success: Tensor, outcome_weight: float) -> Tensor:
    """Return the mean over targets of the smooth L1 error where known, plus the outcome's cross-entropy."""
    error = functional.smooth_l1_loss(prediction[:, :-1], values, reduction='none', beta=0.3) * known
    per_target = error.sum(0) / known.sum(0).clamp(min=1)
    return per_target.sum() + outcome_weight * functional.binary_cross_entropy_with_logits(prediction[:, -1], success)


@torch.no_grad()
def predict(model: Predictor, frames: np.ndarray, language: Tensor, layer: str = 'readout') -> np.ndarray:
    """Return predictions (B, 15), or with layer 'encoder' features (B, D), of frames (B, S, S, 3)."""
    model.eval()
    call, where = model.encoder if layer == 'encoder' else model, language.device
    parts = np.array_split(np.arange(len(frames)), math.ceil(len(frames) / 256))
    result = torch.cat([call(torch.from_numpy(frames[part]).to(where), language[part]).cpu() for part in parts]).numpy()
    model.train()
    return result


def errors(prediction: np.ndarray, truth: Targets, steps: np.ndarray) -> dict[str, float]:
    """Return the mean error of each target (mm, mrad, 1/1000 openness) on some steps, and the outcome's accuracy."""
    known = truth.known[steps]
    error = (np.abs(prediction[:, :-1] - truth.values[steps]) * known).sum(0) / known.sum(0).clip(min=1)
    result = {name: float(value) for name, value in zip(NAMES, 1e3 * error * truth.units)}
    return {**result, 'outcome_accuracy': float(((prediction[:, -1] > 0) == truth.success[steps]).mean())}


class Pretraining:
    """One run in its folder; `train` goes on where a killed one was saved."""

    def __init__(self, config: PretrainConfig):
        """Read the data. Raises ValueError where they hold no robot states."""
        config.network.check_trainable()
        torch.set_num_threads(config.threads)
        self.device = device.choose(config.device)
        torch.manual_seed(config.seed)
        self.config = config
        self.table, report = read_table(config.paths, config.network.image_size, reading=config.reading)
        print(report.text())  # what was skipped, and why
        if self.table.states is None:
            raise ValueError(f'{", ".join(map(str, config.paths))}: no robot states recorded; pre-training needs them')
        if len(self.table.starts) < 2:
            raise ValueError(f'{", ".join(map(str, config.paths))}: one episode; pre-training holds one out and needs '
                             'others to learn from')
        config.out.mkdir(parents=True, exist_ok=True)
        encoder = instruction_encoder(config.instruction_encoder)
        embeddings = torch.from_numpy(np.stack([encoder.encode(text) for text in self.table.instructions]))
        self.language = embeddings[torch.from_numpy(self.table.per_step(self.table.instruction)).long()].to(self.device)
        self.training, self.validation = held_out(self.table, config.validation_share)
        if not len(self.validation):
            raise ValueError('validation_share is 0; pre-training measures its errors on episodes that are held out')
        self.events = hindsight.events(self.table.actions, self.table.starts)
        self.model = Predictor(config.network).to(self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), weight_decay=config.weight_decay)
        self.step = 0
        state = storage.load_state(config.out)
        if state is not None:
            self.model.load_state_dict(state['model'])
            self.optimiser.load_state_dict(state['optimiser'])
            self.step = state['step']

    def train(self) -> dict[str, float]:
        """Teach each success's own grasp, locate the grasps, teach those; write the encoder, return held-out errors."""
        total = self.config.first_steps + self.config.steps
        with tqdm(total=total, initial=self.step, desc='encoder', unit='step') as bar:
            if self.step < self.config.first_steps:
                self._round(self._own_targets(), 0, self.config.first_steps, bar)
            result = self._round(self._located_targets(), self.config.first_steps, total, bar)
        frozen.save(self.config.out, self.config.network, self.model.encoder, self.model.readout)
        return result

    def _own_targets(self) -> Targets:
        table = self.table
        own = hindsight.own_places(table.states, self.events, table.success)
        own.grasp[table.success == 0] = np.nan
        return hindsight.targets(table.states, self.events, own, table.starts, table.success)

    def _located_targets(self) -> Targets:
        table, path = self.table, self.config.out / 'places.npz'
        if not path.exists():
            own = hindsight.own_places(table.states, self.events, table.success)
            features = predict(self.model, table.frames[table.starts], self.language[table.starts], 'encoder')
            training = np.isin(np.arange(len(table.starts)), self.training)
            located = hindsight.locate(features, own, table.success, training, table.instruction)
            with whole(path) as temporary:  # a kill leaves no half of it to resume from
                np.savez(temporary, **located._asdict())
        with np.load(path) as places:
            located = hindsight.Places(places['grasp'], places['release'])
        return hindsight.targets(table.states, self.events, located, table.starts, table.success)

    def _round(self, truth: Targets, first: int, last: int, bar: tqdm) -> dict[str, float]:
        config, table, result = self.config, self.table, {}
        steps, held_out_steps = (table.select(e).steps() for e in (self.training, self.validation))
        values, known, success = (torch.from_numpy(part).to(self.device) for part in truth[:3])
        while self.step < last:
            rate = min(1, (self.step - first + 1) / 200) * 0.5 * (1 + math.cos(math.pi * (self.step - first) /
                                                                               (last - first)))
            for group in self.optimiser.param_groups:
                group['lr'] = config.learning_rate * rate
            rows = np.random.default_rng([config.seed, self.step]).choice(steps, config.batch_size)
            images = augment(torch.from_numpy(table.frames[rows]).to(self.device), config,
                             torch.Generator().manual_seed(self.step))
            error = loss(self.model(images, self.language[rows]), values[rows], known[rows], success[rows],
                         config.outcome_weight)
            self.optimiser.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimiser.step()
            self.step += 1
            bar.update()
            if self.step % config.save_every == 0 or self.step == last:
                prediction = predict(self.model, table.frames[held_out_steps], self.language[held_out_steps])
                result = errors(prediction, truth, held_out_steps)
                bar.write(f'{self.step}: loss {error.item():.3f}, held-out '
                          + ', '.join(f'{name} {value:.3g}' for name, value in result.items()))
                storage.save_state(config.out, {'step': self.step, 'model': self.model.state_dict(),
                                                'optimiser': self.optimiser.state_dict()})
        return result


def refit_readout(config: PretrainConfig) -> None:
    """Write the encoder of a trained critic with a readout fitted to the data; `network` is the critic's own."""
    torch.set_num_threads(config.threads)
    table, report = read_table(config.paths, readout.image_size(config.critic))
    print(report.text())
    config.out.mkdir(parents=True, exist_ok=True)
    words = instruction_encoder(config.instruction_encoder)
    embeddings = np.stack([words.encode(text) for text in table.instructions])
    frozen.save(config.out, *readout.refit(config.critic, table, embeddings))


def main() -> None:
    """Run the command line."""
    config = command_line.read(PretrainConfig, 'vgps-pretrain', description=__doc__)
    with command_line.refusing('vgps-pretrain', OSError, ValueError):  # the reason says more than a traceback
        run = None if config.critic else Pretraining(config)
        if run is None:
            refit_readout(config)
    if run is not None:
        run.train()
    print(f'Encoder: {config.out}\nNext: vgps-train monte-carlo --encoder {config.out} --data DATA --out runs/heads')


if __name__ == '__main__':
    main()
