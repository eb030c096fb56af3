"""An actor with the weights of the authors' networks, in its file and behind the seam, draws what theirs drew."""
import numpy as np
import pytest
import torch
from flax_weights import actor_state, tree
from reference_files import shared

from vgps_policy_bridge.policies.actor import checkpoint
from vgps_policy_bridge.policies.actor.checkpoint import ActorConfig
from vgps_policy_bridge.policies.actor.policy import ActorPolicy
from vgps_policy_bridge.policy import GRIPPER, Observation

LOW, HIGH = (-0.05,) * 3 + (-0.25,) * 3 + (0.0,), (0.05,) * 3 + (0.25,) * 3 + (1.0,)


def policy(file, algorithm, archive):
    """Return the recorded actor as a policy; the recorded embeddings belong to the instructions 0 .. 3."""
    state = actor_state(tree(archive, 'init/params/modules_actor/'))
    checkpoint.save(file, state, ActorConfig(
        algorithm, LOW, HIGH, (3, 4, 6, 3), 8, 64, (256, 256), text_encoder='recorded', instructions=tuple('0123'),
        binary_gripper=False), archive['batch/language'])
    return ActorPolicy(str(file))


@pytest.mark.parametrize('algorithm, recorded', [('cal-ql', 'calql_step'), ('iql', 'iql_step')])
def test_an_actor_proposes_the_reference_s_distribution_in_physical_units(algorithm, recorded, tmp_path, monkeypatch):
    archive = np.load(shared(f'golden/{recorded}.npz'))
    mean, std = archive['step0/actor/mean'], archive['step0/actor/std']
    noise = archive['step0/actor/eps'] if algorithm == 'cal-ql' else np.random.default_rng(0).normal(size=(4, 7))
    squash = np.tanh if algorithm == 'cal-ql' else lambda x: np.clip(x, -1, 1)
    monkeypatch.setattr(torch, 'randn', lambda shape, generator: torch.from_numpy(
        np.broadcast_to(drawn, shape).astype(np.float32).copy()))
    actor = policy(tmp_path / 'actor.safetensors', algorithm, archive)
    for i in range(4):
        drawn = noise[i]
        actor.reset(str(i))
        candidates = actor.propose(Observation(archive['batch/image'][i], 0.0), 2)
        for action, x in zip(candidates.actions[:, 0], (mean[i], mean[i] + std[i] * noise[i])):
            expected = np.array(LOW) + (squash(x) + 1) / 2 * (np.array(HIGH) - LOW)
            np.testing.assert_allclose(action, expected, atol=2e-6)
        if algorithm == 'cal-ql':
            theirs = archive['step0/actor/actions'][i]
            np.testing.assert_allclose(candidates.actions[1, 0, GRIPPER], (theirs[GRIPPER] + 1) / 2, atol=2e-6)
            assert candidates.log_probabilities[1] == pytest.approx(archive['step0/actor/log_pi'][i], rel=1e-4)
