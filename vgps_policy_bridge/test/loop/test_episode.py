"""The episode as a pure state machine: a scripted peer for every part, no ROS, no clock."""

import pytest

from vgps_policy_bridge.loop.episode import EpisodeMachine, Limits, Phase, episode_name
from vgps_policy_bridge.loop.events import (
    Announce,
    ArmReport,
    ArmState,
    DecisionReport,
    Finish,
    Goal,
    Outcome,
    ResetArm,
    ResetScene,
    Sample,
    StepDone,
    WithdrawReset,
)

LIMITS = Limits(camera=2.0, policy=10.0, critic=3.0, controller=4.0, reset=20.0, unmoved_steps=3)


def ready(stamp, step=0, episode='e', reason='ACCEPTED', state=ArmState.READY, refused=0, accepted=1):
    return ArmReport(stamp, episode, step, state, reason, 'words', accepted, refused)


def started(**goal):
    machine = EpisodeMachine(LIMITS)
    effects = machine.start(Goal('e', 'put carrot on plate', **goal), 0.0)
    assert effects == [Announce(Outcome.RUNNING)]
    return machine


def sampling(**goal):
    machine = started(**goal)
    assert machine.arm(ready(100, step=9, episode='earlier'), 0.1) == []
    assert machine.frame(101, 0.2) == [Sample(0)]
    return machine


def run_step(machine, stamp, now, reason='ACCEPTED', state=ArmState.READY, refused=0):
    step = machine.step
    machine.sampled(now)
    machine.decision(DecisionReport('e', step, chosen=2, value=-3.0), now)
    return machine.arm(ready(stamp, step, reason=reason, state=state, refused=refused), now)


def test_scene_then_arm_are_reset_before_the_episode_is_announced():
    machine = EpisodeMachine(LIMITS)
    assert machine.start(Goal('e', '', task='carrot', reset=True), 0.0) == [ResetScene()]
    assert machine.scene_reset(True, '', 'put carrot on plate', 1.0) == []
    assert machine.tick(1.4) == [], 'the controller has to see first where the new scene put the arm'
    assert machine.tick(1.6) == [ResetArm()]
    assert machine.goal.instruction == 'put carrot on plate'
    assert machine.arm_reset(True, '', 1000, 2.0) == []
    assert machine.arm(ready(999), 2.0) == []  # sent before the motion began
    assert machine.arm(ready(1001, state=ArmState.HOMING), 2.1) == []
    assert machine.arm(ready(1002), 9.0) == [Announce(Outcome.RUNNING)]


def resetting():
    machine = EpisodeMachine(LIMITS)
    assert machine.start(Goal('e', 'x', reset=True), 0.0) == [ResetArm()]
    return machine


def homing():
    machine = resetting()
    assert machine.arm_reset(True, 'on the way', 1000, 0.1) == [] and machine.phase is Phase.HOMING
    return machine


@pytest.mark.parametrize('begin', [resetting, homing])
def test_start_pose_is_asked_for_again_and_again_while_it_is_wanted_and_not_longer(begin):
    machine = begin()
    asked = sum(machine.tick(0.2 + 0.05 * i) == [ResetArm()] for i in range(40))
    assert 12 <= asked <= 22
    machine.arm_reset(True, 'on the way', 1000, 2.2)
    assert machine.arm(ready(2000), 2.3) == [Announce(Outcome.RUNNING)]
    assert all(machine.tick(2.4 + 0.05 * i) == [] for i in range(40))


@pytest.mark.parametrize('begin', [resetting, homing])
def test_refused_reset_ends_the_goal_and_is_not_asked_again(begin):
    machine = begin()
    effects = machine.arm_reset(False, 'MOTOR_ERROR: servo elbow', 1, 0.3)
    assert effects == [WithdrawReset(), Finish(
        Outcome.ABORTED, 'the arm could not be reset: MOTOR_ERROR: servo elbow', 0)]
    assert all(machine.tick(0.3 + 0.1 * i) == [] for i in range(300))


@pytest.mark.parametrize('end', [
    lambda m: m.cancel('by the client'), lambda m: m.tick(99.0), lambda m: m.arm_reset(False, 'no', 1, 1.0),
    lambda m: m.arm(ready(2000, state=ArmState.STOPPED, reason='STOP_REQUESTED'), 1.0),
    lambda m: m.arm(ready(2000, state=ArmState.STOPPED, reason='FAULT'), 1.0)])
@pytest.mark.parametrize('begin', [resetting, homing])
def test_goal_that_ends_before_its_start_pose_withdraws_what_it_asked_for(begin, end):
    machine = begin()
    assert [type(effect) for effect in end(machine)] == [WithdrawReset, Finish]
    assert not machine.running and machine.tick(200.0) == []


@pytest.mark.parametrize('report', [
    dict(state=ArmState.HOLDING, reason='STALE_JOINT_STATES'), dict(reason='POLICY_LOST'),
    dict(reason='HOLD_REQUESTED')])
def test_controller_that_gave_the_move_up_is_not_taken_for_one_that_arrived(report):
    effects = homing().arm(ready(2000, **report), 1.0)
    assert effects[-1].outcome is Outcome.ABORTED and 'could not be reset' in effects[-1].message


def test_operator_who_moves_the_arm_ends_the_episode():
    effects = sampling().arm(ready(2000, state=ArmState.HOMING), 1.0)
    assert [e.outcome for e in effects] == [Outcome.CANCELLED] * 2


def test_scene_that_disturbed_the_arm_is_waited_for_and_nothing_else_is():
    machine = EpisodeMachine(LIMITS)
    machine.start(Goal('e', 'x', task='carrot'), 0.0)
    machine.scene_reset(True, '', '', 1.0)
    machine.arm(ready(5, state=ArmState.HOLDING, reason='JOINT_JUMP'), 1.1)
    assert machine.tick(1.6) == [] and machine.tick(2.0) == []
    machine.arm(ready(6), 2.1)
    assert machine.tick(2.2) == [ResetArm()]
    assert machine.arm_reset(False, 'JOINT_JUMP', 7, 2.3)[-1].outcome is Outcome.ABORTED


def test_arm_that_stops_on_the_way_to_its_start_pose_aborts_without_announcing():
    machine = EpisodeMachine(LIMITS)
    machine.start(Goal('e', 'x', reset=True), 0.0)
    machine.arm_reset(True, '', 1, 0.1)
    effects = machine.arm(ready(2, state=ArmState.STOPPED, reason='JOINT_STEP'), 1.0)
    assert [type(effect) for effect in effects] == [WithdrawReset, Finish] and 'JOINT_STEP' in effects[1].message


def test_goals_own_instruction_wins_over_the_tasks():
    machine = EpisodeMachine(LIMITS)
    machine.start(Goal('e', 'do this', task='carrot'), 0.0)
    machine.scene_reset(True, '', 'put carrot on plate', 1.0)
    assert machine.goal.instruction == 'do this'


@pytest.mark.parametrize('instruction', ['', '  '])
def test_no_instruction_anywhere_aborts_without_announcing(instruction):
    effects = EpisodeMachine(LIMITS).start(Goal('e', instruction), 0.0)
    assert len(effects) == 1 and effects[0].outcome is Outcome.ABORTED and 'instruction' in effects[0].message


def test_failed_scene_reset_aborts_without_announcing():
    machine = EpisodeMachine(LIMITS)
    machine.start(Goal('e', 'x', task='nope'), 0.0)
    assert machine.scene_reset(False, 'unknown task', '', 0.1) == [
        Finish(Outcome.ABORTED, 'reset_scene failed: unknown task', 0)]


def test_frame_from_before_the_last_motion_is_never_used():
    machine = started()
    machine.frame(99, 0.0)
    assert machine.arm(ready(100), 0.1) == []
    assert machine.frame(100, 0.2) == []
    assert machine.frame(101, 0.3) == [Sample(0)]
    assert machine.frame(102, 0.4) == []


def test_newer_frame_already_there_is_used_at_once():
    machine = started()
    machine.frame(150, 0.0)
    assert machine.arm(ready(100), 0.1) == [Sample(0)]


def test_next_step_needs_decision_and_controller_in_either_order():
    for decision_first in (True, False):
        machine = sampling()
        machine.sampled(0.3)
        assert machine.arm(ready(200, step=9, episode='earlier'), 0.3) == []
        events = [lambda m=machine: m.decision(DecisionReport('e', 0, 1), 0.4),
                  lambda m=machine: m.arm(ready(300, step=0), 0.5)]
        first, second = events if decision_first else events[::-1]
        assert first() == []
        effects = second()
        assert [type(effect) for effect in effects] == [StepDone] and machine.phase is Phase.FRAME
        assert machine.frame(301, 0.6) == [Sample(1)]


def test_moving_arm_or_report_on_an_earlier_step_does_not_end_the_step():
    machine = sampling()
    run_step(machine, 200, 0.3)
    machine.frame(201, 0.4)
    machine.sampled(0.5)
    machine.decision(DecisionReport('e', 1, 0), 0.5)
    assert machine.arm(ready(300, step=0), 0.6) == []
    assert machine.arm(ready(300, step=1, state=ArmState.MOVING), 0.6) == []
    assert len(machine.arm(ready(400, step=1), 0.7)) == 1


def test_controller_that_knows_the_episode_but_no_command_yet_has_not_finished_step_0():
    machine = started()
    machine.arm(ready(100, step=0, accepted=7), 0.1)
    machine.frame(101, 0.2)
    machine.sampled(0.3)
    machine.decision(DecisionReport('e', 0, 0), 0.3)
    assert machine.arm(ready(200, step=0, accepted=7), 0.4) == []
    assert len(machine.arm(ready(300, step=0, accepted=8), 0.5)) == 1


def test_hold_by_the_critic_in_step_0_ends_the_step():
    machine = started()
    machine.arm(ready(100, step=0, accepted=7), 0.1)
    machine.frame(101, 0.2)
    machine.sampled(0.3)
    machine.decision(DecisionReport('e', 0, -1), 0.3)
    assert len(machine.arm(ready(200, step=0, accepted=7, reason='HOLD_REQUESTED'), 0.4)) == 1


def test_decision_for_another_step_or_episode_is_ignored():
    machine = sampling()
    machine.sampled(0.3)
    machine.decision(DecisionReport('e', 1, 0), 0.3)
    machine.decision(DecisionReport('other', 0, 0), 0.3)
    assert machine.phase is Phase.DECIDE


def test_max_steps_ends_in_timeout():
    machine = sampling(max_steps=2)
    assert len(run_step(machine, 200, 0.3)) == 1
    machine.frame(201, 0.4)
    effects = run_step(machine, 300, 0.5)
    assert effects[1:] == [Announce(Outcome.TIMEOUT, '2 steps used up'), Finish(Outcome.TIMEOUT, '2 steps used up', 2)]
    assert not machine.running


def test_refused_command_is_followed_by_a_fresh_step_and_many_abort():
    machine = sampling()
    # Refused commands are not "taken": the step in the report stays behind, the counter grows.
    machine.sampled(0.3)
    machine.decision(DecisionReport('e', 0, 0), 0.3)
    report = ArmReport(200, 'e', 0, ArmState.HOLDING, 'UNREACHABLE', 'no pose', refused=1)
    assert [type(e) for e in machine.arm(report, 0.4)] == [StepDone]
    for count in (2, 3):
        machine.frame(100 * count + 101, 0.5)
        effects = run_step(machine, 100 * count + 200, 0.6, 'JOINT_LIMIT', ArmState.HOLDING, refused=count)
    assert effects[-1].outcome is Outcome.ABORTED and '3 steps in a row' in effects[-1].message
    assert 'JOINT_LIMIT' in effects[-1].message


def test_accepted_step_resets_the_count_of_unmoved_ones():
    machine = sampling()
    stamp = 200
    for index in range(12):
        reason = 'ACCEPTED' if index % 3 == 2 else 'HOLD_REQUESTED'
        run_step(machine, stamp, 0.3, reason)
        machine.frame(stamp + 1, 0.3)
        stamp += 10
    assert machine.running and machine.step == 12


def test_fault_of_the_arm_is_waited_for_then_named():
    machine = sampling()
    assert run_step(machine, 200, 1.0, 'MOTOR_ERROR', ArmState.HOLDING) == []
    assert machine.tick(4.9) == []
    effects = machine.tick(5.1)
    assert effects[0].outcome is Outcome.ABORTED
    assert effects[0].message.startswith('controller lost') and 'MOTOR_ERROR' in effects[0].message


def test_what_policy_node_slept_through_is_not_the_silence_of_the_camera():
    machine = started()
    machine.arm(ready(100), 0.1)
    assert machine.tick(0.2) == [] and machine.tick(20.0) == []
    assert machine.tick(20.2) == []
    asleep = machine.frame(101, 20.3)
    assert asleep, 'the next frame is taken'
    lost = started()
    lost.arm(ready(100), 0.1)
    effects = [effect for i in range(60) for effect in lost.tick(0.2 + 0.1 * i)]
    assert effects[0].message.startswith('camera lost'), 'a camera that is silent while we look is named'


def test_stopped_controller_ends_the_goal_in_any_phase():
    scene = EpisodeMachine(LIMITS)
    scene.start(Goal('e', 'x', task='carrot'), 0.0)
    deciding, moving = sampling(), sampling()
    for machine in (deciding, moving):
        machine.sampled(0.3)
    moving.decision(DecisionReport('e', 0, 0), 0.3)
    frame = started()
    frame.arm(ready(100), 0.1)
    for machine in (scene, resetting(), homing(), started(), frame, sampling(), deciding, moving):
        phase = machine.phase
        effects = machine.arm(ready(2000, state=ArmState.STOPPED, reason='STOP_REQUESTED'), 1.0)
        assert effects[-1].outcome is Outcome.CANCELLED, phase
        assert not machine.running


@pytest.mark.parametrize('phase, limit, word', [
    (Phase.SCENE, 20, 'simulation'), (Phase.ARM, 20, 'controller'), (Phase.START, 4, 'controller'),
    (Phase.FRAME, 2, 'camera'), (Phase.SAMPLE, 10, 'policy'), (Phase.DECIDE, 3, 'critic'),
    (Phase.MOVE, 4, 'controller')])
def test_each_silent_part_is_named(phase, limit, word):
    machine = EpisodeMachine(LIMITS)
    machine.start(Goal('e', 'x', task='t' if phase is Phase.SCENE else '', reset=phase is Phase.ARM), 0.0)
    if phase not in (Phase.SCENE, Phase.ARM, Phase.START):
        machine.arm(ready(100), 0.0)
    if phase in (Phase.SAMPLE, Phase.DECIDE, Phase.MOVE):
        machine.frame(101, 0.0)
    if phase in (Phase.DECIDE, Phase.MOVE):
        machine.sampled(0.0)
    if phase is Phase.MOVE:
        machine.decision(DecisionReport('e', 0, 0), 0.0)
    assert machine.phase is phase
    assert machine.tick(limit) in ([], [ResetArm()])
    effects = machine.tick(limit + 0.1)
    assert effects[-1].outcome is Outcome.ABORTED and effects[-1].message.startswith(f'{word} lost')
    assert machine.tick(limit + 99) == []


def test_unsynchronised_clock_is_suspected():
    machine = started()
    machine.arm(ready(5_000_000_000), 0.0)
    machine.frame(1_000_000_000, 1.0)
    assert '4.000 s older' in machine.tick(3.0)[0].message


def test_cancel_ends_the_episode_and_late_candidates_are_unwanted():
    machine = sampling()
    assert machine.expects_candidates('e', 0)
    assert machine.cancel('by the client') == [Announce(Outcome.CANCELLED, 'by the client'),
                                               Finish(Outcome.CANCELLED, 'by the client', 0)]
    assert not machine.expects_candidates('e', 0) and machine.cancel('again') == []


def test_judge_ends_a_running_episode_and_may_correct_one_that_is_over():
    machine = sampling()
    effects, refusal = machine.judge('', True, '')
    assert not refusal and [e.outcome for e in effects] == [Outcome.SUCCESS] * 2
    effects, refusal = machine.judge('e', False, 'early drop')
    assert effects == [Announce(Outcome.FAILURE, 'early drop')] and not refusal
    assert 'not other' in machine.judge('other', True, '')[1]
    assert 'no episode' in EpisodeMachine(LIMITS).judge('', True, '')[1]


def test_policy_failure_aborts():
    assert sampling().sample_failed('NaN')[0] == Announce(Outcome.ABORTED, 'policy failed: NaN')


def test_episode_name_is_a_file_name():
    assert episode_name('20260102T030405678', '', 'Put the "carrot"/on plate!', 7) == \
        '20260102T030405678_put_the_carrot_on_plate_s7'
    assert episode_name('t', '', '把胡萝卜放在盘子上', 1) == 't_s1'
