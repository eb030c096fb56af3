"""Which policies and critics may act on which robot of SIMPLER's tasks; everything else is refused by name.

The Google Robot's actions are larger than the WidowX's. A policy has to say that it acts in the units of that robot's
data, which have a name of their own, and a critic that it was trained on them.
"""

import copy
from dataclasses import replace

from vgps_bringup.trials.plan import Condition, Study
from vgps_bringup.trials.simpler.environments import SimplerError, robot_of
from vgps_bringup.trials.simpler.scripted import SCRIPTED
from vgps_critic.action_space import ActionSpace
from vgps_policy_bridge.policy import FRACTAL, Candidates, check_widowx

BRIDGE = ('bridge_dataset', 'bridge_orig')  # BridgeData as Octo and RT-1-X, and as OpenVLA call it
CHOOSING = ('octo', 'openvla', 'rt-1-x')    # beginnings of the names of policies with the option `statistics`
ANY_ROBOT = (SCRIPTED, 'random-policy')     # the first sees the simulator; the second is metres within stated limits
_TRAINED = "it was trained on a WidowX and looks at that arm's state"
_ADAPTER = "its adapter takes actions and state as BridgeData has them"
WIDOWX_ONLY = {'flow': _TRAINED, 'binned': _TRAINED, 'openpi': _ADAPTER, 'lerobot': _ADAPTER}


def check_study(study: Study) -> None:
    """Refuse a study before anything of it is played.

    Raises:
        SimplerError: a policy cannot act on the robot of one of the tasks, or a condition retries on alarm.

    """
    for condition in study.conditions:
        if condition.steering.get('on_alarm') == 'retry':
            raise SimplerError(f'{condition.name}: on_alarm: retry is not played in SIMPLER, whose protocol averages '
                               'the chunks of several steps and knows no way back: leave it out')
    for task in study.tasks:
        for condition in study.conditions:
            for_robot(condition, robot_of(task.name))


def for_robot(condition: Condition, robot: str) -> Condition:
    """Return the condition with the statistics of the robot's own data, unless it names some.

    Raises:
        SimplerError: the policy acts in another robot's units.

    """
    policy, asked = condition.policy, condition.policy_options.get('statistics', '')
    choosing = policy.startswith(CHOOSING)
    if robot != 'google':
        if choosing and asked == FRACTAL:
            raise SimplerError(f"{policy}: the statistics {FRACTAL} are the Google Robot's, and this is a WidowX's "
                               'task; leave the option out')
        return condition
    if policy in WIDOWX_ONLY:
        raise SimplerError(f'{policy} cannot act on the Google Robot: {WIDOWX_ONLY[policy]}')
    if asked in BRIDGE:
        raise SimplerError(f"{policy}: the statistics {asked} are the WidowX's; the Google Robot needs {FRACTAL}, "
                           'which are taken when the option is left out')
    if not choosing:
        return condition
    return replace(condition, policy_options={**condition.policy_options, 'statistics': asked or FRACTAL})


def check_units(candidates: Candidates, condition: Condition, robot: str) -> None:
    """Refuse candidates that cannot be shown to be in the robot's units: some policies tell at the first step only.

    Raises:
        CandidatesError: they are the Google Robot's, for a WidowX.
        SimplerError: they are not known to be the Google Robot's.

    """
    if robot != 'google':
        check_widowx(candidates)
        return
    units, asked = candidates.statistics, condition.policy_options.get('statistics')
    if condition.policy in ANY_ROBOT or (units and (FRACTAL in units or units == asked)):
        return
    if units:
        raise SimplerError(f"{candidates.policy} acts in the units of {units}, not the Google Robot's ({FRACTAL}); a "
                           f"policy that has these takes the option 'statistics: {FRACTAL}'")
    raise SimplerError(f"{candidates.policy} does not say in which data set's units it acts (Candidates.statistics): "
                       'it cannot be shown to act on the Google Robot')


def critic_for_robot(critic, name: str, robot: str):
    """Return the critic with the reference's action bounds of this robot.

    One critic serves both, but the reference's evaluation normalises the Google Robot's actions with that data's
    limits; within BridgeData's most of them would be clipped to the same number. A critic whose bounds are its own
    keeps them. A critic that is called untrained is let through: with it only the time is of interest.

    Raises:
        SimplerError: the critic was not trained on this robot's data, or its bounds are the other's.

    """
    bridge, fractal = (_bounds(ActionSpace.named(name)) for name in ('bridge', 'fractal'))
    own = _bounds(critic.action_space)
    if robot != 'google':
        if own == fractal:
            raise SimplerError(f"critic {name}: its bounds of the actions are the Google Robot's, within which all of "
                               "a WidowX's are about the same; import it with --action-space bridge")
        return critic
    config = critic.config
    if 'fractal' not in config.data and config.algorithm != 'untrained':
        raise SimplerError(f'critic {name} was trained on {config.data or "data that it does not name"}: not on the '
                           f"Google Robot's ({FRACTAL}), so its values mean nothing there")
    if own != bridge:
        return critic
    critic = copy.copy(critic)
    critic.action_space = ActionSpace.named('fractal')
    return critic


def _bounds(space: ActionSpace) -> tuple:
    return space.rule, space.low, space.high
