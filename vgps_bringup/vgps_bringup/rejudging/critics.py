"""Critics by the names people give on a command line."""

import sys
from pathlib import Path


def load_critics(names: list[str]) -> dict[str, object]:
    """Load checkpoints: a folder, a hub id, ``default`` (shipped) or ``untrained`` (random weights, full width).

    Raises:
        SystemExit: a checkpoint cannot be used.

    """
    from vgps_critic.checkpoint import CheckpointError  # torch: only where a critic is asked for
    from vgps_critic.critic import Critic
    critics = {}
    for name in names:
        try:
            critic = Critic.untrained() if name == 'untrained' else Critic.load(name)
        except (CheckpointError, OSError, ValueError) as error:
            sys.exit(f'vgps-evaluate: critic {name}: {error}')
        label = Path(name).name or name
        critics[label if label not in critics else name] = critic
    return critics


def load_critic(name: str):
    """Load one checkpoint, as ``load_critics``."""
    return next(iter(load_critics([name]).values()))
