"""The value function Q(s, a, l): network, instruction encoder, checkpoint, scoring, selection."""

from vgps_critic.action_space import ActionSpace, ActionSpaceMismatch
from vgps_critic.checkpoint import CheckpointError, CriticConfig
from vgps_critic.critic import Critic, EncodedObservation
from vgps_critic.network import NetworkConfig
from vgps_critic.selection import Selection, select
from vgps_critic.text import UnknownInstruction

__all__ = ['ActionSpace', 'ActionSpaceMismatch', 'CheckpointError', 'Critic', 'CriticConfig', 'EncodedObservation',
           'NetworkConfig', 'Selection', 'UnknownInstruction', 'select']
