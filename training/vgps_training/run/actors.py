"""The actor that Cal-QL or IQL trains, kept beside the critic as a policy: `policy:=actor` plays it."""
from dataclasses import replace
from pathlib import Path

import numpy as np

from vgps_critic.config import CriticConfig
from vgps_msgs_py.embeddings import MUSE_NUMPY
from vgps_policy_bridge.policies.actor.checkpoint import FILE, ActorConfig, save
from vgps_policy_bridge.policies.actor.network import GaussianActor
from vgps_training.data.table import StepTable


class ActorWriter:
    """Writes actors with what the policy needs besides their weights."""

    def __init__(self, critic: CriticConfig, table: StepTable, embeddings: np.ndarray):
        """Take the critic's configuration, the data, and the embeddings (I, L) of the data's instructions."""
        network, space = critic.network, critic.action_space
        anything = critic.text_encoder == MUSE_NUMPY  # then the policy embeds what it is asked for, and needs no table
        self._embeddings = None if anything else embeddings
        self._config = ActorConfig(
            algorithm=critic.algorithm, action_low=space.low, action_high=space.high, stage_sizes=network.stage_sizes,
            num_filters=network.num_filters, image_size=network.image_size, hidden_dims=network.hidden_dims,
            language_dim=network.language_dim, text_encoder=critic.text_encoder,
            instructions=() if anything else table.instructions,
            binary_gripper=bool(np.isin(table.actions[:, 6], (0.0, 1.0)).all()), data=critic.data)

    def write(self, folder: Path, actor: GaussianActor, critic: str, step: int) -> None:
        """Write an actor that takes images into the folder of the critic with this content hash."""
        save(folder / FILE, actor.state_dict(), replace(self._config, critic=critic, step=step), self._embeddings)
