"""Losses, gradients and one optimiser step against numbers recorded from the authors' JAX code."""
import numpy as np
import pytest
import torch
from flax_weights import load, mismatch
from reference_files import RECORDED, shared

from vgps_critic.config import NetworkConfig
from vgps_training.algorithms import cal_ql, iql
from vgps_training.data.batch import Batch
from vgps_training.run.config import preset
from vgps_training.run.learner import Learner, OptimiserConfig

SMALL = NetworkConfig(num_filters=8, image_size=64)
TOLERANCE = 1e-4  # relative


def tensor(array):
    return torch.from_numpy(np.array(array))


def recorded_batch(archive):
    """Return the batch; the small archives hold no images, the pure losses need none."""
    language, none = tensor(archive['batch/language']), np.zeros((4, 0, 0, 3), np.uint8)
    images = [tensor(archive[name] if name in archive else none) for name in ('batch/image', 'batch/next_image')]
    return Batch(images=images[0], next_images=images[1],
                 language=language, other_language=language.roll(-1, 0), actions=tensor(archive['batch/actions']),
                 next_actions=tensor(archive['batch/actions']), rewards=tensor(archive['batch/rewards']),
                 masks=tensor(archive['batch/masks']), returns=tensor(archive['batch/mc_returns']))


def close(value, expected, tolerance=TOLERANCE):
    expected = float(expected)
    assert float(value) == pytest.approx(expected, rel=tolerance, abs=1e-6)


def recorded_values(archive, step):
    raw = tensor(archive[f'{step}critic/cql_q_samples_raw'])
    return cal_ql.ActionValues(raw[..., :4], raw[..., 4:8], raw[..., 8:], -7 * np.log(2),
                               tensor(archive[f'{step}critic/cql_current_log_pi']),
                               tensor(archive[f'{step}critic/cql_next_log_pi']))


@pytest.mark.parametrize('file, step, calibrate', [('calql_step', 'step0/', True), ('calql_step', 'step1/', True),
                                                   ('cql_losses', '', False)])
def test_conservative_critic_loss_of_recorded_values(file, step, calibrate):
    archive = np.load(RECORDED / f'{file}.npz')
    batch, q = recorded_batch(archive), tensor(archive[f'{step}critic/q_pred'])
    target = cal_ql.td_target(batch.rewards, batch.masks, tensor(archive[f'{step}critic/target_next_qs']), 0.98)
    torch.testing.assert_close(target, tensor(archive[f'{step}critic/target_q']), rtol=1e-5, atol=1e-6)
    gap = cal_ql.conservative_gap(q, recorded_values(archive, step), batch.returns, calibrate, 'log_sum_exp')
    close(gap.mean(), archive[f'{step}critic/info/cql_loss'])
    close(cal_ql.critic_loss(q, target, gap, 5.0, 1.0), archive[f'{step}critic/critic_loss'])


def recorded_samples(archive, step):
    names = ('cql_random_actions', 'td_next_actions', 'cql_current_actions', 'cql_current_log_pi', 'cql_next_actions',
             'cql_next_log_pi')
    values = [tensor(archive[f'{step}critic/{name}']) for name in names]
    # recorded as (B, N, .) throughout
    return cal_ql.Samples(*values, tensor(archive[f'{step}temperature/next_log_pi']))


class RecordedCalQL(cal_ql.CalQL):
    """Cal-QL whose draws are the recorded ones."""

    recorded = None

    def sample(self, distribution, next_distribution, noise):
        return self.recorded


def test_cal_ql_two_updates_equal_the_reference():
    archive = np.load(shared('golden/calql_step.npz'))
    algorithm = RecordedCalQL(preset('cal-ql', 'reference').algorithm, SMALL)
    learner = Learner(algorithm, OptimiserConfig(3e-4, 1e-4), torch.device('cpu'))
    load(learner.networks, archive, 'init/params/')
    load(learner.targets, archive, 'init/target_params/')
    batch = recorded_batch(archive)
    for i in range(2):
        step = f'step{i}/'
        algorithm.recorded = recorded_samples(archive, step)
        noise = algorithm.draw(4, torch.Generator().manual_seed(0))
        noise['actor'] = tensor(archive[f'{step}actor/eps'])
        metrics = learner.update(batch, noise)
        close(metrics['loss/critic'], archive[f'{step}critic/critic_loss'])
        close(metrics['loss/actor'], archive[f'{step}actor/loss'])
        close(metrics['loss/temperature'], archive[f'{step}temperature/loss'])
        close(metrics['calibrated_share'], archive[f'{step}critic/info/calql_bound_rate'])
        for name in ('critic', 'actor'):
            norm = torch.stack([p.grad.norm() for p in learner.networks[name].parameters()]).norm()
            close(norm, archive[f'{step}{name}/grad_global_norm'])
        close(learner.networks['temperature'].parameter.grad, archive[f'{step}temperature/grad_lagrange'])
        for name, network in learner.networks.items():
            assert mismatch(network, name, archive, f'{step}after/params/') < TOLERANCE, name
        assert mismatch(learner.targets['critic'], 'critic', archive, f'{step}after/target_params/') < TOLERANCE


class RecordedIQL(iql.IQL):
    """IQL whose negative instructions are the recorded ones."""

    recorded = None

    def draw(self, batch_size, generator):
        return self.recorded


def test_iql_update_equals_the_reference():
    archive = np.load(shared('golden/iql_step.npz'))
    algorithm = RecordedIQL(preset('iql', 'reference').algorithm, SMALL)
    learner = Learner(algorithm, OptimiserConfig(3e-4, 3e-4), torch.device('cpu'))
    load(learner.networks, archive, 'init/params/')
    load(learner.targets, archive, 'init/target_params/')
    algorithm.recorded = {f'{name}_negative': tensor(archive[f'step0/{name}/neg_mask']) for name in ('critic', 'value')}
    metrics = learner.update(recorded_batch(archive), algorithm.draw(4, None))
    for name in ('critic', 'value', 'actor'):
        close(metrics[f'loss/{name}'], archive[f'step0/{name}/loss'])
        close(metrics[f'gradient_norm/{name}'], archive[f'step0/{name}/grad_global_norm_preclip'])
        assert mismatch(learner.networks[name], name, archive, 'step0/after/params/') < TOLERANCE, name
    for name in ('critic', 'value'):
        assert mismatch(learner.targets[name], name, archive, 'step0/after/target_params/') < TOLERANCE


def test_iql_losses_of_recorded_values():
    archive = np.load(RECORDED / 'iql_step.npz')
    batch, step = recorded_batch(archive), 'step0/'
    negative = tensor(archive[f'{step}critic/neg_mask'])
    rewards, masks = torch.where(negative, -1.0, batch.rewards), torch.where(negative, 1.0, batch.masks)
    target = iql.td_target(rewards, masks, tensor(archive[f'{step}critic/next_v_target']), 0.98)
    torch.testing.assert_close(target, tensor(archive[f'{step}critic/target_q']), rtol=1e-5, atol=1e-6)
    close(iql.critic_loss(tensor(archive[f'{step}critic/q']), target), archive[f'{step}critic/loss'])
    close(iql.value_loss(tensor(archive[f'{step}value/q_target_min']), tensor(archive[f'{step}value/v']), 0.7),
          archive[f'{step}value/loss'])
    close(iql.actor_loss(tensor(archive[f'{step}actor/log_prob']), tensor(archive[f'{step}actor/q_target_min']),
                         tensor(archive[f'{step}actor/v']), 1.0), archive[f'{step}actor/loss'])
