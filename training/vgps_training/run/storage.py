"""Files of a run. Every write is atomic: a reader, or a kill at any instant, sees the old file or the new one."""
import os
import shutil
from pathlib import Path

import torch
from torch import nn

from vgps_critic import checkpoint
from vgps_critic.config import CriticConfig

STATE = 'state.pt'
CRITIC = 'critic'


def save_state(folder: Path, state: dict) -> None:
    """Write the state a run continues from."""
    temporary = folder / f'.{STATE}.tmp'
    with temporary.open('wb') as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE)


def load_state(folder: Path) -> dict | None:
    """Return the saved state, or None where the run has none."""
    path = folder / STATE
    return torch.load(path, map_location='cpu', weights_only=True) if path.exists() else None


def save_critic(folder: Path, network: nn.Module, config: CriticConfig) -> str:
    """Write the critic that `vgps_critic.Critic.load` reads into `folder`/critic and return its hash.

    A folder cannot be replaced in one call: the new one is complete before the old one is moved away.
    """
    target, temporary, old = folder / CRITIC, folder / f'.{CRITIC}.tmp', folder / f'.{CRITIC}.old'
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    digest = checkpoint.save(temporary, network, config)
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return digest
