"""A harmful critic in the whole composition: simulated arm, shipped policy, steering, recording."""

import numpy as np
import pytest

from vgps_bringup.improvement.episodes import read
from vgps_bringup.trials.lockstep import LockstepRunner
from vgps_bringup.trials.plan import Condition, TaskItem, Trial
from vgps_critic import Critic
from vgps_critic.outlook import FEATURES, Outlook, Probes
from vgps_msgs_py.bags.reader import Bag
from vgps_msgs_py.vocabulary import SteeringReason

pytestmark = pytest.mark.slow

TASK, STEPS = 'put_carrot_on_plate', 5


@pytest.fixture(scope='module')
def harmful(tmp_path_factory):
    """Return a critic's folder whose outlook holds judged moments that the critic ranks the wrong way round."""
    folder = tmp_path_factory.mktemp('harmful')
    critic = Critic.untrained(num_filters=4, image_size=64)
    critic.save(folder)
    rng, text = np.random.default_rng(0), 'put carrot on plate'
    images, actions = rng.integers(0, 256, (10, 64, 64, 3), np.uint8), rng.uniform(-0.04, 0.04, (10, 7))
    actions = actions.astype(np.float32)
    values = np.array([critic.score(critic.encode(image, text), action[None]).min()
                       for image, action in zip(images, actions)])
    dim = critic.network.encoder.output_dim
    Outlook(critic.hash, (text,), critic.instructions.encode(text)[None].astype(np.float32),
            np.zeros((1, dim), np.float32), np.eye(dim, dtype=np.float32), np.zeros(len(FEATURES) + 1, np.float32),
            -50.0, probes=Probes(images, actions, np.zeros(10, np.int32), values < np.median(values))).save(folder)
    return folder


def test_the_robot_does_what_the_plain_policy_does_step_for_step_and_says_why(harmful, tmp_path):
    runner = LockstepRunner(STEPS, 96, load_critic=Critic.load)
    try:
        for name, selection in (('plain', 'first'), ('steered', 'value')):
            condition = Condition(name, 'flow', str(harmful), selection, 4, 1.0)
            runner.run(Trial(name, 0, TaskItem(TASK), condition, 7), tmp_path / name)
    finally:
        runner.close()
    commands = {name: np.stack([step.command.action for step in Bag(tmp_path / name).episodes[0].steps])
                for name in ('plain', 'steered')}
    np.testing.assert_array_equal(commands['plain'], commands['steered'])
    decisions = [step.decision for step in Bag(tmp_path / 'steered').episodes[0].steps]
    assert {decision.reason for decision in decisions} == {SteeringReason.CRITIC_HARMFUL}
    assert all(len(decision.q_values) == 8 and np.isfinite(decision.success_chance) for decision in decisions)


def test_such_an_episode_is_learnt_from_as_the_plain_policy_s_own(harmful, tmp_path):
    runner = LockstepRunner(STEPS, 96, load_critic=Critic.load)
    try:
        runner.run(Trial('e', 0, TaskItem(TASK), Condition('s', 'flow', str(harmful), 'value', 4, 1.0), 7),
                   tmp_path / 'e')
    finally:
        runner.close()
    episode, = read([tmp_path / 'e'], 64, tmp_path / 'cache').episodes
    np.testing.assert_array_equal(episode.chosen, np.zeros(STEPS))
    np.testing.assert_allclose(episode.chances, 0.25)
    assert episode.states.shape == (STEPS, 7) and not episode.success
