"""Messages with values that this version does not know are taken for what is safe, and end nothing."""

from types import SimpleNamespace

import pytest

from vgps_msgs_py.vocabulary import ArmState
from vgps_policy_bridge.loop.wire import arm_report, decision_report

STAMP = SimpleNamespace(stamp=SimpleNamespace(sec=2**31 - 1, nanosec=2**32 - 1))


def controller_state(state, reason=0):
    return SimpleNamespace(header=STAMP, episode_id='', step=2**32 - 1, state=state, reason=reason, message='well',
                           accepted=0, refused=2**32 - 1)


@pytest.mark.parametrize('state', [6, 77, 255])
def test_a_state_nobody_knows_is_an_arm_that_is_not_ready(state):
    report = arm_report(controller_state(state, reason=255))
    assert report.state is ArmState.STARTING and str(state) in report.words()


@pytest.mark.parametrize('state', list(ArmState))
def test_the_states_we_know_stay_what_they_are(state):
    report = arm_report(controller_state(int(state)))
    assert report.state is state and report.message == 'well'


def test_a_decision_with_a_reason_nobody_knows_keeps_its_number():
    decision = decision_report(SimpleNamespace(episode_id='', step=0, chosen=-2**31, value=float('nan'), reason=255,
                                               message=''))
    assert '255' in decision.words
