"""The experiment's folder: what was made by one recipe is never reported as another's."""

import numpy as np
import pytest

from vgps_bringup.improvement.experiment import Experiment, Laboratory, negate
from vgps_bringup.improvement.pipeline import ImproveError, Recipe
from vgps_critic import Critic

NOTHING_TO_PLAY = Experiment(policies=())


def test_a_folder_of_another_recipe_is_refused_and_the_same_one_goes_on(tmp_path):
    Laboratory(NOTHING_TO_PLAY, Recipe('default', 'fresh'), tmp_path / 'own').run()
    Laboratory(NOTHING_TO_PLAY, Recipe('default', 'fresh'), tmp_path / 'own').run()
    with pytest.raises(ImproveError, match='recipe.json.*another --output'):
        Laboratory(NOTHING_TO_PLAY, Recipe('default', 'continue'), tmp_path / 'own').run()


def test_a_negated_critic_prefers_what_the_critic_likes_least(tmp_path):
    critic = Critic.untrained(num_filters=4, image_size=64)
    critic.save(tmp_path / 'critic')
    negated = Critic.load(negate(tmp_path / 'critic', tmp_path / 'negated'))
    rng = np.random.default_rng(0)
    image, actions = rng.integers(0, 256, (64, 64, 3), np.uint8), rng.uniform(-0.04, 0.04, (5, 7)).astype(np.float32)
    values, turned = (c.score(c.encode(image, 'put carrot on plate'), actions) for c in (critic, negated))
    np.testing.assert_allclose(turned, -1 / (1 - critic.config.discount) - values, rtol=1e-4)
