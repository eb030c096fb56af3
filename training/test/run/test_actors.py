"""What training keeps of its actor is the actor it trained, however its critic came by the encoder."""
import dataclasses

import numpy as np
import pytest
import torch
from synthetic import INSTRUCTIONS, NETWORK, config, make

from vgps_critic.critic import Critic
from vgps_critic.text import table as text_table
from vgps_msgs_py.film_resnet import ResNetEncoder
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policies.actor.checkpoint import FILE, load
from vgps_policy_bridge.policies.actor.policy import ActorPolicy
from vgps_policy_bridge.policy import GRIPPER, Observation
from vgps_training.algorithms.iql import IQLConfig
from vgps_training.data.hindsight import NAMES
from vgps_training.run import frozen
from vgps_training.run.loop import Run

pytestmark = pytest.mark.slow


def with_actor(configuration):
    """Return a configuration whose run trains an actor; Cal-QL always does."""
    if configuration.algorithm_name == 'cal-ql':
        return configuration
    return dataclasses.replace(configuration, algorithm=IQLConfig(target_rate=0.02, train_actor=True))


def encoder(folder):
    """Write a pre-trained encoder as vgps-pretrain does, here with random weights."""
    torch.manual_seed(3)
    network = ResNetEncoder(NETWORK.stage_sizes, NETWORK.num_filters, NETWORK.language_dim)
    folder.mkdir()
    frozen.save(folder, NETWORK, network, torch.nn.Linear(network.output_dim, len(NAMES) + 1))
    return folder


def trained(tmp_path, algorithm, source):
    """Return a run that has ended; `source` of its encoder: learnt, frozen or continued."""
    make(tmp_path)
    changes = {}
    if source == 'frozen':
        changes['encoder'] = encoder(tmp_path / 'encoder')
    if source == 'continued':
        Run(config(tmp_path, 'monte-carlo', 'first'), quiet=True).train()
        changes['critic'] = str(tmp_path / 'first' / 'critic')
    run = Run(with_actor(config(tmp_path, algorithm, **changes)), quiet=True)
    run.train()
    return run


def seen(run, steps):
    """Return what the trained actor itself was given for some steps: images, or the features in their place."""
    frames = run.sampler.table.frames
    return torch.from_numpy(np.stack([frames[step] for step in steps]))


@pytest.mark.parametrize('source', ['learnt', 'frozen', 'continued'])
@pytest.mark.parametrize('algorithm', ['iql', 'cal-ql'])
def test_the_policy_draws_from_the_distribution_of_the_actor_that_was_trained(tmp_path, algorithm, source):
    run = trained(tmp_path, algorithm, source)
    policy, actor = ActorPolicy(str(run.config.out / 'critic' / FILE)), run.learner.networks['actor']
    table, space = run.table, run.action_space
    for step in (0, 7, len(table) - 1):
        number = table.per_step(table.instruction)[step]
        with torch.no_grad():
            mean, std = actor(seen(run, [step]), torch.from_numpy(run.embeddings[[number]]))
        policy.reset(INSTRUCTIONS[number], seed=5)
        candidates = policy.propose(Observation(table.frames[step], 0.0), 6)
        noise = torch.randn((6, 7), generator=torch.Generator().manual_seed(candidates.seed))
        noise[0] = 0
        with torch.no_grad():
            expected, log_density = actor.sample(mean, std, noise[None])
        # normalised as the critic does it, the proposals are the network's own numbers
        proposed = space.normalize(candidates.actions[:, 0])
        np.testing.assert_allclose(proposed[:, :GRIPPER], expected[0, :, :GRIPPER].clamp(-1, 1), atol=2e-5)
        np.testing.assert_array_equal(candidates.actions[:, 0, GRIPPER], (expected[0, :, GRIPPER] > 0).float())
        np.testing.assert_allclose(candidates.log_probabilities, log_density[0], rtol=1e-4, atol=1e-3)


def test_the_file_says_where_it_comes_from_and_lies_beside_the_best_critic_too(tmp_path):
    make(tmp_path)
    run = Run(config(tmp_path, 'cal-ql', validate_every=4), quiet=True)
    run.train()
    for folder in ('critic', 'best'):
        critic = Critic.load(run.config.out / folder, instructions=text_table(tmp_path / 'text.npz'))
        _, actor, known, _ = load(run.config.out / folder / FILE)
        assert (actor.algorithm, actor.critic, actor.step) == ('cal-ql', critic.hash, critic.config.step)
        assert (actor.action_low, actor.action_high) == (critic.action_space.low, critic.action_space.high)
        assert (actor.text_encoder, actor.data, tuple(known)) == ('test', 'table', INSTRUCTIONS)
        assert actor.image_size == critic.config.image_size and actor.binary_gripper


def test_an_instruction_that_training_could_not_embed_is_refused_by_name(tmp_path):
    policy = ActorPolicy(str(trained(tmp_path, 'cal-ql', 'learnt').config.out / 'critic' / FILE))
    with pytest.raises(PolicyError, match=f"'fold the towel' is not among the 2 that .* 'test': {INSTRUCTIONS[0]}"):
        policy.reset('fold the towel')


def test_a_gripper_that_the_data_hold_in_between_is_proposed_as_it_is(tmp_path):
    make(tmp_path)
    first = Run(config(tmp_path, 'cal-ql'), quiet=True)
    first.table.actions[3, GRIPPER] = 0.4
    run = Run(config(tmp_path, 'cal-ql'), table=first.table, quiet=True)
    run.train()
    policy = ActorPolicy(str(run.config.out / 'critic' / FILE))
    policy.reset(INSTRUCTIONS[0])
    openness = policy.propose(Observation(run.table.frames[0], 0.0), 20).actions[..., GRIPPER]
    assert not policy.config.binary_gripper and ((openness > 0) & (openness < 1)).any()


@pytest.mark.parametrize('algorithm', ['iql', 'monte-carlo'])
def test_without_an_actor_there_is_no_file(tmp_path, algorithm):
    make(tmp_path)
    Run(config(tmp_path, algorithm), quiet=True).train()
    assert not (tmp_path / 'run' / 'critic' / FILE).exists()


def test_a_run_continued_leaves_the_actor_of_one_that_was_not_stopped(tmp_path):
    make(tmp_path)
    whole = with_actor(config(tmp_path, 'iql', 'whole'))
    Run(whole, quiet=True).train()
    parts = dataclasses.replace(whole, out=tmp_path / 'parts')
    Run(parts, quiet=True).train(stop_after=5)
    Run(parts, quiet=True).train()
    (one, config_of_one, *_), (other, config_of_other, *_) = (load(c.out / 'critic' / FILE) for c in (whole, parts))
    assert config_of_one == config_of_other  # the header's words come in any order: files are not compared
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
