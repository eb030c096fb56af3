"""A critic on disk: `model.safetensors`, `config.json` and a model card, in a folder or on the Hugging Face hub.

Everything needed to score an action travels inside. A load is complete and verified, or it raises `CheckpointError`.
The file names are those of `PyTorchModelHubMixin`; its `from_pretrained` is not used, because it loads partially in
silence.
"""

import contextlib
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vgps_critic import foreign
from vgps_critic.config import CheckpointError, CriticConfig
from vgps_critic.model_card import model_card
from vgps_msgs_py.safetensors_header import UntrustedFileError, read_header, read_json

FORMAT = 'vgps-critic/1'
WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
CURRENT = 'current.json'  # of a registry: a folder of critics of which one steers
SHIPPED = Path(__file__).parent / 'checkpoints' / 'default'  # what comes with the package


def content_hash(state: dict[str, np.ndarray], config: CriticConfig) -> str:
    """Return the SHA-256 (hex) over every weight's name, type, shape and bytes, and the configuration."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name in sorted(state):
        digest.update(f'{name} {state[name].dtype} {state[name].shape}'.encode())
        digest.update(np.ascontiguousarray(state[name]).view(np.uint8))
    return digest.hexdigest()


def state_arrays(network) -> dict[str, np.ndarray]:
    """Return a `CriticNetwork`'s weights as contiguous arrays by name."""
    return {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in network.state_dict().items()}


def save(folder: str | Path, network, config: CriticConfig) -> str:
    """Write a `CriticNetwork` with its configuration, see `write`."""
    if network.config != config.network:
        raise ValueError(f'the network is {network.config}, but its configuration says {config.network}')
    return write(folder, state_arrays(network), config)


def write(folder: str | Path, state: dict[str, np.ndarray], config: CriticConfig) -> str:
    """Write the checkpoint's three files into `folder` (made if absent) and return the content hash.

    Args:
        folder: overwritten where it holds a checkpoint.
        state: name -> float32 weights, as `CriticNetwork.state_dict()` names them.
        config: of the same network.

    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digest = content_hash(state, config)
    save_file(state, folder / WEIGHTS, metadata={'format': 'pt'})
    (folder / WEIGHTS).chmod(0o644)  # newer safetensors write 0600, which a robot's service user could not read
    (folder / CONFIG).write_text(json.dumps({'format': FORMAT, 'hash': digest, **config.to_dict()}, indent=2) + '\n')
    (folder / CARD).write_text(model_card(config, digest))
    return digest


def copy(source: str, folder: Path) -> None:
    """Write the three files of a checkpoint, named as in `read`, into `folder`; raises as `read` does."""
    read(source)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CONFIG, CARD):
        if (locate(source) / name).exists():
            shutil.copyfile(locate(source) / name, folder / name)


def read(path_or_hub_id: str | Path, revision: str | None = None) -> tuple[dict[str, np.ndarray], CriticConfig, str]:
    """Read a checkpoint and return its weights, configuration and content hash.

    Args:
        path_or_hub_id: a folder; `owner/name` or `owner/name@revision` on the Hugging Face hub, where a cached copy is
            used when offline; or `default`, the critic that comes with the package; or a registry, whose current
            critic is meant.
        revision: branch, tag or commit on the hub.

    Raises:
        CheckpointError: anything missing or damaged, or not what the hash says.

    """
    folder = locate(str(path_or_hub_id), revision)
    where = str(folder / CONFIG)
    try:
        values = read_json(folder / CONFIG)
        if not isinstance(values, dict) or values.pop('format', None) != FORMAT:
            raise UntrustedFileError(f'{where}: not a critic of this project, its key "format" is not {FORMAT!r}')
        expected_hash = values.pop('hash', None)
        config = CriticConfig.from_dict(values, where)
        shapes = read_header(folder / WEIGHTS).shapes
    except UntrustedFileError as e:
        known = foreign.describe(folder)
        raise CheckpointError(f'{folder} {known}' if known else str(e)) from e
    try:
        config.network.check_shapes(shapes)
    except ValueError as e:
        raise CheckpointError(f'{folder / WEIGHTS}: {e}') from e
    try:
        # copied out of the memory map: its odd alignment picks other kernels, whose last digits differ
        state = {name: array.copy() for name, array in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as e:
        raise CheckpointError(f'{folder / WEIGHTS}: {e}') from e
    digest = content_hash(state, config)
    if digest != expected_hash:
        raise CheckpointError(f'{folder}: content hash is {digest}, {CONFIG} says {expected_hash}: was the file '
                              'changed?')
    return state, config, digest


def locate(path_or_hub_id: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint, named as in `read`; of a registry, that of its current critic.

    Raises:
        CheckpointError: no such folder, nothing on the hub, or a registry without a current critic.

    """
    try:
        folder = SHIPPED if path_or_hub_id == 'default' else Path(path_or_hub_id).expanduser()
        is_registry = (folder / CURRENT).is_file()
    except (OSError, RuntimeError, ValueError) as e:  # too long, or the home of a user who is not there
        raise CheckpointError(f'{path_or_hub_id[:200]!r} cannot be a folder: {str(e)[:200]}') from e
    if is_registry:
        try:
            name = read_json(folder / CURRENT)['current']
        except (UntrustedFileError, KeyError, TypeError) as e:
            raise CheckpointError(f'{folder / CURRENT} does not say which critic is current: {e}') from e
        if not (isinstance(name, str) and len(name) <= 64 and name.isalnum() and (folder / name).is_dir()):
            raise CheckpointError(f'{folder / CURRENT} names {str(name)[:80]!r}, which is not a critic in this folder')
        return folder / name
    if folder.is_dir():
        return folder
    if path_or_hub_id == 'default':
        raise CheckpointError(f"no critic is shipped as 'default' (looked in {folder}): give a folder or hub id")
    if known := foreign.describe(folder):
        raise CheckpointError(f'{folder} {known}')
    name, at, pinned = path_or_hub_id.partition('@')
    if name.count('/') != 1 or name.startswith(('.', '/', '~')) or bool(at) != bool(pinned):
        raise CheckpointError(f'{path_or_hub_id}: no such folder, and not a hub id of the form owner/name or '
                              'owner/name@revision')
    if revision and pinned and revision != pinned:
        raise CheckpointError(f'{path_or_hub_id} names a revision, but {revision} was given, too: give only one')
    from huggingface_hub import snapshot_download  # half a second that a local folder should not cost
    wanted = {'revision': revision or pinned or None, 'allow_patterns': [WEIGHTS, CONFIG]}
    try:
        return Path(snapshot_download(name, **wanted))
    except Exception as e:  # the client raises a dozen unrelated types for "not there" and "no network"
        # huggingface-hub 1.33 asks the network for a commit even where the cache holds it. A commit never changes; of a
        # branch or tag the cache may hold an older state, which must not pass for what was asked for
        if re.fullmatch('[0-9a-f]{40}', revision or pinned or ''):
            with contextlib.suppress(Exception):
                return Path(snapshot_download(name, **wanted, local_files_only=True))
        raise CheckpointError(
            f'{path_or_hub_id}: not a folder, and not found on the hub or in its local cache: {e}') from e
