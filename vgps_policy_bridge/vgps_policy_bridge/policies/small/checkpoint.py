"""One .safetensors file per policy: weights, and the configuration as JSON in the header. No pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vgps_msgs_py.safetensors_header import UntrustedFileError, parse_json, read_header
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
        header = read_header(path)
        if header.metadata.get('format') != FORMAT:
            raise PolicyError(f'{path} is not a checkpoint of a small policy ({FORMAT}): '
                              f'{header.metadata.get("format")!r}')
        config = SmallConfig.from_dict(parse_json(header.metadata.get('config', '')))
        with torch.device('meta'):  # sizes only: nothing is allocated before they are known to be the file's
            expected = {name: tuple(tensor.shape) for name, tensor in build_network(config).state_dict().items()}
    except UntrustedFileError as error:
        raise PolicyError(str(error)) from error
    except (PolicyError, ValueError) as error:
        raise PolicyError(f'{path}: {error}') from error
    wrong = sorted(name for name in expected.keys() | header.shapes.keys()
                   if expected.get(name) != header.shapes.get(name))
    if wrong:
        raise PolicyError(f'{path}: weights do not fit the configuration: {wrong[0]} has shape '
                          f'{header.shapes.get(wrong[0])}, expected {expected.get(wrong[0])}')
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PolicyError(f'{path} is not a safetensors file: {error}') from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise PolicyError(f'{path}: the weights hold NaN or inf')
    network = build_network(config)
    network.load_state_dict(weights)
    return network.eval(), hashlib.sha256(path.read_bytes()).hexdigest()[:12]
