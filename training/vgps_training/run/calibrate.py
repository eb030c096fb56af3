"""`vgps-train calibrate`: keep a critic's values within the range that a discounted return can have.

A network that regresses returns leaves their range where it extrapolates. Its outputs are pressed into it by a
rising curve, `network.bounded`, whose place and steepness are fitted to the returns of recorded episodes that it was
not trained on (Platt scaling, for returns). No ranking changes, so the best candidate stays the best. Differences
between values shrink towards the ends of the range: a temperature beta > 0 draws more evenly there than before, and
what is printed says by how much. Only the last layer and `network.value_range` of the checkpoint change.
"""
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from scipy.optimize import least_squares

from vgps_critic import checkpoint
from vgps_critic.action_space import ActionSpaceError
from vgps_critic.network import CriticNetwork, bounded, build_network
from vgps_critic.text import load_instruction_encoder
from vgps_msgs_py import command_line
from vgps_training.data.labels import LabelConfig
from vgps_training.data.table import StepTable, read_table

BATCH = 64  # frames encoded at a time


@dataclass(frozen=True)
class CalibrateConfig:
    """Keep a critic's values within the range of a discounted return, fitted to episodes it was not trained on.

    Example: vgps-train calibrate runs/iql/critic --data heldout/ --out calibrated

    Next: steer with critic:=calibrated; at beta 0 it chooses what the critic chose before.
    """

    critic: Annotated[str, tyro.conf.Positional]  # checkpoint: folder, owner/name on the hub, or 'default'
    data: tuple[Path, ...]                        # recorded episodes with outcomes, as `vgps-train --data.paths`
    out: Path                                     # folder of the calibrated critic, must not exist


@dataclass(frozen=True)
class Calibrated:
    """A calibration and what it did to the values of what was done in the data."""

    network: CriticNetwork
    gain: float            # of the outputs before they are pressed into the range, > 0
    offset: float
    outside: float         # share of values outside the range before; after it is 0
    error: float           # root mean square of value - return before, discounted steps
    calibrated_error: float
    slope: float           # median over the data of d(value after) / d(value before)


def calibrate(network: CriticNetwork, outputs: np.ndarray, returns: np.ndarray, low: float, high: float) -> Calibrated:
    """Return a copy of a network whose values stay within (low, high).

    Args:
        network: whose outputs these are; a range it may have had is left out.
        outputs: (E, N) float, of its members, without a range.
        returns: (N,) float, that followed.
        low: of a return, -1 / (1 - discount).
        high: of a return, 0.

    Raises:
        ValueError: fewer than two different outputs or returns, which determine nothing.

    """
    if outputs.size < 2 or np.ptp(outputs) == 0 or np.ptp(returns) == 0:
        raise ValueError('all values or all returns are the same: episodes of both outcomes are needed')

    def press(parameters: np.ndarray) -> np.ndarray:
        pressed = math.exp(parameters[0]) * torch.from_numpy(outputs.astype(np.float64)) + parameters[1]
        return bounded(pressed, low, high).numpy()

    fit = least_squares(lambda parameters: (press(parameters) - returns).ravel(), np.zeros(2))
    gain, offset = math.exp(fit.x[0]), float(fit.x[1])
    result = CriticNetwork(replace(network.config, value_range=(low, high)))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state['last.weight'] *= gain
    state['last.bias'] = state['last.bias'] * gain + offset
    result.load_state_dict(state)
    after = press(fit.x)
    share = (after - low) / (high - low)
    return Calibrated(result.eval(), gain, offset, float(((outputs < low) | (outputs > high)).mean()),
                      float(np.sqrt(np.square(outputs - returns).mean())),
                      float(np.sqrt(np.square(after - returns).mean())),
                      float(np.median(4 * gain * share * (1 - share))))


@torch.no_grad()
def outputs_of(network: CriticNetwork, table: StepTable, embeddings: np.ndarray, normalize) -> np.ndarray:
    """Return (E, N) outputs of a network without a range for what was done at every step of a table."""
    language = torch.from_numpy(embeddings)[torch.from_numpy(table.per_step(table.instruction)).long()]
    actions = torch.from_numpy(normalize(table.actions))
    parts = np.array_split(np.arange(len(table)), math.ceil(len(table) / BATCH))
    return torch.cat([network(torch.from_numpy(table.images(part)), language[part], actions[part][:, None])[..., 0]
                      for part in parts], 1).numpy()


def run(config: CalibrateConfig) -> Calibrated:
    """Read, fit, write and tell; raises OSError or ValueError with the reason where that is impossible."""
    if config.out.exists():
        raise ValueError(f'{config.out} exists already: choose another --out')
    state, critic, _ = checkpoint.read(config.critic)
    table, report = read_table(config.data, critic.network.image_size)
    print(report.text())
    network = build_network(replace(critic.network, value_range=None), state, config.critic)
    embeddings = load_instruction_encoder(critic.text_encoder).encode_all(table.instructions)
    outputs = outputs_of(network, table, embeddings, critic.action_space.normalize)
    low, high = -1 / (1 - critic.discount), 0.0
    returns = table.labels(critic.discount, LabelConfig(critic.success_steps))[2]
    found = calibrate(network, outputs, returns, low, high)
    digest = checkpoint.save(config.out, found.network, replace(critic, network=found.network.config))
    print(f'{len(table.starts)} episodes, {len(table)} steps. Values outside {low:.4g} to {high:.4g}: '
          f'{100 * found.outside:.1f} % before, none after. Root mean square of value - return: {found.error:.2f} '
          f'before, {found.calibrated_error:.2f} after.\n'
          f'Between values there are now {found.slope:.2f} times the differences (median): beta = 1 draws as beta = '
          f'{1 / found.slope:.2f} did; beta = 0 chooses the same.\n'
          f'Critic: {config.out}, hash {digest[:12]}\nNext: steer with critic:={config.out}')
    return found


def main(arguments: list[str]) -> None:
    """Run the command line."""
    config = command_line.read(CalibrateConfig, 'vgps-train calibrate', arguments)
    with command_line.refusing('vgps-train calibrate', OSError, ValueError, ActionSpaceError):
        run(config)
