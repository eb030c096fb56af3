"""A critic on disk: `model.safetensors`, `config.json` and a model card, in a folder or on the Hugging Face hub.

Everything needed to score an action travels inside. A load is complete and verified, or it raises `CheckpointError`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vgps_critic.action_space import ActionSpace
from vgps_critic.model_card import model_card
from vgps_critic.network import CriticNetwork, NetworkConfig
from vgps_critic.text import MUSE

FORMAT = 'vgps-critic/1'
WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'


class CheckpointError(ValueError):
    """The checkpoint is missing, damaged or foreign; the message names the file and the key."""


@dataclass(frozen=True)
class CriticConfig:
    """What a critic is and where it comes from."""

    action_space: ActionSpace  # bounds the network's actions were normalised with
    network: NetworkConfig = field(default_factory=NetworkConfig)
    text_encoder: str = MUSE  # identity of the instruction encoder it was trained with
    discount: float = 0.98  # gamma, 0..1 per step
    success_steps: int = 3  # H: last steps of a demonstration that count as success
    algorithm: str = ''  # what trained it: cal-ql, iql, untrained, ...
    data: str = ''  # what it was trained on
    step: int = 0  # updates

    @property
    def image_size(self) -> int:
        """Side of the square input, pixels."""
        return self.network.image_size

    def to_dict(self) -> dict:
        """Return a JSON-ready dictionary."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> 'CriticConfig':
        """Build from `to_dict()`'s output; raises `CheckpointError` naming the key that is missing or wrong."""
        known = {f.name for f in fields(cls)}
        for key in sorted(known ^ set(values)):
            raise CheckpointError(f'{CONFIG}: {"missing" if key in known else "unknown"} key {key!r}')
        try:
            network = NetworkConfig(**values['network'])
            action_space = ActionSpace(**values['action_space'])
        except (TypeError, ValueError) as e:
            raise CheckpointError(f'{CONFIG}: {e}') from e
        return cls(**{**values, 'network': network, 'action_space': action_space})


def content_hash(state: dict[str, torch.Tensor], config: CriticConfig) -> str:
    """Return the SHA-256 over every weight's name, shape and bytes, and the configuration."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f'{name}{tuple(tensor.shape)}{tensor.dtype}'.encode())
        digest.update(tensor.numpy())
    return digest.hexdigest()


def save(folder: str | Path, network: CriticNetwork, config: CriticConfig) -> str:
    """Write the checkpoint's three files into `folder` (made if absent) and return the content hash."""
    if network.config != config.network:
        raise ValueError(f'network is {network.config}, but its configuration says {config.network}')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    digest = content_hash(state, config)
    save_file(state, folder / WEIGHTS, metadata={'format': 'pt'})
    (folder / CONFIG).write_text(json.dumps({'format': FORMAT, 'hash': digest, **config.to_dict()}, indent=2) + '\n')
    (folder / CARD).write_text(model_card(config, digest))
    return digest


def load(path_or_hub_id: str | Path, revision: str | None = None) -> tuple[CriticNetwork, CriticConfig, str]:
    """Read a checkpoint and return its network (CPU, eval mode), configuration and content hash.

    Args:
        path_or_hub_id: a folder, or `owner/name` on the Hugging Face hub; a cached copy is used when offline.
        revision: branch, tag or commit on the hub.

    Raises:
        CheckpointError: anything missing, damaged, of another shape, or not what the hash says.

    """
    folder = _locate(str(path_or_hub_id), revision)
    try:
        values = json.loads((folder / CONFIG).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise CheckpointError(f'{folder / CONFIG}: {e}') from e
    if not isinstance(values, dict) or values.pop('format', None) != FORMAT:
        raise CheckpointError(f'{folder / CONFIG}: not a critic of ours, key "format" is not {FORMAT!r}')
    expected_hash = values.pop('hash', None)
    config = CriticConfig.from_dict(values)
    try:
        # copied out of the memory map: its odd alignment picks other kernels, whose last digits differ
        state = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as e:
        raise CheckpointError(f'{folder / WEIGHTS}: {e}') from e
    network = build_network(config.network, state, str(folder / WEIGHTS))
    digest = content_hash(state, config)
    if digest != expected_hash:
        raise CheckpointError(f'{folder}: content hash is {digest}, {CONFIG} says {expected_hash}: file changed?')
    return network, config, digest


def build_network(config: NetworkConfig, state: dict[str, torch.Tensor], where: str) -> CriticNetwork:
    """Return a network in eval mode that holds exactly `state`; raises `CheckpointError` naming the first misfit."""
    with torch.device('meta'):  # no random weights are made only to be overwritten
        network = CriticNetwork(config)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for name in sorted(expected.keys() | state.keys()):
        if name not in state:
            raise CheckpointError(f'{where}: key {name} is missing')
        if name not in expected:
            raise CheckpointError(f'{where}: key {name} is not part of this network')
        tensor = state[name]
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f'{where}: key {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name])}')
        if tensor.dtype != torch.float32:
            raise CheckpointError(f'{where}: key {name} is {tensor.dtype}, expected torch.float32')
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f'{where}: key {name} holds NaN or inf')
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def shipped(name: str) -> str:
    """Return the folder of a checkpoint that comes with the package (`default`), else the name unchanged."""
    folder = Path(__file__).parent / 'checkpoints' / name
    if name == 'default' and not folder.is_dir():
        raise CheckpointError(f"no critic is shipped as 'default' (looked in {folder}): give a folder or hub id")
    return str(folder) if name == 'default' else name


def _locate(path_or_hub_id: str, revision: str | None) -> Path:
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        return folder
    if path_or_hub_id.count('/') != 1 or path_or_hub_id.startswith(('.', '/', '~')):
        raise CheckpointError(f'{path_or_hub_id}: no such folder, and not a hub id of the form owner/name')
    try:
        return Path(snapshot_download(path_or_hub_id, revision=revision, allow_patterns=[WEIGHTS, CONFIG]))
    except Exception as e:  # the client raises a dozen unrelated types for "not there" and "no network"
        raise CheckpointError(
            f'{path_or_hub_id}: no such folder, neither on the hub nor in its local cache: {e}') from e
