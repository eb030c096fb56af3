"""A wrist camera's picture reaches the policy with the frame of its moment, or nothing is asked; a frozen one never."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vgps_policy_bridge.errors import CandidatesError, ObservationError, PolicyError
from vgps_policy_bridge.loop import session as module
from vgps_policy_bridge.loop.policy_config import PolicyNodeConfig
from vgps_policy_bridge.policies.random_policy import RandomPolicy
from vgps_policy_bridge.policy import Candidates


class Looker(RandomPolicy):
    """Random, with a look at the wrist."""

    seen, used = None, ('image', 'instruction', 'wrist_image')

    def propose(self, observation, k):
        self.seen = observation
        observation.require_wrist('looker')
        return Candidates(super().propose(observation, k).actions, 'looker', used=self.used)


def message(level, seconds):
    pixels = np.full((6, 8, 3), level, np.uint8)
    pixels[0] = 255 - level
    stamp = SimpleNamespace(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), height=6, width=8, encoding='rgb8', step=24,
                           is_bigendian=0, data=pixels.tobytes())


@pytest.fixture
def looking(monkeypatch):
    policy = Looker()
    monkeypatch.setattr(module, 'build_policy', lambda *_: policy)
    session = module.PolicySession(PolicyNodeConfig(wrist_topic='/wrist/image_raw', num_candidates=4))
    return session, policy


@pytest.mark.parametrize('apart', [-0.15, 0.0, 0.12])
def test_the_policy_sees_both_pictures_of_a_moment(looking, apart):
    session, policy = looking
    session.load()
    session.propose(message(40, 100.5), message(90, 100.5 + apart), None, 4, 1.0)
    assert (policy.seen.image[-1].max(), policy.seen.wrist_image[-1].max()) == (40, 90)


@pytest.mark.parametrize('wrist, words', [(None, 'no image has come from the wrist camera (/wrist/image_raw)'),
                                          (message(9, 99.0), '1.50 s older than the frame'),
                                          (message(9, 101.0), '0.50 s younger than the frame')])
def test_a_wrist_picture_of_another_moment_is_never_shown(looking, wrist, words):
    session, policy = looking
    session.load()
    policy.seen = None
    with pytest.raises(ObservationError) as error:
        session.propose(message(40, 100.5), wrist, None, 4, 1.0)
    assert words in str(error.value) and policy.seen is None


def test_a_wrist_camera_that_the_policy_does_not_look_at_is_refused_before_the_first_episode(looking, monkeypatch):
    session, policy = looking
    policy.used = ('image', 'instruction')
    with pytest.raises(PolicyError, match=r'does not use a wrist camera.*/wrist/image_raw'):
        session.load()


def test_a_policy_that_needs_a_wrist_camera_says_so_at_once(monkeypatch):
    monkeypatch.setattr(module, 'build_policy', lambda *_: Looker())
    with pytest.raises(ObservationError, match="'looker' needs a wrist camera.*wrist_topic"):
        module.PolicySession(PolicyNodeConfig()).load()


def test_a_policy_in_the_google_robot_s_units_is_refused_before_the_first_episode(monkeypatch):
    class Google(RandomPolicy):
        def propose(self, observation, k):
            return replace(super().propose(observation, k), statistics='fractal20220817_data')
    monkeypatch.setattr(module, 'build_policy', lambda *_: Google())
    with pytest.raises(CandidatesError, match="are the Google Robot's .*, and this is a WidowX"):
        module.PolicySession(PolicyNodeConfig()).load()


def test_a_camera_that_repeats_one_picture_while_the_gripper_moves_ends_the_episode(monkeypatch):
    monkeypatch.setattr(module, 'build_policy', lambda *_: RandomPolicy())
    session = module.PolicySession(PolicyNodeConfig(require_live_camera=True))
    session.load()

    def look(step, level, x):
        state = np.array([x, 0, 0.1, 0, 0, 0, 1], np.float32)
        return session.propose(message(level, 100 + 0.2 * step), None, state, 4, 1.0)
    for episode in range(2):    # what was seen in the one before does not count
        session.begin('put it there', episode)
        for step in range(20):
            look(step, 40, 0.3)    # the arm holds: a simulated picture may stay as it is
        for step in range(20, 30):
            look(step, step, 0.3 + 0.01 * (step % 2))
        look(31, 40, 0.31), look(32, 40, 0.32), look(33, 40, 0.33)
    with pytest.raises(ObservationError, match='repeats one image.*start it again'):
        look(34, 40, 0.34)
