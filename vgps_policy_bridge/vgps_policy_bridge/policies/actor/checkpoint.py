"""An actor in one .safetensors file: weights, and what it is as JSON in the header. Training writes it, `actor` reads.

Where the instructions were not embedded by MUSE, their embeddings travel in the file and no others can be asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vgps_msgs_py.embeddings import MUSE, MUSE_NUMPY
from vgps_msgs_py.safetensors_header import UntrustedFileError, parse_json, read_header
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policies.actor.network import GaussianActor, TanhGaussianActor
from vgps_policy_bridge.policy import ACTION_DIMENSION

FORMAT = 'vgps-actor-1'
FILE = 'actor.safetensors'  # beside the critic of the same training
NETWORKS = {'iql': GaussianActor, 'cal-ql': TanhGaussianActor}
INSTRUCTIONS = 'instructions'  # name of the table of embeddings (I, L) among the weights


@dataclass(frozen=True)
class ActorConfig:
    """What an actor is and where it comes from. Raises PolicyError for values that cannot work."""

    algorithm: str                   # that trained it: 'iql' (Gaussian) or 'cal-ql' (Gaussian through tanh)
    action_low: tuple[float, ...]    # [m, rad, openness] what -1 of the network means: the critic's bounds
    action_high: tuple[float, ...]   # the same for +1
    stage_sizes: tuple[int, ...]     # residual blocks per stage of the encoder
    num_filters: int                 # channels of the first stage, a multiple of 4
    image_size: int                  # [pixels] side of the square input, 64 .. 256
    hidden_dims: tuple[int, ...]     # hidden layers of the head
    language_dim: int = 512          # length of the instruction's embedding
    text_encoder: str = MUSE_NUMPY   # identity of the instruction encoder it was trained with
    instructions: tuple[str, ...] = ()  # whose embeddings are in the file; empty where MUSE embeds any
    binary_gripper: bool = True      # the data's gripper is 0 or 1 throughout, so proposals are snapped to that
    critic: str = ''                 # content hash of the critic trained with it
    data: str = ''                   # what it was trained on
    step: int = 0                    # updates

    def __post_init__(self):
        if not isinstance(self.algorithm, str) or self.algorithm not in NETWORKS:
            raise PolicyError(f'algorithm must be one of {", ".join(NETWORKS)}, not {str(self.algorithm)[:80]!r}')
        self._check_sizes()
        self._check_bounds()
        if not isinstance(self.binary_gripper, bool):
            raise PolicyError(f'binary_gripper must be true or false, not {str(self.binary_gripper)[:80]!r}')
        for name in ('text_encoder', 'critic', 'data'):
            if not isinstance(getattr(self, name), str):
                raise PolicyError(f'{name} must be a text, not {str(getattr(self, name))[:80]!r}')
        if not isinstance(self.instructions, (list, tuple)) or not all(isinstance(x, str) for x in self.instructions):
            raise PolicyError('instructions must be a list of texts')
        object.__setattr__(self, 'instructions', tuple(self.instructions))
        if self.text_encoder not in (MUSE, MUSE_NUMPY) and not self.instructions:
            raise PolicyError(f'the instruction encoder {self.text_encoder[:80]!r} is not MUSE, and no embedded '
                              'instructions came with it')
        if self.text_encoder in (MUSE, MUSE_NUMPY) and self.language_dim != 512:
            raise PolicyError(f'MUSE embeds instructions as 512 numbers, but language_dim is {self.language_dim}')

    def _check_sizes(self):
        # the largest are far beyond any actor and keep a hostile checkpoint from being built
        for name, most, largest in (('stage_sizes', 8, 200), ('hidden_dims', 16, 65536)):
            values = getattr(self, name)
            if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= most or \
                    any(type(value) is not int or not 1 <= value <= largest for value in values):
                raise PolicyError(f'{name} must be a list of 1 to {most} integers within 1 and {largest}, not '
                                  f'{str(values)[:80]}')
            object.__setattr__(self, name, tuple(values))
        for name, low, high in (('num_filters', 4, 4096), ('image_size', 64, 256), ('language_dim', 1, 65536),
                                ('step', 0, 10**12)):
            if type(getattr(self, name)) is not int or not low <= getattr(self, name) <= high:
                raise PolicyError(f'{name} must be an integer within {low} and {high}, not '
                                  f'{str(getattr(self, name))[:80]!r}')
        if self.num_filters % 4:
            raise PolicyError(f'num_filters must be a multiple of 4, not {self.num_filters}')

    def _check_bounds(self):
        for name in ('action_low', 'action_high'):
            values = getattr(self, name)
            if not isinstance(values, (list, tuple)) or len(values) != ACTION_DIMENSION or not all(
                    isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) <= 1e3 for x in values):
                raise PolicyError(f'{name} must be {ACTION_DIMENSION} finite numbers, dx dy dz [m], droll dpitch dyaw '
                                  f'[rad] and the gripper\'s openness, not {str(values)[:80]}')
            object.__setattr__(self, name, tuple(values))
        for at, (low, high) in enumerate(zip(self.action_low, self.action_high)):
            if low > high:
                raise PolicyError(f'action_low[{at}] = {low:g} is above action_high[{at}] = {high:g}')
        if self.action_low[-1] < -0.5 or self.action_high[-1] > 1.5:
            raise PolicyError(f'the gripper goes from {self.action_low[-1]:g} to {self.action_high[-1]:g}, which is '
                              'not an openness, 0 (closed) to 1 (open)')

    @property
    def action_dim(self) -> int:
        """Length of an action."""
        return ACTION_DIMENSION

    def physical(self, normalised: np.ndarray) -> np.ndarray:
        """Return actions (..., 7) [m, rad, openness] of the network's, clipped to [-1, 1]: the critic's own inverse.

        The critic takes whatever lies beyond its bounds for the bound, so what it scored is what is executed.
        """
        low, high = np.asarray(self.action_low, np.float32), np.asarray(self.action_high, np.float32)
        return low + (np.clip(normalised, -1, 1) + 1) / 2 * (high - low)

    def to_dict(self) -> dict:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> ActorConfig:
        """Build from `to_dict`; PolicyError names a key that is missing or unknown (a newer version's)."""
        if not isinstance(values, dict):
            raise PolicyError('the checkpoint holds no table of settings')
        known = {field.name for field in fields(cls)}
        for key in sorted(known ^ set(values)):
            raise PolicyError(f'{"missing" if key in known else "unknown"} setting {key!r}')
        return cls(**values)


def build_network(config: ActorConfig) -> GaussianActor:
    """Return an untrained network of the configured kind."""
    return NETWORKS[config.algorithm](config)


def save(path: Path, state: dict[str, torch.Tensor], config: ActorConfig,
         embeddings: np.ndarray | None = None) -> None:
    """Write weights and configuration; `embeddings` (I, L) are those of `config.instructions`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if config.instructions:
        tensors[INSTRUCTIONS] = torch.from_numpy(np.ascontiguousarray(embeddings, np.float32))
    wrong = _mismatch(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if wrong:
        raise PolicyError(f'{path}: {wrong}')
    save_file(tensors, path, {'format': FORMAT, 'config': json.dumps(config.to_dict())})
    Path(path).chmod(0o644)  # newer safetensors write 0600, which a robot's service user could not read


def load(path: Path) -> tuple[GaussianActor, ActorConfig, dict[str, np.ndarray], str]:
    """Return the network in evaluation mode, its configuration, its embedded instructions, and 12 digits of SHA-256.

    Raises PolicyError when there is no such file or it is not an actor's.
    """
    path = Path(path)
    if not path.is_file():
        raise PolicyError(f'no actor at {path}: vgps-train cal-ql, or vgps-train iql --algorithm.train-actor, leaves '
                          f'one as {FILE} beside the critic')
    try:
        header = read_header(path)
        if header.metadata.get('format') != FORMAT:
            raise PolicyError(f'not the file of an actor ({FORMAT}), but {header.metadata.get("format")!r}: critics '
                              'steer (critic:=FOLDER), and vgps-train-policy\'s files are for flow and binned')
        config = ActorConfig.from_dict(parse_json(header.metadata.get('config', '')))
        wrong = _mismatch(config, header.shapes)
        if wrong:
            raise PolicyError(wrong)
        tensors = load_file(path)
    except UntrustedFileError as error:
        raise PolicyError(str(error)) from error
    except (PolicyError, ValueError, OSError, SafetensorError) as error:
        raise PolicyError(f'{path}: {error}') from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise PolicyError(f'{path}: the weights hold NaN or inf')
    rows = tensors.pop(INSTRUCTIONS).numpy() if config.instructions else ()
    network = build_network(config)
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return network, config, dict(zip(config.instructions, rows)), digest


def _mismatch(config: ActorConfig, shapes: dict[str, tuple[int, ...]]) -> str:
    """Say which weight does not fit the configuration, or nothing; only sizes are made to find out."""
    with torch.device('meta'):
        expected = {name: tuple(tensor.shape) for name, tensor in build_network(config).state_dict().items()}
    if config.instructions:
        expected[INSTRUCTIONS] = (len(config.instructions), config.language_dim)
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            return (f'weights do not fit the configuration: {name} has shape {shapes.get(name)}, expected '
                    f'{expected.get(name)}')
    return ''
