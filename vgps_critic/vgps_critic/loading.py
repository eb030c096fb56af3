"""What critic_node needs before its first frame: critic, instruction encoder, outlook; all of it or an error."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from vgps_critic import checkpoint
from vgps_critic.config import CheckpointError, CriticNodeConfig
from vgps_critic.critic import Critic
from vgps_critic.outlook import Outlook

STAND_IN = dict(num_filters=8, image_size=64)  # of the untrained critic


@dataclass(frozen=True)
class Loaded:
    """A critic ready to steer."""

    critic: Critic
    outlook: Outlook | None
    name: str  # for people: where it comes from


def load(config: CriticNodeConfig, warn: Callable[[str], None]) -> Loaded:
    """Load critic, instruction encoder and outlook and run the first two once.

    Raises:
        ValueError: something is missing, damaged or does not fit (also as `CheckpointError`); the text says what.

    """
    outlook = None
    options = dict(device=config.device, runtime=config.runtime, precision=config.precision,
                   instructions=config.instruction_encoder)
    try:
        if config.critic in ('', 'untrained'):
            critic = Critic.untrained(options=options, **STAND_IN)
            name = 'untrained network with random weights: its choices are meaningless'
            warn(f"critic is an {name}; set parameter 'critic' to a checkpoint")
        else:
            folder = checkpoint.locate(config.critic)
            critic, outlook = Critic.load(folder, **options), Outlook.load(folder)
            registered = (checkpoint.CURRENT in {path.name for path in folder.parent.iterdir()}
                          and checkpoint.locate(str(folder.parent)) == folder)
            name = f'{config.critic} ({folder.name}, the current one)' if registered else config.critic
        if config.outlook:
            outlook = Outlook.load(checkpoint.locate(config.outlook))
            if outlook is None:
                raise CheckpointError(f'{config.outlook} holds no outlook; vgps-improve makes one')
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            _ = critic.instructions  # made now, not at the first frame
        for warning in caught:
            warn(f'{warning.category.__name__}: {warning.message}')
    except (ImportError, RuntimeError, AssertionError) as e:
        raise ValueError(str(e)) from e
    return Loaded(critic, outlook, name)
