"""The node over real DDS: every way a step can go, each ends in a decision and a command, by name."""

import io
import subprocess
import sys
import threading
import time

import numpy as np
import PIL.Image
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vgps_msgs.msg')
import torch
from critic_rig import INSTRUCTION, Rig, candidates_message, frame_of, some_actions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vgps_critic import Critic, steering
from vgps_critic.loading import STAND_IN
from vgps_critic.steering import Steerer, SteeringConfig
from vgps_msgs.msg import EndEffectorCommand, SteeringDecision, StepStarted
from vgps_msgs_py import images, qos
from vgps_msgs_py.vocabulary import SteeringReason as Reason, Verdict

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def shared_rig():
    rig = Rig()
    rig.start_episode()
    yield rig
    rig.close()


@pytest.fixture
def rig(shared_rig):
    shared_rig.set(beta=0.0, selection='value', deadline_ms=5000.0, min_spread=0.0, max_disagreement=0.0,
                   fallback='first')
    return shared_rig


def test_the_choice_over_the_wire_is_the_one_made_offline_from_the_same_frame_candidates_beta_and_seed(rig):
    rig.set(beta=0.05)
    actions = some_actions()
    decision, command = rig.step(actions)
    offline = Steerer(Critic.untrained(**STAND_IN), SteeringConfig(beta=0.05))
    seed = steering.step_seed(7, rig.count)
    expected = offline.decide(offline.encode(frame_of(rig.count), INSTRUCTION), actions, seed=seed)
    assert decision.reason == Reason.STEERED and decision.verdict == Verdict.CHOSEN
    assert decision.seed == seed and decision.chosen == expected.chosen
    np.testing.assert_array_equal(np.reshape(decision.q_values, (2, 10)), expected.q_values)
    np.testing.assert_allclose(decision.probabilities, expected.probabilities)
    np.testing.assert_array_equal(command.action, actions[expected.chosen, 0].astype(np.float64))
    assert command.kind == EndEffectorCommand.ACTION
    assert command.header.frame_id == 'wx250s/base_link' and command.header.stamp == decision.header.stamp
    assert decision.header.frame_id == 'camera' and decision.critic_hash == offline.critic.hash
    assert {'resize', 'encode', 'score', 'select', 'candidates_to_decision'} <= set(decision.stages)


def test_a_frame_that_arrives_after_its_candidates_is_waited_for(rig):
    assert rig.step(some_actions(), frame='late')[0].reason == Reason.STEERED


def test_a_frame_that_never_arrives_is_named_and_the_first_candidate_goes_out(rig):
    actions = some_actions()
    decision, command = rig.step(actions, frame='never')
    assert decision.reason == Reason.FRAME_MISSING and decision.verdict == Verdict.FIRST_CANDIDATE
    assert decision.chosen == 0 and len(decision.q_values) == 0 and np.isnan(decision.value)
    np.testing.assert_array_equal(command.action, actions[0, 0].astype(np.float64))


def test_by_default_a_frame_that_never_arrives_holds_the_arm(rig):
    rig.set(fallback=SteeringConfig().fallback)
    decision, command = rig.step(some_actions(), frame='never')
    assert decision.reason == Reason.FRAME_MISSING and decision.verdict == Verdict.HOLD
    assert command.kind == EndEffectorCommand.HOLD and not np.any(command.action)


def test_far_too_many_candidates_are_refused_and_the_next_step_is_steered(rig):
    decision, command = rig.step(np.zeros((200_000, 1, 7), np.float32))
    assert decision.reason == Reason.CANDIDATES_INVALID and command.kind == EndEffectorCommand.HOLD
    assert rig.step(some_actions())[0].reason == Reason.STEERED


def test_a_camera_that_offers_nothing_but_compressed_pictures_is_followed(rig):
    picture = io.BytesIO()
    PIL.Image.fromarray(frame_of(0)).save(picture, 'PNG')
    seen = []
    encode = rig.node._steerer.encode
    rig.node._steerer.encode = lambda image, text: seen.append(image) or encode(image, text)
    rig.peer.destroy_publisher(rig.image)
    rig.image = rig.peer.create_publisher(CompressedImage, 'image_raw/compressed', qos.EVENT)
    rig.spin_until(rig.image.get_subscription_count)
    compressed = CompressedImage(format='rgb8; png compressed rgb8', data=picture.getvalue())
    assert rig.step(some_actions(), image=compressed)[0].reason == Reason.STEERED
    np.testing.assert_array_equal(seen[-1], frame_of(0))
    rig.node._steerer.encode = encode
    rig.image = rig.peer.create_publisher(Image, 'image_raw', qos.EVENT)  # raw pictures are there again: they count
    rig.spin_until(rig.image.get_subscription_count)
    assert rig.step(some_actions())[0].reason == Reason.STEERED


def test_another_frame_is_never_scored_in_place_of_the_missing_one(rig):
    header = Header()
    header.stamp.sec = 1000 + rig.count + 1
    header.stamp.nanosec = 1
    rig.image.publish(images.to_message(frame_of(0), header))
    assert rig.step(some_actions(), frame='never')[0].reason == Reason.FRAME_MISSING


def test_a_hanging_critic_ends_at_the_deadline_and_the_next_step_is_steered_again(rig, monkeypatch):
    rig.set(deadline_ms=200.0, fallback='hold')
    score = rig.node._steerer.critic.score
    monkeypatch.setattr(rig.node._steerer.critic, 'score', lambda *args: time.sleep(1.0) or score(*args))
    start = time.monotonic()
    decision, command = rig.step(some_actions())
    assert time.monotonic() - start < 0.9
    assert decision.reason == Reason.DEADLINE_MISSED and command.kind == EndEffectorCommand.HOLD
    assert list(command.action) == [0.0] * 7 and '200' in decision.message
    monkeypatch.setattr(rig.node._steerer.critic, 'score', score)
    rig.set(deadline_ms=5000.0)
    assert rig.step(some_actions())[0].reason == Reason.STEERED


def test_words_that_are_embedded_for_the_first_time_delay_a_step_and_do_not_cost_it(rig, monkeypatch):
    rig.set(deadline_ms=1000.0, fallback='hold')
    monkeypatch.setattr(rig.node._steerer, 'embed', lambda words: time.sleep(1.2))
    rig.start_episode(seed=8)
    assert rig.step(some_actions())[0].reason == Reason.STEERED


def test_frames_of_steps_that_are_over_are_not_encoded_behind_a_slow_critic(rig, monkeypatch):
    release, encode, encoded = threading.Event(), rig.node._steerer.encode, []

    def slow(*args):
        encoded.append(args)
        release.wait(10.0)
        return encode(*args)
    monkeypatch.setattr(rig.node._steerer, 'encode', slow)
    for _ in range(5):
        rig.count += 1
        header = Header()
        header.stamp.sec = 1000 + rig.count
        rig.node._on_image(images.to_message(frame_of(rig.count), header))
        rig.node._on_step_started(StepStarted(header=header, episode_id='e7', step=rig.count, instruction=INSTRUCTION))
        rig.spin_until(lambda: encoded)
    release.set()
    assert rig.step(some_actions())[0].reason == Reason.STEERED
    # the one that was running, the present one, and the newest of the five if it began before the present step did
    assert len(encoded) in (2, 3)


@pytest.mark.parametrize('q_values, reason', [
    (np.full((2, 10), np.nan, np.float32), Reason.VALUES_NOT_FINITE),
    (np.zeros((2, 10), np.float32), Reason.FLAT_VALUES),
    (np.linspace(0, 1, 10, dtype=np.float32) * np.array([[1], [-1]], np.float32), Reason.MEMBERS_DISAGREE)])
def test_values_that_say_nothing_are_named(rig, monkeypatch, q_values, reason):
    rig.set(min_spread=0.01, max_disagreement=0.5)
    monkeypatch.setattr(rig.node._steerer.critic, 'score', lambda *args: q_values)
    decision, _ = rig.step(some_actions())
    assert decision.reason == reason and decision.chosen == 0


def test_a_critic_that_raises_is_named_with_its_words(rig, monkeypatch):
    def fail(*args):
        raise RuntimeError('out of memory')
    monkeypatch.setattr(rig.node._steerer.critic, 'score', fail)
    decision, _ = rig.step(some_actions())
    assert decision.reason == Reason.CRITIC_FAILED and 'out of memory' in decision.message


def test_an_instruction_the_table_does_not_know_is_named(rig, monkeypatch):
    from vgps_critic.text import UnknownInstructionError

    def refuse(text):
        raise UnknownInstructionError(f'instruction {text!r} is not among the 3')
    monkeypatch.setattr(rig.node._steerer.critic.instructions, '_embed', refuse)
    decision, _ = rig.step(some_actions(), instruction='something new')
    assert decision.reason == Reason.INSTRUCTION_UNKNOWN and 'something new' in decision.message


def test_candidates_in_other_units_hold_whatever_the_fallback(rig):
    actions = some_actions()
    actions[..., :3] *= 1000  # millimetres
    decision, command = rig.step(actions)
    assert decision.reason == Reason.ACTION_SPACE_MISMATCH and decision.chosen == -1
    assert command.kind == EndEffectorCommand.HOLD


def test_candidates_with_nan_hold(rig):
    actions = some_actions()
    actions[4, 1, 2] = np.nan
    decision, command = rig.step(actions)
    assert decision.reason == Reason.CANDIDATES_INVALID and 'the first is 4' in decision.message
    assert command.kind == EndEffectorCommand.HOLD


@pytest.mark.parametrize('k, h', [(10, 3), (0, 1), (1000000, 1000000)])
def test_candidates_whose_counts_do_not_fit_their_numbers_hold(rig, k, h):
    message = candidates_message(some_actions())
    message.num_candidates, message.horizon = k, h
    decision, command = rig.step(None, message=message)
    assert decision.reason == Reason.CANDIDATES_INVALID and command.kind == EndEffectorCommand.HOLD


def test_a_frame_with_an_unknown_encoding_is_named(rig):
    picture = images.to_message(frame_of(0), Header())
    picture.encoding = 'yuv422'
    decision, _ = rig.step(some_actions(), image=picture)
    assert decision.reason == Reason.CRITIC_FAILED and 'yuv422' in decision.message


def test_controls_do_not_depend_on_the_critic(rig):
    rig.set(selection='first')
    decision, _ = rig.step(some_actions())
    assert decision.reason == Reason.CONTROL_FIRST and decision.chosen == 0 and len(decision.q_values) == 20
    rig.set(selection='random')
    chosen = {rig.step(some_actions(), frame='never')[0].chosen for _ in range(4)}
    assert len(chosen) > 1


def test_candidates_that_come_twice_move_the_arm_once(rig):
    decision, _ = rig.step(some_actions())
    message = candidates_message(some_actions())
    message.header, message.episode_id, message.step = decision.header, decision.episode_id, decision.step
    seen = len(rig.decisions)
    rig.candidates.publish(message)
    rig.spin(0.3)
    assert len(rig.decisions) == seen


def test_only_the_last_two_seconds_of_frames_are_kept_even_when_the_clock_is_set_back(rig):
    for start in (5000, 4000):
        for i in range(100):  # 10 s at 10 Hz
            header = Header()
            header.stamp.sec, header.stamp.nanosec = start + i // 10, i % 10 * 100_000_000
            rig.node._on_image(images.to_message(frame_of(0), header))
        assert len(rig.node._frames) == 21
    rig.node._frames.clear()


def test_messages_of_a_step_that_is_over_are_ignored(rig):
    decision, _ = rig.step(some_actions())
    message = candidates_message(some_actions())
    message.header, message.episode_id, message.step = decision.header, decision.episode_id, decision.step - 1
    seen = len(rig.decisions)
    rig.candidates.publish(message)
    rig.spin(0.3)
    assert len(rig.decisions) == seen
    assert rig.step(some_actions())[0].reason == Reason.STEERED


def test_a_step_announced_far_ahead_does_not_lock_out_the_policy(rig):
    decision, _ = rig.step(some_actions())
    rig.started.publish(StepStarted(header=decision.header, episode_id=decision.episode_id, step=2**32 - 1))
    rig.spin(0.3)
    assert rig.step(some_actions())[0].reason == Reason.STEERED


def test_beta_is_live_and_bounded_and_the_configuration_follows(rig):
    assert rig.set(beta=0.25)[0].successful
    rig.spin_until(lambda: 'beta: 0.25' in rig.configurations[-1].parameters)
    assert not rig.set(beta=-1.0)[0].successful
    assert not rig.set(selection='best')[0].successful
    assert rig.step(some_actions())[0].beta == 0.25


def test_it_says_that_it_is_an_untrained_stand_in(rig):
    assert 'untrained network' in rig.configurations[-1].model
    assert len(rig.configurations[-1].model_hash) == 64


def test_diagnostics_come_every_second_and_name_the_reason(rig):
    rig.step(some_actions(), frame='never')
    rig.diagnostics.clear()
    rig.spin(2.3)
    assert len(rig.diagnostics) >= 2
    status = rig.diagnostics[-1].status[0]
    assert status.level == b'\x01' and status.message.startswith('FRAME_MISSING')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_torch_was_not_built_for_is_a_start_up_error_in_one_line():
    done = subprocess.run([sys.executable, '-m', 'vgps_critic.critic_node', '--ros-args', '-p', 'device:=cuda'],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'error: critic_node cannot use its critic' in done.stderr


def test_a_correction_by_an_operator_goes_to_the_arm_once_in_place_of_the_candidate(rig):
    correction = rig.peer.create_publisher(EndEffectorCommand, 'correction', qos.EVENT)
    rig.spin_until(correction.get_subscription_count)
    wanted = [0.01, 0.0, -0.02, 0.0, 0.0, 0.1, 0.0]
    correction.publish(EndEffectorCommand(action=wanted))
    rig.spin_until(lambda: rig.node._corrections._seen)
    rig.node._corrections._at = time.monotonic() + 60  # fresh, however busy the machine is
    decision, command = rig.step(some_actions())
    assert (decision.verdict, decision.reason) == (SteeringDecision.OPERATOR, SteeringDecision.OPERATOR_CORRECTED)
    assert command.kind == EndEffectorCommand.ACTION and list(command.action) == pytest.approx(wanted)
    assert len(decision.q_values) == 20  # what the critic thought is kept
    decision, _ = rig.step(some_actions())
    assert decision.verdict == SteeringDecision.CHOSEN
