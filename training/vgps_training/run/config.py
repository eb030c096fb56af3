"""The configuration of a training run, the only one: the command line and config.json are made from it."""
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vgps_critic.config import NetworkConfig
from vgps_training.algorithms.behaviour_values import SARSA, MonteCarlo, MonteCarloConfig, SARSAConfig
from vgps_training.algorithms.cal_ql import CalQL, CalQLConfig
from vgps_training.algorithms.iql import IQL, IQLConfig
from vgps_training.data.augmentation import AugmentationConfig
from vgps_training.data.episode import Reading
from vgps_training.data.labels import LabelConfig
from vgps_training.run.learner import OptimiserConfig

AlgorithmConfig = CalQLConfig | IQLConfig | SARSAConfig | MonteCarloConfig
ALGORITHMS = {'cal-ql': (CalQLConfig, CalQL), 'iql': (IQLConfig, IQL), 'sarsa': (SARSAConfig, SARSA),
              'monte-carlo': (MonteCarloConfig, MonteCarlo)}


@dataclass(frozen=True)
class DataConfig:
    """What to train on, and how it is labelled."""

    # data sets, or folders that hold them: RLDS, LeRobot, rosbag2, saved tables
    paths: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=['--data'])] = ()
    weights: tuple[float, ...] = ()    # sampling weight of each path, relative to its number of steps; empty: all equal
    split: str = 'train'               # which split of RLDS data sets
    reading: Annotated[Reading, tyro.conf.arg(name='')] = field(default_factory=Reading)  # which camera, which units
    validation_share: float = 0.05     # share of the episodes to hold out, chosen by a hash of their names, 0..1
    labels: LabelConfig = field(default_factory=LabelConfig)
    unjudged: str = 'skip'             # what to do with episodes without an outcome: 'skip', or count as 'successes'
    action_space: str = 'quantiles'    # bounds of the actions: 'quantiles' of the data, or fixed: 'bridge', 'fractal'
    instruction_encoder: str = 'muse-numpy'   # 'muse-numpy', 'tensorflow-hub', or a table of embeddings (.npz)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    shuffled_next: bool = False        # as in the authors' loader: beyond 100 steps, s' is any frame of the episode
    lazy: bool = False                 # leave RLDS images in their files and decode on demand (data larger than memory)
    decoders: int = 4                  # with lazy: reading and decoding processes per GPU; 0: the training process


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Defaults: the paper (V-GPS section 5 and appendix); 1 M steps for Cal-QL, 200 k for IQL."""

    out: Path                          # folder of the run: checkpoints, logs, images
    algorithm: AlgorithmConfig
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    encoder: Path | None = None        # run of vgps-pretrain whose encoder to use, frozen: only the heads are trained
    critic: str = ''                   # critic to continue from: its heads are trained further, its encoder is frozen
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    steps: int = 1_000_000             # updates; paper 1 M (Cal-QL), 200 k (IQL)
    batch_size: int = 512              # transitions per update over all processes; paper 512, authors' script 256
    micro_batches: int = 0             # split a process's batch into this many parts; 0: as its GPU's memory requires
    seed: int = 0                      # seed of weights, sampling and augmentation
    device: str = 'auto'               # what to train on: 'auto', 'cpu', 'cuda'
    threads: int = 0                   # CPU threads of torch; 0: torch's own choice
    bf16: bool = False                 # compute the encoders in bfloat16: faster on hardware that supports it
    compile: bool = False              # use torch.compile for the encoders
    log_every: int = 50                # updates between log lines
    save_every: int = 1000             # updates between saved states: the most that a killed run loses
    validate_every: int = 2000         # updates between validations; 0: only at the end
    divergence: float = 20.0           # mean |Q| at which the run stops, in multiples of the largest return, > 0
    hang_after: float = 1800.0         # time without an update after which a run of several processes ends [s], > 0
    fork: bool = False                 # continue from the folder's state although configuration or data have changed
    wandb: str = ''                    # Weights & Biases project; empty: none

    @property
    def algorithm_name(self) -> str:
        """Return the name of the algorithm this configuration belongs to."""
        return next(name for name, (kind, _) in ALGORITHMS.items() if isinstance(self.algorithm, kind))


@dataclass(frozen=True)
class Preset:
    """Defaults of a named set-up, per algorithm where they differ."""

    description: str
    algorithms: dict[str, AlgorithmConfig] = field(default_factory=dict)
    changes: dict = field(default_factory=dict)
    optimisers: dict[str, OptimiserConfig] = field(default_factory=dict)


PRESETS = {
    'paper': Preset('the paper'),
    'reference': Preset(
        "the authors' code, without its bugs",
        {'cal-ql': CalQLConfig(td_scale=1.0), 'iql': IQLConfig(averaged_next_value=True, train_actor=True)},
        {'batch_size': 256},
        {'cal-ql': OptimiserConfig(actor_learning_rate=1e-4, warmup_steps=2000),
         'iql': OptimiserConfig(warmup_steps=2000)}),
    'small': Preset(
        'a small critic for the simulated robot on a CPU: 64 pixels, 16..128 channels',
        {'iql': IQLConfig(target_rate=0.02), 'cal-ql': CalQLConfig(target_rate=0.02)},
        {'network': NetworkConfig(stage_sizes=(1, 1, 1, 1), num_filters=16, image_size=64), 'batch_size': 128,
         'steps': 10_000, 'data': DataConfig(action_space='bridge')}),
}


def preset(algorithm: str, name: str) -> TrainConfig:
    """Return the configuration of a preset; raises ValueError for unknown names."""
    if algorithm not in ALGORITHMS or name not in PRESETS:
        raise ValueError(f"no preset '{name}' of '{algorithm}': algorithms {', '.join(ALGORITHMS)}; "
                         f"presets {', '.join(PRESETS)}")
    chosen = PRESETS[name]
    config = TrainConfig(out=Path('runs') / algorithm,
                         algorithm=chosen.algorithms.get(algorithm, ALGORITHMS[algorithm][0]()),
                         optimiser=chosen.optimisers.get(algorithm, OptimiserConfig()))
    if algorithm == 'iql':
        config = dataclasses.replace(config, steps=200_000)
    return dataclasses.replace(config, **chosen.changes)


def to_json(config: TrainConfig) -> str:
    """Return the configuration as text that `from_json` reads."""
    return json.dumps({'algorithm_name': config.algorithm_name, **dataclasses.asdict(config)}, indent=2, default=str)


def from_json(text: str) -> TrainConfig:
    """Return the configuration of a run's config.json; raises TypeError for keys this version does not know."""
    values = json.loads(text)
    kind = ALGORITHMS[values.pop('algorithm_name')][0]
    data = values['data']
    data['labels'] = LabelConfig(**data['labels'])
    data['reading'] = Reading(**data.get('reading', {}))  # runs of earlier versions have none
    augmentation = {k: tuple(v) if isinstance(v, list) else v for k, v in data['augmentation'].items()}
    data.update(augmentation=AugmentationConfig(**augmentation), paths=tuple(map(Path, data['paths'])),
                weights=tuple(data['weights']))
    values.update(out=Path(values['out']), algorithm=kind(**values['algorithm']), data=DataConfig(**data),
                  encoder=Path(values['encoder']) if values['encoder'] else None,
                  network=NetworkConfig(**values['network']), optimiser=OptimiserConfig(**values['optimiser']))
    return TrainConfig(**values)
