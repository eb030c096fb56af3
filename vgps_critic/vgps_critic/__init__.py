"""The value function Q(s, a, l): network, instruction encoder, checkpoint, scoring, selection."""

from vgps_critic.action_space import ActionSpace, ActionSpaceError
from vgps_critic.checkpoint import CheckpointError, CriticConfig
from vgps_critic.critic import Critic, EncodedObservation
from vgps_critic.network import NetworkConfig
from vgps_critic.selection import Selection, select
from vgps_critic.text import UnknownInstructionError

__all__ = ['ActionSpace', 'ActionSpaceError', 'CheckpointError', 'Critic', 'CriticConfig', 'EncodedObservation',
           'NetworkConfig', 'Selection', 'UnknownInstructionError', 'select']
