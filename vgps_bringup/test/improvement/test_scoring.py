"""Scores of recorded episodes are those that the critic itself gives."""

from dataclasses import replace

import numpy as np
import pytest

from vgps_bringup.improvement.episodes import Recorded
from vgps_bringup.improvement.scoring import MOMENTS, score
from vgps_critic import Critic

STEPS, K = 5, 3


@pytest.fixture(scope='module')
def critic():
    return Critic.untrained(num_filters=4, image_size=64)


@pytest.fixture(scope='module')
def episode():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (STEPS, 64, 64, 3), np.uint8)
    candidates = random.uniform(-0.04, 0.04, (STEPS, K, 7)).astype(np.float32)
    return Recorded('bag/0', 'sha', 'put the cup on the shelf', True, STEPS, frames, candidates[:, 1], None, candidates,
                    np.full((STEPS, K), 1 / K, np.float32), np.ones(STEPS, int), np.zeros(STEPS, bool))


def test_what_was_done_and_every_candidate_have_the_value_that_steers(critic, episode):
    scored, = score(critic, [episode])
    for step in range(STEPS):
        seen = critic.encode(episode.frames[step], episode.instruction)
        np.testing.assert_allclose(scored.candidates[step], critic.score(seen, episode.candidates[step]).min(0), 1e-4)
    np.testing.assert_array_equal(scored.done, scored.candidates[:, 1])


def test_the_rank_counts_actions_of_other_moments_with_a_higher_value(critic, episode):
    scored, = score(critic, [episode])
    moments = np.random.default_rng(0).integers(STEPS, size=(STEPS, MOMENTS))
    for step in range(STEPS):
        seen = critic.encode(episode.frames[step], episode.instruction)
        values = critic.score(seen, episode.actions).min(0)
        others = values[moments[step]]
        same = moments[step] == step
        assert scored.rank[step] == pytest.approx(((others > values[step]) & ~same).mean() + 0.5 * same.mean())
    assert 0 < scored.rank.mean() < 1


def test_actions_that_are_all_the_same_have_an_even_rank(critic, episode):
    still = replace(episode, actions=np.repeat(episode.actions[:1], STEPS, 0))
    np.testing.assert_array_equal(score(critic, [still])[0].rank, 0.5)
