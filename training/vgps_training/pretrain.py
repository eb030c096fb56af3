"""`vgps-pretrain`: give a small critic's encoder its eyes before any reward is seen.

vgps-pretrain --data demonstrations --out runs/encoder
vgps-train iql --preset small --encoder runs/encoder --data demonstrations --out runs/iql

Departs from the paper, whose encoder learns from the value loss alone. Supervision: `hindsight.targets`, i.e. what the
recordings hold anyway (robot state, actions, outcome); nothing that only a simulator knows.
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

from vgps_critic.network import NetworkConfig, ResNetEncoder
from vgps_training import frozen, storage
from vgps_training.hindsight import NAMES, Targets, targets
from vgps_training.run import instruction_encoder
from vgps_training.table import StepTable, held_out, read_table

BASIC = NetworkConfig(stage_sizes=(1, 1, 1, 1), num_filters=24, image_size=96)


@dataclass(frozen=True)
class PretrainConfig:
    """One pre-training run. Defaults: measured in the simulation, 17 minutes of one CPU core."""

    out: Path                        # folder of the run
    # data sets with recorded robot states (bags), or saved tables
    paths: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=['--data'])] = ()
    network: NetworkConfig = field(default_factory=lambda: BASIC)  # the critic's; only the encoder is trained
    steps: int = 5000                # updates
    batch_size: int = 64             # frames per update
    learning_rate: float = 1.2e-3    # of AdamW: 200 steps of warm-up, then cosine to 0
    weight_decay: float = 1e-3
    shift: int = 3                   # pixels, largest random shift; camera poses differ by as much
    brightness: float = 0.1          # standard deviation of the factor on all pixels
    tint: float = 6.0                # standard deviation of the offset of each colour, of 255
    outcome_weight: float = 0.3      # of the success prediction against the positions
    validation_share: float = 0.05   # of the episodes, held out by name
    instruction_encoder: str = 'muse-numpy'
    save_every: int = 250            # updates between saved states and validations
    seed: int = 0
    threads: int = 1                 # CPU threads


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
    gain = 1 + config.brightness * torch.randn((batch, 1, 1, 1), generator=generator)
    x = images.float() * gain + config.tint * torch.randn((batch, 1, 1, 3), generator=generator)
    padded = functional.pad(x.permute(0, 3, 1, 2), (pad,) * 4, mode='replicate').permute(0, 2, 3, 1)
    corner = torch.randint(0, 2 * pad + 1, (batch, 2), generator=generator).tolist()
    return torch.stack([padded[i, y:y + size, x:x + size] for i, (y, x) in enumerate(corner)]).clamp(0, 255)


def loss(prediction: Tensor, values: Tensor, known: Tensor, success: Tensor, outcome_weight: float) -> Tensor:
    """Return the mean over targets of the smooth L1 error where known, plus the outcome's cross-entropy."""
    error = functional.smooth_l1_loss(prediction[:, :-1], values, reduction='none', beta=0.3) * known
    per_target = error.sum(0) / known.sum(0).clamp(min=1)
    return per_target.sum() + outcome_weight * functional.binary_cross_entropy_with_logits(prediction[:, -1], success)


@torch.no_grad()
def errors(model: Predictor, table: StepTable, language: Tensor, truth: Targets, steps: np.ndarray) -> dict[str, float]:
    """Return the mean error of each target (mm, mrad, 1/1000 openness) on some steps, and the outcome's accuracy."""
    model.eval()
    prediction = torch.cat([model(torch.from_numpy(table.frames[part]), language[part])
                            for part in np.array_split(steps, math.ceil(len(steps) / 256))]).numpy()
    model.train()
    known = truth.known[steps]
    error = (np.abs(prediction[:, :-1] - truth.values[steps]) * known).sum(0) / known.sum(0).clip(min=1)
    result = {name: float(value) for name, value in zip(NAMES, 1e3 * error * truth.units)}
    return {**result, 'outcome_accuracy': float(((prediction[:, -1] > 0) == truth.success[steps]).mean())}


def pretrain(config: PretrainConfig, table: StepTable | None = None) -> dict[str, float]:
    """Train, or go on where a killed run was saved; write `encoder.pt` and return the held-out errors.

    Raises ValueError where the data hold no robot states.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    table = table or read_table(config.paths, config.network.image_size)[0]
    if table.states is None:
        raise ValueError(f'{", ".join(map(str, config.paths))}: no robot states recorded; pre-training needs them')
    encoder = instruction_encoder(config.instruction_encoder)
    embeddings = torch.from_numpy(np.stack([encoder.encode(text) for text in table.instructions]))
    language = embeddings[torch.from_numpy(table.per_step(table.instruction)).long()]
    truth = targets(table.states, table.actions, table.starts, table.success)
    training, validation = (table.select(e).steps() for e in held_out(table, config.validation_share))
    values, known, success = map(torch.from_numpy, truth[:3])

    model = Predictor(config.network).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=config.weight_decay)
    state = storage.load_state(config.out)
    first = 0
    if state is not None:
        model.load_state_dict(state['model'])
        optimiser.load_state_dict(state['optimiser'])
        first = state['step']
    result = {}
    with tqdm(total=config.steps, initial=first, desc='encoder', unit='step') as bar:
        for step in range(first, config.steps):
            rate = min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
            for group in optimiser.param_groups:
                group['lr'] = config.learning_rate * rate
            rows = np.random.default_rng([config.seed, step]).choice(training, config.batch_size)
            generator = torch.Generator().manual_seed(step)
            images = augment(torch.from_numpy(table.frames[rows]), config, generator)
            value = loss(model(images, language[rows]), values[rows], known[rows], success[rows],
                         config.outcome_weight)
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            bar.update()
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                result = errors(model, table, language, truth, validation)
                bar.write(f'{step + 1}: loss {value.item():.3f}, held-out '
                          + ', '.join(f'{name} {error:.3g}' for name, error in result.items()))
                storage.save_state(config.out, {'step': step + 1, 'model': model.state_dict(),
                                                'optimiser': optimiser.state_dict()})
    frozen.save(config.out, config.network, model.encoder, model.readout)
    return result


def main() -> None:
    """Run the command line."""
    pretrain(tyro.cli(PretrainConfig, description=__doc__))


if __name__ == '__main__':
    main()
