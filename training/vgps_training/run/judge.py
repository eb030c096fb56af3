"""`vgps-train judge`: the figures of a validation, for critics and recordings of one's choice."""
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from vgps_critic import checkpoint
from vgps_critic.network import build_network
from vgps_critic.text import load_instruction_encoder
from vgps_critic.whole_files import whole
from vgps_msgs_py import command_line
from vgps_training.data.labels import LabelConfig
from vgps_training.data.table import read_table
from vgps_training.run.validation import Validation


@dataclass(frozen=True)
class JudgeConfig:
    """Say how well critics judge recorded episodes that none of them was trained on.

    Example: vgps-train judge runs/iql/critic runs/cal-ql/critic --data heldout/

    Next: leave out critics with a low failure_auc or time_to_success_spearman, which are wrong about outcomes, and
    compare in trials those with the highest action_auc: vgps-evaluate trials --help
    """

    critics: Annotated[tuple[str, ...], tyro.conf.Positional]  # checkpoints: folders, owner/name on the hub, 'default'
    data: tuple[Path, ...]                                     # recorded episodes, as `vgps-train --data.paths`
    episodes: int = 1000                                       # episodes at most, taken evenly over the data
    instruction_encoder: str = 'muse-numpy'                    # as `vgps-train --data.instruction-encoder`
    out: Path | None = None                                    # JSON file for the figures, by critic


def judge(config: JudgeConfig) -> dict[str, dict[str, float]]:
    """Return the validation's figures by critic; raises OSError or ValueError with the reason where it cannot."""
    if not config.critics:
        raise ValueError('name at least one critic to judge')
    tables, result, encoded = {}, {}, {}
    for name in config.critics:
        state, critic, _ = checkpoint.read(name)
        size = critic.network.image_size
        if size not in tables:
            tables[size], report = read_table(config.data, size)
            print(report.text())
        table = tables[size]
        encoder = load_instruction_encoder(critic.text_encoder, config.instruction_encoder)
        embeddings = encoder.encode_all(table.instructions)
        validation = Validation(table, np.arange(len(table.starts)), critic.discount, LabelConfig(critic.success_steps),
                                embeddings, critic.action_space, config.episodes)
        weights = (state[key].tobytes() for key in sorted(state) if key.startswith('encoder.'))
        encoder_hash = hashlib.sha256(b''.join(weights)).hexdigest()  # critics of one study often share their encoder
        validation.encoded = encoded.setdefault((size, critic.text_encoder, encoder_hash), {})
        result[name] = validation.run(build_network(critic.network, state, name), torch.device('cpu'))
        lines = [f'  {figure}: {value:.3f}' for figure, value in result[name].items()]
        print('\n'.join(['', name, *lines]), flush=True)
    if config.out:
        with whole(config.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + '\n')
    return result


def main(arguments: list[str]) -> None:
    """Run the command line."""
    config = command_line.read(JudgeConfig, 'vgps-train judge', arguments)
    with command_line.refusing('vgps-train judge', OSError, ValueError):
        judge(config)
