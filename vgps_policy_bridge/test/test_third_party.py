"""A laboratory's own policy, as a really installed package that knows only the seam."""

import os
import subprocess
import sys

import pytest

PYPROJECT = """
[build-system]
requires = ['setuptools']
build-backend = 'setuptools.build_meta'
[project]
name = 'our-lab-policy'
version = '1.0'
[project.entry-points.'vgps.policies']
our-lab = 'our_lab_policy:OurPolicy'
[tool.setuptools]
py-modules = ['our_lab_policy']
"""
MODULE = """
import numpy as np
from vgps_policy_bridge.policy import Candidates, StepSeeds


class OurPolicy:
    def __init__(self, checkpoint: str = 'none'):
        self.temperature = 1.0
        self._checkpoint, self._seeds = checkpoint, StepSeeds()

    def reset(self, instruction, seed=0):
        self._seeds = StepSeeds(seed)

    def propose(self, observation, k):
        seed = self._seeds.next()
        actions = np.random.default_rng(seed).normal(0, 0.01 * self.temperature, (k, 1, 7))
        actions[..., 6] = 1.0
        return Candidates(actions, policy=f'our-lab {self._checkpoint}', temperature=self.temperature, seed=seed)
"""
USE = """
import numpy as np
from vgps_policy_bridge.loop.policy_config import PolicyNodeConfig
from vgps_policy_bridge.loop.session import PolicySession
from vgps_policy_bridge.policy import Observation
session = PolicySession(PolicyNodeConfig(policy='our-lab', policy_options='{checkpoint: v7}',
                                         proposal_tools='[{gaussian_expansion: {samples: 4}}]', num_candidates=9))
session.load()
candidates = session.ask(Observation(np.zeros((8, 8, 3), np.uint8), 0.0), 9, 0.5)
print(session.identity, len(candidates), candidates.temperature)
"""


@pytest.mark.slow
def test_installed_package_is_found_by_name_alone(tmp_path):
    source, target = tmp_path / 'source', tmp_path / 'target'
    source.mkdir()
    (source / 'pyproject.toml').write_text(PYPROJECT)
    (source / 'our_lab_policy.py').write_text(MODULE)
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation', '--target',
                    str(target), str(source)], check=True, capture_output=True, timeout=180)
    path = os.pathsep.join([str(target), *filter(None, sys.path)])
    used = subprocess.run([sys.executable, '-c', USE], env=os.environ | {'PYTHONPATH': path}, capture_output=True,
                          text=True, timeout=120)
    assert used.stdout.split('\n')[0] == 'our-lab v7 + gaussian_expansion(4) 9 0.5', used.stderr
