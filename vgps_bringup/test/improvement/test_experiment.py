"""The experiment's folder: what was made by one recipe is never reported as another's."""

import pytest

from vgps_bringup.improvement.experiment import Experiment, Laboratory
from vgps_bringup.improvement.pipeline import ImproveError, Recipe

NOTHING_TO_PLAY = Experiment(policies=())


def test_a_folder_of_another_recipe_is_refused_and_the_same_one_goes_on(tmp_path):
    Laboratory(NOTHING_TO_PLAY, Recipe('default', 'fresh'), tmp_path / 'own').run()
    Laboratory(NOTHING_TO_PLAY, Recipe('default', 'fresh'), tmp_path / 'own').run()
    with pytest.raises(ImproveError, match='recipe.json.*another --output'):
        Laboratory(NOTHING_TO_PLAY, Recipe('default', 'continue'), tmp_path / 'own').run()
