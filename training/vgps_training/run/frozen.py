"""Train the heads alone on a pre-trained encoder: every frame is encoded once, an update then takes milliseconds.

The heads see what `pretrain.Predictor` predicts (where the gripper is, where to grasp and release, chance of success)
and not all of its features: fewer directions in which a value can be wrong. The readout is linear: at the end it is
folded into the first layer of critic and actor, and their files are like any others.

On the frames the encoder was trained on, its chance of success is partly memory. Heads that regress returns lean on it
and look less at the action (steered success 0.74 with and 0.90 without it), so they do not see it; those that learn
by temporal differences need it (IQL 0.81 with, 0.48 without). See vgps_bringup/doc/study.md.
"""
import copy
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vgps_critic import checkpoint
from vgps_critic.network import CriticNetwork, NetworkConfig, build_network
from vgps_critic.whole_files import whole
from vgps_msgs_py.film_resnet import ResNetEncoder
from vgps_policy_bridge.policies.actor.network import GaussianActor
from vgps_training.data.hindsight import NAMES, RELATIVE
from vgps_training.data.table import StepTable
from vgps_training.run.config import TrainConfig
from vgps_training.run.learner import float32_encoder

FILE = 'encoder.pt'
BATCH = 256  # frames encoded at a time
CPU = torch.device('cpu')
# Positions spread over 20 cm, but a grasp is decided within one: without this gain on the positions relative to the
# gripper a critic of two small layers blurs that (IQL on true states, greedy: success 0.35 without, 0.90 with).
PRECISION = 4.0


def save(folder: Path, config: NetworkConfig, encoder: nn.Module, readout: nn.Linear) -> None:
    """Write a pre-trained encoder with its readout."""
    with whole(folder / FILE) as temporary:
        weights = {name: {key: value.cpu() for key, value in part.state_dict().items()}  # it is read without a GPU, too
                   for name, part in (('encoder', encoder), ('readout', readout))}
        torch.save({'network': asdict(config), **weights}, temporary)


class _Given(nn.Module):
    """Stands where a network has its encoder when it is given features instead of images."""

    def __init__(self, output_dim: int):
        super().__init__()
        self.output_dim = output_dim

    def forward(self, features: Tensor, language: Tensor) -> Tensor:
        """Return the features (B, D) unchanged."""
        return features


class LearningEncoder:
    """The encoder learns with the values, as in the paper: nothing is computed ahead."""

    action_space = None  # of the data

    def features(self, table: StepTable, embeddings: np.ndarray, device: torch.device = CPU) -> StepTable:
        """Return the table as it is: the networks see images."""
        return table

    def attach(self, networks: nn.ModuleDict) -> None:
        """Leave the networks their own encoders."""

    def critic(self, trained: CriticNetwork) -> CriticNetwork:
        """Return a copy of the critic; it computes in float32."""
        return float32_encoder(copy.deepcopy(trained))

    def actor(self, trained: GaussianActor) -> GaussianActor:
        """Return a copy of the actor; it computes in float32."""
        return float32_encoder(copy.deepcopy(trained))


class FrozenEncoder:
    """A pre-trained encoder that is trained no more."""

    action_space = None  # of the data

    def __init__(self, folder: Path, config: NetworkConfig, outcome: bool = True):
        """Load the encoder of `folder`; `outcome`: the heads see its chance of success.

        Raises ValueError where it is not the encoder of the critic's `config`.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise ValueError(f'{path} does not exist: make it with vgps-pretrain')
        kept = torch.load(path, weights_only=True)
        pretrained = NetworkConfig(**kept['network'])
        for name in ('stage_sizes', 'num_filters', 'image_size'):
            if getattr(pretrained, name) != getattr(config, name):
                raise ValueError(f'{path} has network.{name} {getattr(pretrained, name)}, the critic '
                                 f'{getattr(config, name)}: give the critic the same')
        self.config = config
        self.encoder = ResNetEncoder(config.stage_sizes, config.num_filters, config.language_dim)
        self.encoder.load_state_dict(kept['encoder'])
        self.encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        rows = len(NAMES) + outcome  # P: positions, then the chance of success
        self.weight, self.bias = (kept['readout'][name][:rows] for name in ('weight', 'bias'))  # (P, D), (P,)
        if len(self.bias) > self.encoder.output_dim:
            raise ValueError(f'{path}: an encoder of {self.encoder.output_dim} features cannot hold {len(self.bias)} '
                             'predictions: more stages or filters')

    @torch.no_grad()
    def features(self, table: StepTable, embeddings: np.ndarray, device: torch.device = CPU) -> StepTable:
        """Return the table with features (N, D) float32 for frames: P scaled predictions, then zeros."""
        encoded = _encode(self.encoder, table, embeddings, device)
        predictions = encoded @ self.weight.T + self.bias
        mean, deviation = predictions.mean(0), predictions.std(0).clamp(min=1e-2)
        deviation[RELATIVE] /= PRECISION
        self.weight, self.bias = self.weight / deviation[:, None], (self.bias - mean) / deviation
        features = np.zeros((len(table), self.encoder.output_dim), np.float32)
        features[:, :len(self.bias)] = ((predictions - mean) / deviation).numpy()
        return replace(table, frames=features)

    def attach(self, networks: nn.ModuleDict) -> None:
        """Make networks take features instead of images."""
        for network in networks.values():
            if hasattr(network, 'encoder'):
                network.encoder = _Given(self.encoder.output_dim)

    @torch.no_grad()
    def critic(self, trained: CriticNetwork) -> CriticNetwork:
        """Return the critic that takes images: this encoder, the readout folded into the first layer."""
        result = CriticNetwork(self.config)
        state = {name: value for name, value in trained.state_dict().items() if not name.startswith('encoder.')}
        result.load_state_dict({**state, **{f'encoder.{k}': v for k, v in self.encoder.state_dict().items()}})
        count, dim = self.weight.shape
        first = trained.weights[0].cpu()  # (E, D + 7, h)
        result.weights[0][:, :dim] = torch.einsum('pd,eph->edh', self.weight, first[:, :count])
        result.biases[0].copy_(trained.biases[0].cpu() + torch.einsum('p,eph->eh', self.bias, first[:, :count]))
        return copy.deepcopy(result).eval()

    @torch.no_grad()
    def actor(self, trained: GaussianActor) -> GaussianActor:
        """Return the actor that takes images: this encoder, the readout folded into the first layer."""
        result = _with_encoder(trained, self.encoder)
        first = result.hidden[0]  # weight (h, D), of which the first P saw predictions
        seen = first.weight[:, :len(self.bias)].clone()
        first.weight.copy_(seen @ self.weight)
        first.bias += seen @ self.bias
        return result


class ContinuedCritic:
    """A trained critic whose heads are trained on while its encoder stays: what a robot's own episodes correct.

    The heads see the encoder's features themselves, which the readout is folded into.
    """

    def __init__(self, critic: str, discount: float, network: NetworkConfig):
        """Load a critic.

        Raises CheckpointError where it does not load, ValueError where its discount or network is another.
        """
        state, config, _ = checkpoint.read(critic)
        if config.discount != discount:
            raise ValueError(f'{critic} has discount {config.discount:g}, the algorithm {discount:g}: give it the same')
        if config.network != network:
            raise ValueError(f'{critic} is {config.network}, the configuration says {network}')
        self.action_space = config.action_space  # its values belong to its bounds
        self.trained = build_network(config.network, state, critic).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, table: StepTable, embeddings: np.ndarray, device: torch.device = CPU) -> StepTable:
        """Return the table with features (N, D) float32 for frames."""
        return replace(table, frames=_encode(self.trained.encoder, table, embeddings, device).numpy())

    def attach(self, networks: nn.ModuleDict) -> None:
        """Make networks take features, and give the critic among them the heads to begin with."""
        for network in networks.values():
            if hasattr(network, 'encoder'):
                network.encoder = _Given(self.trained.encoder.output_dim)
        networks['critic'].load_state_dict(
            {name: value for name, value in self.trained.state_dict().items() if not name.startswith('encoder.')})

    @torch.no_grad()
    def critic(self, trained: CriticNetwork) -> CriticNetwork:
        """Return the critic that takes images: the old encoder, the new heads."""
        result = copy.deepcopy(self.trained)
        result.load_state_dict({**result.state_dict(), **{
            name: value.cpu() for name, value in trained.state_dict().items() if not name.startswith('encoder.')}})
        return result.eval()

    def actor(self, trained: GaussianActor) -> GaussianActor:
        """Return the actor that takes images: the old critic's encoder, the new head."""
        return _with_encoder(trained, self.trained.encoder)


@torch.no_grad()
def _encode(encoder: ResNetEncoder, table: StepTable, embeddings: np.ndarray, device: torch.device) -> Tensor:
    """Return the features (N, D) of a table's frames, on the CPU, where the encoder then is again."""
    language = torch.from_numpy(embeddings)[torch.from_numpy(table.per_step(table.instruction)).long()]
    parts = np.array_split(np.arange(len(table)), math.ceil(len(table) / BATCH))
    encoder.to(device)
    encoded = [encoder(torch.from_numpy(table.images(part)).to(device), language[part].to(device)).cpu()
               for part in tqdm(parts, desc='encoding', leave=False)]
    encoder.cpu()
    return torch.cat(encoded)


def _with_encoder(trained: GaussianActor, encoder: ResNetEncoder) -> GaussianActor:
    """Return a copy, on the CPU, of an actor that was given features, with the encoder they came from."""
    result = copy.deepcopy(trained).cpu()
    result.encoder = copy.deepcopy(encoder)
    return result.eval()


def encoder_of(config: TrainConfig) -> LearningEncoder | FrozenEncoder | ContinuedCritic:
    """Return how a run's networks come by the features of a frame. Raises ValueError where the configuration errs."""
    if config.critic and config.encoder:
        raise ValueError('--critic has an encoder of its own: leave out --encoder')
    if config.critic:
        return ContinuedCritic(config.critic, config.algorithm.discount, config.network)
    if config.encoder:  # why not everybody sees the outcome: see above
        return FrozenEncoder(config.encoder, config.network, config.algorithm_name != 'monte-carlo')
    return LearningEncoder()
