"""Validation figures of critics whose quality is known, and the tools around a run."""
import json
import sys

import numpy as np
import pytest
import torch
from bag_factory import BagFactory
from synthetic import INSTRUCTIONS, config, embedding, make
from torch import nn

from vgps_critic.action_space import ActionSpace
from vgps_training.data import inspect_data
from vgps_training.data.labels import LabelConfig
from vgps_training.data.table import read_table
from vgps_training.run import train
from vgps_training.run.judge import main as judge
from vgps_training.run.loop import Run
from vgps_training.run.push import PushConfig, push
from vgps_training.run.train import parse
from vgps_training.run.validation import BEST_BY, Validation, improves

pytestmark = pytest.mark.slow


class KnownCritic(nn.Module):
    """Values by a formula of (image, language, action)."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def encoder(self, images, language):
        return torch.cat([images.float().reshape(len(images), -1), language], 1)

    def q_values(self, features, actions):
        q = self.formula(features[:, :-512], features[:, -512:], actions)
        return torch.stack([q, q + 0.5])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('data')
    make(path, episodes=20)
    return path


def metrics(folder, formula, picture=None):
    table, _ = read_table([folder / 'table'], 64, progress=False)
    embeddings = np.stack([embedding(text) for text in INSTRUCTIONS])
    returns = table.labels(0.98, LabelConfig())[2]
    validation = Validation(table, np.arange(20), 0.98, LabelConfig(), embeddings, ActionSpace.named('bridge'))
    return validation.run(KnownCritic(formula), torch.device('cpu'), picture), table, returns


def test_perfect_critic_gets_perfect_figures(folder, tmp_path):
    table, _ = read_table([folder / 'table'], 64, progress=False)
    returns = table.labels(0.98, LabelConfig())[2]
    known = {frame.tobytes(): value for frame, value in zip(table.frames, returns)}
    right = {frame.tobytes(): i for frame, i in zip(table.frames, table.per_step(table.instruction))}
    actions = {f.tobytes(): a for f, a in zip(table.frames, ActionSpace.named('bridge').normalize(table.actions))}
    texts = torch.from_numpy(np.stack([embedding(text) for text in INSTRUCTIONS]))

    def formula(images, language, candidates):
        keys = [i.numpy().astype(np.uint8).tobytes() for i in images]
        value = torch.tensor([known[k] for k in keys])
        told = (language @ texts.T).argmax(1)
        wrong = torch.tensor([float(right[k]) for k in keys]) != told
        best = torch.from_numpy(np.stack([actions[k] for k in keys]))
        return (value - 10 * wrong)[:, None] - (candidates - best[:, None]).norm(dim=-1)

    result, _, _ = metrics(folder, formula, tmp_path / 'curves.png')
    assert result['return_spearman'] == pytest.approx(1) and result['failure_auc'] == 1
    assert result['time_to_success_spearman'] > 0.8  # the last three steps are tied at 0
    assert result['instruction_accuracy'] == 1 and result['instruction_margin'] == pytest.approx(10, rel=1e-4)
    assert result['data_action_rank_random'] == 0 == result['data_action_rank_perturbed']
    assert result['disagreement'] == pytest.approx(0.5) and result['return_error'] < 1e-4
    assert (tmp_path / 'curves.png').stat().st_size > 1000


def test_critic_that_ignores_everything_is_seen_through(folder):
    noise = torch.Generator().manual_seed(0)
    result, _, _ = metrics(folder, lambda images, language, a: torch.rand(a.shape[:2], generator=noise))
    assert abs(result['return_spearman']) < 0.25 and 0.3 < result['instruction_accuracy'] < 0.7
    assert 0.4 < result['data_action_rank_random'] < 0.6


@pytest.mark.parametrize('taste, auc, rank', [(0, 0.5, 0.5), (1, 1, None), (-1, 0, None)])
def test_taste_in_actions_is_told_apart_from_the_value_of_states(folder, taste, auc, rank):
    """Taste 1 likes what was done in successes and dislikes it in failures, -1 the contrary, 0 sees no action."""
    table, _ = read_table([folder / 'table'], 64, progress=False)
    actions = ActionSpace.named('bridge').normalize(table.actions)
    good = {f.tobytes(): (float(s), a) for f, s, a in zip(table.frames, table.per_step(table.success), actions)}

    def formula(images, language, candidates):
        known = [good[i.numpy().astype(np.uint8).tobytes()] for i in images]
        success = torch.tensor([s for s, _ in known])[:, None]
        done = torch.from_numpy(np.stack([a for _, a in known]))[:, None]
        return success + taste * (1 - 2 * success) * 1e-3 * (candidates - done).norm(dim=-1)

    result, _, _ = metrics(folder, formula)
    assert result['failure_auc'] == 1 and result['action_auc'] == auc
    assert rank is None or result['data_action_rank_moments'] == rank == result['data_action_rank_perturbed']


@pytest.mark.parametrize('metrics, best, by', [
    ({'action_auc': 0.7, 'data_action_rank_moments': 0.4}, None, 'action_auc'),
    ({'action_auc': 0.7, 'data_action_rank_moments': 0.1}, {'step': 2, 'action_auc': 0.8}, None),
    ({'action_auc': 0.7}, {'step': 2, 'action_auc': 0.7}, None),
    ({'action_auc': float('nan'), 'data_action_rank_moments': 0.2}, {'step': 2, 'data_action_rank_moments': 0.3},
     'data_action_rank_moments'),
    ({'action_auc': 0.6, 'data_action_rank_moments': 0.4}, {'step': 2, 'data_action_rank_moments': 0.3},
     'action_auc'),  # a run of an earlier version goes on
    ({'action_auc': float('nan'), 'data_action_rank_moments': float('nan')}, None, None), ({}, None, None)])
def test_best_is_decided_by_the_first_figure_that_the_held_out_episodes_can_tell(metrics, best, by):
    assert improves(metrics, best) == by


def test_critics_are_judged_by_recordings_of_choice(folder, capsys, tmp_path):
    Run(config(folder, out='judged', steps=2), quiet=True).train()
    critic, out = str(folder / 'judged/critic'), tmp_path / 'figures.json'
    judge([critic, '--data', str(folder / 'table'), '--out', str(out), '--instruction-encoder',
           str(folder / 'text.npz')])
    figures = json.loads(out.read_text())[critic]
    assert 0 <= figures['action_auc'] <= 1 and critic in capsys.readouterr().out
    with pytest.raises(SystemExit, match='vgps-train judge: .*nowhere'):
        judge(['nowhere', '--data', str(folder / 'table')])


def test_inspection_names_what_is_in_the_data(folder, tmp_path, capsys):
    inspect_data.inspect(inspect_data.InspectConfig((folder / 'table',), tmp_path / 'report', image_size=64))
    text = capsys.readouterr().out
    assert '20 episodes' in text and 'failures: 7' in text and all(i in text for i in INSTRUCTIONS)
    assert {p.name for p in (tmp_path / 'report').iterdir()} == {'report.txt', 'contact_sheet.png', 'histograms.png'}


def test_inspection_counts_an_outcome_that_nobody_judged_as_none(tmp_path, capsys):
    bag = BagFactory(tmp_path / 'bag')
    for name, outcome in (('good', 1), ('cancelled', 4)):
        bag.whole_episode(name, 'go', outcome)
    bag.close()
    inspect_data.inspect(inspect_data.InspectConfig((tmp_path / 'bag',), tmp_path / 'report', image_size=64))
    text = capsys.readouterr().out
    assert 'successes: 1, failures: 0' in text and '1 x outcome was never judged' in text
    assert 'not checked: that turns, usually ' in text and 'videos' not in text  # without states, and a bag


@pytest.mark.parametrize('module, arguments', [(inspect_data, ('inspect', 'nowhere')),
                                               (train, ('push', 'nowhere', 'owner/name'))])
def test_what_is_not_there_is_named_without_a_traceback(module, arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['vgps', *arguments])
    with pytest.raises(SystemExit, match='vgps-.*: .*nowhere'):
        module.main()


def test_dry_run_of_push_checks_the_critic_and_uploads_nothing(folder, monkeypatch, capsys):
    Run(config(folder, out='pushed', steps=2), quiet=True).train()
    monkeypatch.setattr('vgps_training.run.push.HfApi', None)  # any use would raise
    names = push(PushConfig(folder / 'pushed', 'owner/name', dry_run=True))
    assert names == ['model.safetensors', 'config.json', 'README.md']
    assert 'nothing was uploaded' in capsys.readouterr().out
    weights = folder / 'pushed/critic/model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match='model.safetensors'):
        push(PushConfig(folder / 'pushed', 'owner/name', dry_run=True))


def test_options_change_a_preset():
    chosen = parse(['cal-ql', '--preset', 'reference', '--data', 'a', 'b', '--algorithm.alpha', '1', '--out', 'x'])
    assert (chosen.algorithm.alpha, chosen.algorithm.td_scale, chosen.batch_size) == (1.0, 1.0, 256)
    assert [str(p) for p in chosen.data.paths] == ['a', 'b'] and chosen.optimiser.actor_learning_rate == 1e-4


def test_paper_values_are_the_defaults():
    cal_ql, iql = parse(['cal-ql']), parse(['iql'])
    assert (cal_ql.algorithm.discount, cal_ql.algorithm.alpha, cal_ql.batch_size, cal_ql.steps) == (0.98, 5, 512, 10**6)
    assert (iql.algorithm.expectile, iql.steps, iql.optimiser.learning_rate) == (0.7, 200_000, 3e-4)
    assert cal_ql.data.labels.success_steps == 3 and cal_ql.network.num_members == 2


def test_help_states_meaning_and_paper_value(capsys):
    with pytest.raises(SystemExit):
        parse(['cal-ql', '--help'])
    text = capsys.readouterr().out
    assert 'paper 5' in text and 'gamma' in text and all(figure in text for figure in BEST_BY)
