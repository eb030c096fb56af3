"""The value function Q(s, a, l): network, instruction encoder, checkpoint, scoring, selection."""

import os
from importlib import import_module

# OpenMP's threads would spin at every barrier for a core that somebody else has. Read once, when torch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

_HOME = {
    'ActionSpace': 'action_space', 'ActionSpaceError': 'action_space',
    'CheckpointError': 'config', 'CriticConfig': 'config', 'NetworkConfig': 'config',
    'Critic': 'critic', 'EncodedObservation': 'critic',
    'Selection': 'selection', 'select': 'selection',
    'UnknownInstructionError': 'text',
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a public name when it is first used: tools that only copy weights need no torch."""
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
