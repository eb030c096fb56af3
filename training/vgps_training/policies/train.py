"""Train a small policy by imitation.

Example: vgps-train-policy --kind flow --data demonstrations/ --output flow.safetensors

An interrupted call continues where it stopped, with the same result as an uninterrupted one.

Next: vgps-run simulation policy:=flow policy_options:='{checkpoint: flow.safetensors}'
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from vgps_critic.whole_files import whole
from vgps_msgs_py import command_line
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policies.small.checkpoint import build_network, save
from vgps_policy_bridge.policies.small.config import SmallConfig
from vgps_training import device
from vgps_training.policies.data import PolicyData, load_bags, load_npz


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    kind: str = 'flow'  # 'flow' (flow matching) or 'binned' (autoregressive bins)
    data: tuple[Path, ...] = ()  # one .npz file, or folders that hold recorded bags
    output: Path = Path('policy.safetensors')  # checkpoint to write; <output>.resume holds the run's progress
    steps: int = 4000  # optimiser steps, >= 1
    batch_size: int = 128  # steps per update, 1 .. 4096
    learning_rate: float = 1e-3  # peak learning rate; 100 steps of warm-up, then cosine to 0
    weight_decay: float = 1e-4  # of AdamW
    averaging: float = 0.998  # decay per step of the averaged weights, which are the ones saved
    state_noise: float = 0.1  # noise on the state, in its standard deviations: makes the policy rely on the image, too
    shift: int = 0  # largest random shift of the image [pixels]: against memorising few scenes
    places_weight: float = 0.0  # weight of also predicting where the episode grasps and releases (needs bags)
    use_state: bool = True  # use the robot state if the data hold it
    image_size: int = 64  # side of the image [pixels], a multiple of 8
    channels: int = 32  # channels of the image encoder's first stage
    width: int = 256  # width of the hidden layers
    horizon: int = 4  # actions in a chunk ('flow' only)
    bins: int = 128  # bins per action dimension, 2 .. 256 ('binned' only)
    save_every: int = 250  # updates between saved states
    seed: int = 0  # seed of weights, sampling and noise
    successes_only: bool = False  # leave out episodes that failed or were not judged (needs bags)
    device: str = 'auto'  # what to train on: 'auto' (a GPU, if there is one), 'cpu', 'cuda'
    threads: int = field(default=0)  # CPU threads of torch; 0: torch's own choice


def describe(data: PolicyData, config: TrainConfig) -> SmallConfig:
    """Return the policy's configuration with normalisation measured on the data."""
    actions, uses_state = data.actions, config.use_state and data.states is not None
    low, high = np.quantile(actions, 0.001, axis=0), np.quantile(actions, 0.999, axis=0)
    margin = np.maximum(0.5 * (high - low) / config.bins, 1e-4)  # outer bins centred on the extremes; never empty
    return SmallConfig(
        kind=config.kind, image_size=config.image_size, channels=config.channels, width=config.width,
        horizon=config.horizon if config.kind == 'flow' else 1, bins=config.bins, uses_state=uses_state,
        binary_gripper=bool(np.isin(actions[:, 6], (0.0, 1.0)).all()),
        state_mean=tuple(map(float, data.states.mean(0))) if uses_state else (0.0,) * 7,
        state_scale=tuple(map(float, np.maximum(data.states.std(0), 1e-2))) if uses_state else (1.0,) * 7,
        action_mean=tuple(map(float, actions.mean(0))),
        action_scale=tuple(map(float, np.maximum(actions.std(0), 2e-3))),
        action_low=tuple(map(float, low - margin)), action_high=tuple(map(float, high + margin)),
        instructions=data.instructions)


def train(data: PolicyData, config: TrainConfig, progress: bool = True) -> torch.nn.Module:
    """Train, write config.output, and return the averaged network."""
    try:
        where = device.choose(config.device)
    except ValueError as error:
        raise PolicyError(str(error)) from None
    torch.manual_seed(config.seed)
    network = build_network(describe(data, config)).train().to(where)
    average = copy.deepcopy(network).eval()
    places = _Places(network.config.width).to(where) if config.places_weight > 0 else None
    if places is not None and data.places is None:
        raise PolicyError('--places-weight needs recordings with the robot state: they tell where it grasped')
    parameters = [*network.parameters(), *(places.parameters() if places else ())]
    optimiser = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
    chunks = torch.from_numpy(data.chunks(network.config.horizon))
    resume = Path(f'{config.output}.resume')
    kept = {'network': network, 'average': average, 'optimiser': optimiser, **({'places': places} if places else {})}
    step = _restore(resume, config, kept)
    bar = tqdm(total=config.steps, initial=step, disable=not progress, desc=config.kind, unit='step')
    while step < config.steps:
        batch, generator = _batch(data, chunks, config, network.config, step, where)
        rate = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for group in optimiser.param_groups:
            group['lr'] = config.learning_rate * rate
        context = network.encoder(batch['images'], batch['embeddings'], batch['states'])
        loss = network.loss(context, batch['actions'], generator)
        if places is not None:
            loss = loss + config.places_weight * places.loss(context, batch['places'])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(config.averaging, step / (step + 10))  # the first weights are forgotten quickly
        with torch.no_grad():
            for slow, new in zip(average.parameters(), network.parameters()):
                slow.lerp_(new, 1 - decay)
        bar.update()
        if step % 20 == 0:
            bar.set_postfix(loss=f'{loss.item():.4f}')
        if step % config.save_every == 0 and step < config.steps:
            _keep(resume, config, step, kept)
    bar.close()
    save(config.output, average.cpu())
    resume.unlink(missing_ok=True)
    return average


class _Places(torch.nn.Linear):
    """Reads off a context where its episode grasps and releases; it teaches the encoder and is then thrown away.

    A step's action is noisy and says only which way; this says where to, in every frame of an episode alike.
    """

    def __init__(self, width: int):
        super().__init__(width, 7)

    def loss(self, context: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the mean smooth L1 error against places (B, 7), NaN where unknown."""
        known = ~places.isnan()
        error = functional.smooth_l1_loss(self(context), places.nan_to_num(), reduction='none', beta=0.3) * known
        return error.sum() / known.sum().clamp(min=1)


def _batch(data: PolicyData, chunks: torch.Tensor, config: TrainConfig, policy: SmallConfig,
           step: int, where: torch.device) -> tuple[dict[str, torch.Tensor | None], torch.Generator]:
    """Return the batch of a step on the training device and the generator of its noise.

    Both depend on (seed, step) alone. The device does the work on the pixels: a CPU beside a GPU would be too slow.
    """
    rng = np.random.default_rng([config.seed, step])
    rows = rng.integers(0, len(data.images), config.batch_size)
    # Light changes from day to day; position must not by more than a camera is knocked about: no crops.
    gain, offset = (torch.from_numpy(drawn.astype(np.float32)).to(where) for drawn in (
        rng.uniform(0.85, 1.15, (len(rows), 1, 1, 1)), rng.uniform(-15, 15, (len(rows), 1, 1, 3))))
    images = (torch.from_numpy(data.images[rows]).to(where) * gain + offset).clamp(0, 255)
    states = None
    if policy.uses_state:
        noise = rng.normal(0.0, config.state_noise, (len(rows), 7)) * policy.state_scale
        states = torch.from_numpy((data.states[rows] + noise).astype(np.float32))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    if config.shift:
        images = _shifted(images, rng.integers(0, 2 * config.shift + 1, (len(rows), 2)), config.shift)
    parts = {'states': states, 'actions': chunks[rows],
             'places': None if data.places is None else torch.from_numpy(data.places[rows]),
             'embeddings': torch.from_numpy(data.embeddings[data.instruction_ids[rows]])}
    return {'images': images, **{name: part if part is None else part.to(where) for name, part in parts.items()}}, \
        generator


def _shifted(images: torch.Tensor, corners: np.ndarray, most: int) -> torch.Tensor:
    """Return images (B, S, S, 3) shifted by whole pixels; what comes in from beyond an edge repeats it."""
    size = images.shape[1]
    padded = functional.pad(images.permute(0, 3, 1, 2), (most,) * 4, mode='replicate').permute(0, 2, 3, 1)
    return torch.stack([picture[y:y + size, x:x + size] for picture, (y, x) in zip(padded, corners.tolist())])


def _identity(config: TrainConfig) -> dict:
    free = ('save_every', 'device', 'threads')
    return {name: str(value) for name, value in asdict(config).items() if name not in free}


def _keep(path: Path, config: TrainConfig, step: int, parts: dict) -> None:
    with whole(path) as temporary:
        torch.save({'config': _identity(config), 'step': step,
                    **{name: part.state_dict() for name, part in parts.items()}}, temporary)


def _restore(path: Path, config: TrainConfig, parts: dict) -> int:
    if not path.exists():
        return 0
    kept = torch.load(path, map_location='cpu', weights_only=True)
    # what an earlier version did not know
    then = {'successes_only': 'False', 'shift': '0', 'places_weight': '0.0', **kept['config']}
    if then != _identity(config):
        changed = [name for name in then if then[name] != _identity(config).get(name)]
        raise PolicyError(f'{path} belongs to a run with other {", ".join(changed)}: delete it to start anew')
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    return kept['step']


def main() -> None:
    """Command line: every field of TrainConfig is an option."""
    config = command_line.read(TrainConfig, 'vgps-train-policy', description=__doc__)
    if config.threads:
        torch.set_num_threads(config.threads)
    with command_line.refusing('vgps-train-policy', PolicyError, stopped='stopped: the same command continues'):
        if not config.data:
            raise PolicyError('no data: give --data PATH')
        if len(config.data) == 1 and config.data[0].suffix == '.npz':
            if config.successes_only:
                raise PolicyError('--successes-only needs recordings: an .npz file does not tell which steps succeeded')
            data = load_npz(config.data[0], config.image_size)
        else:
            data = load_bags(list(config.data), config.image_size, config.successes_only)
        print(f'{len(data.images)} steps of {data.episodes.max() + 1} episodes, {len(data.instructions)} instructions, '
              f'{"with" if data.states is not None else "without"} robot state')
        train(data, config)
    print(f'Policy: {config.output} ({config.output.stat().st_size / 1e6:.1f} MB)\nNext: vgps-run simulation policy:='
          f'{config.kind} policy_options:="{{checkpoint: {config.output}}}"')


if __name__ == '__main__':
    main()
