"""Offline figures that tell whether a critic can steer, and plots of its values along held-out episodes."""
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vgps_critic.action_space import ActionSpace
from vgps_critic.network import CriticNetwork
from vgps_critic.whole_files import whole
from vgps_training.data.labels import LabelConfig, label
from vgps_training.data.table import StepTable

MAX_EPISODES = 40   # of the held-out ones, so that a validation takes seconds
CURVES = 6          # episodes in the picture
OTHERS = 16         # perturbed and random actions each that the data's action is ranked among
PERTURBATION = 0.2  # standard deviation of the perturbed ones, normalised action units
SEED = 0            # of the actions compared with, the same at every validation


class Validation:
    """Held-out episodes and what a critic says of them."""

    def __init__(self, table: StepTable, episodes: np.ndarray, discount: float, labels: LabelConfig,
                 embeddings: np.ndarray, action_space: ActionSpace):
        self.table, self.embeddings = table, torch.from_numpy(embeddings)
        self.discount, self.labels, self.action_space = discount, labels, action_space
        self.episodes = _spread(episodes, MAX_EPISODES)
        random = np.random.default_rng(SEED)
        others = len(table.instructions) - 1
        shift = random.integers(1, others + 1, len(table.starts)) if others > 0 else np.zeros(len(table.starts), int)
        self.wrong_instruction = (table.instruction + shift) % len(table.instructions)

    @torch.no_grad()
    def run(self, critic: CriticNetwork, device: torch.device, picture: Path | None = None) -> dict[str, float]:
        """Return the metrics; NaN where the held-out data cannot tell (one instruction, no failure, ...).

        `time_to_success_spearman`: of value against steps left, mean over successful episodes.
        `return_spearman`, `return_error`: of value against the return, over all steps.
        `instruction_margin`: value for the right minus a wrong instruction; `instruction_accuracy`: share above 0.
        `data_action_rank_*`: share of perturbed or random actions that beat the data's, 0.5 is chance.
        `disagreement`: between members. `failure_auc`: chance that a success's mean value exceeds a failure's.
        """
        from scipy.stats import spearmanr  # takes as long to import as torch: not at every start of every process
        records = [self._episode(critic, device, int(e)) for e in self.episodes]
        if not records:
            return {}
        good = [r for r in records if r['success'] and len(r['value']) > 2]
        spearman = [spearmanr(r['value'], np.arange(len(r['value']))).statistic for r in good if np.ptp(r['value']) > 0]
        value = np.concatenate([r['value'] for r in records])
        returns = np.concatenate([r['returns'] for r in records])
        margin = np.concatenate([r['value'] - r['wrong'] for r in records])
        several = len(self.table.instructions) > 1
        result = {
            'time_to_success_spearman': _mean(spearman),
            'return_spearman': float(spearmanr(value, returns).statistic) if np.ptp(returns) > 0 else float('nan'),
            'return_error': float(np.abs(value - returns).mean()),
            'instruction_margin': float(margin.mean()) if several else float('nan'),
            'instruction_accuracy': float((margin > 0).mean()) if several else float('nan'),
            'data_action_rank_perturbed': _mean([r['rank_perturbed'] for r in records]),
            'data_action_rank_random': _mean([r['rank_random'] for r in records]),
            'disagreement': float(np.concatenate([r['disagreement'] for r in records]).mean()),
            'failure_auc': _auc([r['value'].mean() for r in records if r['success']],
                                [r['value'].mean() for r in records if not r['success']]),
        }
        if picture is not None:
            draw_curves(records, picture)
        return result

    def _episode(self, critic: CriticNetwork, device: torch.device, episode: int) -> dict:
        start, length = int(self.table.starts[episode]), int(self.table.lengths[episode])
        steps = np.arange(start, start + length)
        images = torch.from_numpy(self.table.images(steps)).to(device)
        actions = torch.from_numpy(self.action_space.normalize(self.table.actions[steps])).to(device)
        returns = label(length, bool(self.table.success[episode]), self.discount, self.labels).returns
        noise = torch.Generator().manual_seed(SEED)
        perturbed = actions[:, None] + PERTURBATION * torch.randn((length, OTHERS, 7), generator=noise).to(device)
        random = 2 * torch.rand((length, OTHERS, 7), generator=noise).to(device) - 1
        candidates = torch.cat([actions[:, None], perturbed.clamp(-1, 1), random], 1)
        right = int(self.table.instruction[episode])
        q = critic.q_values(self._features(critic, images, right, device), candidates)
        q_min = q.amin(0).float().cpu().numpy()  # (T, 1 + 2 * OTHERS)
        wrong = int(self.wrong_instruction[episode])
        q_wrong = critic.q_values(self._features(critic, images, wrong, device), actions[:, None])
        own = q_min[:, :1]
        return {'success': bool(self.table.success[episode]), 'value': q_min[:, 0],
                'wrong': q_wrong.amin(0)[:, 0].float().cpu().numpy(), 'returns': returns,
                'disagreement': (q[..., 0].amax(0) - q[..., 0].amin(0)).float().cpu().numpy(),
                'rank_perturbed': float((q_min[:, 1:OTHERS + 1] > own).mean()),
                'rank_random': float((q_min[:, OTHERS + 1:] > own).mean()),
                'instruction': self.table.instructions[right], 'other': self.table.instructions[wrong],
                'source': self.table.sources[episode]}

    def _features(self, critic: CriticNetwork, images: Tensor, instruction: int, device: torch.device) -> Tensor:
        language = self.embeddings[instruction][None].to(device)
        return torch.cat([critic.encoder(part, language.expand(len(part), -1)) for part in images.split(32)])


def draw_curves(records: list[dict], picture: Path) -> None:
    """Draw values along episodes, for the right and a wrong instruction, beside the return that followed."""
    from matplotlib.figure import Figure
    successes = [r for r in records if r['success']]
    failures = [r for r in records if not r['success']]
    shown = (failures[:CURVES // 2] + successes)[:CURVES] if failures else successes[:CURVES]
    figure = Figure(figsize=(4 * min(3, len(shown)), 2.8 * -(-len(shown) // 3)), layout='constrained')
    axes = np.ravel(figure.subplots(-(-len(shown) // 3), min(3, len(shown))))
    for ax, record in zip(axes, shown):
        ax.plot(record['returns'], color='0.6', linestyle='--', label='return of the episode')
        ax.plot(record['value'], label=f'Q: {record["instruction"] or "(empty)"}')
        if record['other'] != record['instruction']:
            ax.plot(record['wrong'], label=f'Q: {record["other"] or "(empty)"}')
        ax.set(title='success' if record['success'] else 'failure', xlabel='step', ylabel='value [discounted steps]')
        ax.legend(fontsize=6)
    for ax in axes[len(shown):]:
        ax.set_axis_off()
    with whole(picture) as temporary:
        figure.savefig(temporary, dpi=90)


def _spread(episodes: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` episodes, evenly over the list."""
    if len(episodes) <= count:
        return episodes
    return episodes[np.linspace(0, len(episodes) - 1, count).astype(int)]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if len(values) else float('nan')


def _auc(good: list[float], bad: list[float]) -> float:
    """Return the probability that a draw of `good` exceeds one of `bad` (Mann-Whitney), NaN where one is empty."""
    if not good or not bad:
        return float('nan')
    from scipy.stats import rankdata
    ranks = rankdata(np.concatenate([good, bad]))[:len(good)]
    return float((ranks.sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))
