"""What pages, summary.json and the terminal say of an episode: every number comes from here, once."""

import datetime
from collections import Counter

import numpy as np

from vgps_bringup.episode_pages.latency import added_latency, frame_age, image_to_command, model_milliseconds
from vgps_critic.config import CriticConfig
from vgps_msgs_py.bags.reader import Bag, EpisodeRecord, Step
from vgps_msgs_py.vocabulary import ControllerReason, SteeringReason, TaskFailure, name, words

# What a node says of itself in NodeConfiguration.model where a trained model is missing.
STAND_INS = ('stand-in', 'untrained', 'random-policy', 'scripted')
# Rewards are -1 per step until success and 0 after it: a discounted return lies in here
VALUE_BAND = (-1 / (1 - CriticConfig.discount), 0.0)
NOT_SAID = 'unknown'


def stand_ins(bag: Bag) -> dict[str, str]:
    """Return node -> what it ran in place of a trained model."""
    return {node: message.model for node, message in bag.configurations.items()
            if any(word in message.model.lower() for word in STAND_INS)}


def refusal(step: Step) -> str:
    """Return why the arm did not carry out a step's command, e.g. ``STALE_IMAGE``; '' where it did or nobody said."""
    return name(ControllerReason, step.verdict) if step.verdict else ''


def refusals(episode: EpisodeRecord) -> dict[str, int]:
    """Return how many commands were refused or held, by the controller's reason, most frequent first."""
    return dict(Counter(filter(None, map(refusal, episode.finished_steps))).most_common())


def refusal_sentence(commands: int, refused: dict[str, int]) -> str:
    """Return e.g. '4 of 33 commands refused: STALE_IMAGE', or nothing."""
    if not refused:
        return ''
    reasons = next(iter(refused)) if len(refused) == 1 else ', '.join(f'{n} {reason}' for reason, n in refused.items())
    verb = 'held' if set(refused) == {ControllerReason.HOLD_REQUESTED.name} else 'refused'
    return f'{sum(refused.values())} of {commands} commands {verb}: {reasons}'


def outside_band(episode: EpisodeRecord) -> int:
    """Return in how many steps a candidate's value (ensemble minimum) is one that no discounted return can have."""
    low, high = VALUE_BAND
    minima = [step.q_values.min(axis=0) for step in episode.finished_steps if step.q_values is not None]
    return sum(bool(np.any((q < low) | (q > high))) for q in minima)


def band_sentence(outside: int, scored: int) -> str:
    """Say what values beyond the band mean, or nothing."""
    low, high = VALUE_BAND
    return (f'{outside} of {scored} scored steps hold values outside −{-low:.0f} … {high:.0f}, the range of a return '
            'of −1 per step: there the critic extrapolates, and only the order of its values is meaningful'
            ) if outside else ''


def reason_counts(episode: EpisodeRecord) -> dict[str, int]:
    """Return how often each reason stood behind a decision, most frequent first."""
    return dict(Counter(words(SteeringReason, s.decision.reason) for s in episode.finished_steps
                        if s.decision is not None).most_common())


def condition(summary: dict) -> str:
    """Return who chose in an episode, as its decisions say: the critic, the plain policy, or chance."""
    if not summary['reasons']:
        return 'no decisions'
    controls = {words(SteeringReason, SteeringReason.CONTROL_FIRST): 'plain policy',
                words(SteeringReason, SteeringReason.CONTROL_RANDOM): 'random choice'}
    return next((text for reason, text in controls.items() if reason in summary['reasons']), 'steered')


def summarize(bag: Bag, episode: EpisodeRecord) -> dict:
    """Return the facts of an episode as plain values; every count is one of its finished steps."""
    steps = episode.finished_steps
    decisions = [s.decision for s in steps if s.decision is not None]
    periods = np.diff([s.stamp for s in steps]) * 1e-9
    timed = [s for s in steps if image_to_command(s) is not None]
    whole, age, models, added = ([x for x in map(part, timed) if x is not None]
                                 for part in (image_to_command, frame_age, model_milliseconds, added_latency))
    commands = sum(s.command is not None for s in steps)
    refused, outside = refusals(episode), outside_band(episode)
    scored = sum(s.q_values is not None for s in steps)
    last_state = episode.task_states[-1] if episode.task_states else None
    return {
        'episode_id': episode.episode_id, 'instruction': episode.instruction, 'task': episode.task,
        'seed': episode.seed, 'outcome': episode.outcome, 'message': episode.message,
        'failure': words(TaskFailure, last_state.failure) if last_state is not None and last_state.failure
                   and not last_state.success else '',
        'steps': len(steps), 'under_way': len(episode.steps) - len(steps), 'seconds': round(episode.duration, 3),
        'steps_per_second': float(1 / np.median(periods)) if len(periods) and np.median(periods) > 0 else None,
        'policy': next((s.candidates.policy for s in episode.steps if s.candidates is not None), ''),
        'critic_hash': next((d.critic_hash for d in decisions), ''),
        'candidates': int(np.median([d.num_candidates for d in decisions])) if decisions else 0,
        'beta': float(decisions[0].beta) if decisions else None,
        'reasons': reason_counts(episode),
        'commands': commands, 'refused': refused, 'steps_outside_value_band': outside, 'judged_steps': scored,
        'remarks': [text for text in (refusal_sentence(commands, refused), band_sentence(outside, scored)) if text],
        'image_to_command_ms': percentiles(whole), 'frame_age_ms': percentiles(age),
        'models_ms': percentiles(models), 'added_ros_latency_ms': percentiles(added),
        'stand_ins': stand_ins(bag), 'problems': bag.problems,
    }


def percentiles(values: list[float]) -> dict[str, float] | None:
    """Return median, 95th percentile and count, None of nothing."""
    return {'p50': float(np.percentile(values, 50)), 'p95': float(np.percentile(values, 95)),
            'n': len(values)} if values else None


def describe(label: str, summary: dict) -> str:
    """Return one line for the terminal."""
    text = (f'{label}: {summary["outcome"].upper()}{" (" + summary["failure"] + ")" if summary["failure"] else ""}, '
            f'{summary["steps"]} steps, {summary["seconds"]:.1f} s')
    if summary['steps_per_second']:
        text += f', {summary["steps_per_second"]:.1f} steps/s'
    if summary['added_ros_latency_ms']:
        parts = (('the frame takes', 'frame_age_ms'), ('the models', 'models_ms'))
        said = ''.join(f'{words} {summary[key]["p50"]:.0f}, ' for words, key in parts if summary[key])
        text += (f', image to command {summary["image_to_command_ms"]["p50"]:.0f} ms: {said}ROS adds '
                 f'{summary["added_ros_latency_ms"]["p50"]:.1f} (p95 {summary["added_ros_latency_ms"]["p95"]:.1f})')
    return '\n  '.join([text, *summary['remarks']])


def provenance(bag: Bag, summary: dict) -> dict[str, str]:
    """Return where an episode comes from, name -> text, 'unknown' for what nobody said."""
    nodes = bag.configurations
    recorded = datetime.datetime.fromtimestamp(bag.first * 1e-9, datetime.timezone.utc)
    policy, critic = nodes.get('policy_node'), nodes.get('critic_node')
    return {
        'recorded': f'{recorded:%Y-%m-%d %H:%M} UTC',
        'policy': ' '.join(filter(None, (summary['policy'], policy.model_hash[:12] if policy else ''))) or NOT_SAID,
        'critic': ' '.join(filter(None, (critic.model if critic else '', summary['critic_hash'][:12]))) or NOT_SAID,
        'K': str(summary['candidates'] or NOT_SAID),
        'β': NOT_SAID if summary['beta'] is None else f'{summary["beta"]:g}',
        'seed': str(summary['seed']),
        'software': ', '.join(sorted({m.version for m in nodes.values()})) or NOT_SAID,
    }
