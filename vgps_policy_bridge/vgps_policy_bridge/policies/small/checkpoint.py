"""One .safetensors file per policy: weights, and the configuration as JSON in the header. No pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policies.small.binned import BinnedNetwork
from vgps_policy_bridge.policies.small.config import SmallConfig
from vgps_policy_bridge.policies.small.flow import FlowNetwork

FORMAT = 'vgps-small-policy-1'


def build_network(config: SmallConfig) -> nn.Module:
    """Return an untrained network of the configured kind."""
    return {'flow': FlowNetwork, 'binned': BinnedNetwork}[config.kind](config)


def save(path: Path, network: nn.Module) -> None:
    """Write weights and configuration; replaces the file at once, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + '.part')
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary,
              {'format': FORMAT, 'config': json.dumps(network.config.to_dict())})
    temporary.replace(path)


def load(path: Path) -> tuple[nn.Module, str]:
    """Return the network in evaluation mode and the first 12 digits of the file's SHA-256.

    Raises PolicyError when there is no such file or it is not a small policy's checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise PolicyError(f'no checkpoint at {path}; train one with vgps-train-policy')
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise PolicyError(f'{path} is not a safetensors file: {error}') from error
    if metadata.get('format') != FORMAT:
        raise PolicyError(f'{path} is not a checkpoint of a small policy ({FORMAT}): {metadata.get("format")!r}')
    network = build_network(SmallConfig.from_dict(json.loads(metadata['config'])))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise PolicyError(f'{path}: weights do not fit the configuration: {error}') from error
    return network.eval(), hashlib.sha256(path.read_bytes()).hexdigest()[:12]
