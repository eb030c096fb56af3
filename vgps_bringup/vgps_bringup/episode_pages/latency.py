"""Where the time of a control step goes, from what the messages say and when the recorder got them."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from vgps_msgs_py.bags.reader import EpisodeRecord, Step

ENCODER_STAGES = ('embed', 'resize', 'encode')  # of the critic; they run while the policy samples
TOTAL = 'total'                                 # a policy may time itself as a whole, with parts inside
AGE = 'frame_age'                               # of the frame when the policy took it up: camera, driver and the way


@dataclass(frozen=True)
class LatencyRow:
    """One line of the table, milliseconds."""

    part: str      # 'policy', 'critic', 'arm' or 'loop'
    name: str
    p50: float
    p95: float
    largest: float
    count: int


def stages(message) -> dict[str, float]:
    """Return the timed stages of a message [ms]."""
    return {} if message is None else dict(zip(message.stages, map(float, message.stage_milliseconds)))


def model_milliseconds(step: Step) -> float | None:
    """Return the time the models took on the critical path: max(policy, encoder) + head and selection.

    The encoder works on the frame while the policy samples (contract 5), so the longer of the two counts.
    """
    if step.candidates is None or step.decision is None:
        return None
    policy, critic = stages(step.candidates), stages(step.decision)
    sampling = policy.get(TOTAL, sum(ms for name, ms in policy.items() if name != AGE))
    encoding = sum(critic.get(name, 0.0) for name in ENCODER_STAGES)
    scoring = sum(critic.get(name, 0.0) for name in ('score', 'select'))
    return max(sampling, encoding) + scoring


def image_to_command(step: Step) -> float | None:
    """Return image stamp -> joint command [ms] by the controller; None where no joint command came of it."""
    if step.verdict:  # older controllers repeat the latency of the step before
        return None
    return next((s.image_to_command_ms for s in step.states if s.image_to_command_ms > 0), None)


def frame_age(step: Step) -> float | None:
    """Return what camera, driver and the frame's way to the policy took [ms]; None where it is not recorded."""
    return stages(step.candidates).get(AGE)


def added_latency(step: Step) -> float | None:
    """Return what ROS, waiting and conversion added to the models' own time from the frame's arrival on [ms], or None.

    Where the frame's age is not recorded the camera's time is in it.
    """
    whole, models = image_to_command(step), model_milliseconds(step)
    return None if whole is None or models is None else whole - models - (frame_age(step) or 0.0)


def latency_table(episode: EpisodeRecord) -> list[LatencyRow]:
    """Return one row per stage, in the order of a control step."""
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    previous = None
    for step in episode.finished_steps:
        for part, message in (('policy', step.candidates), ('critic', step.decision)):
            for name, value in stages(message).items():
                samples[part, name].append(value)
        for state in step.states[:1]:
            samples['arm', 'inverse kinematics'].append(float(state.inverse_kinematics_ms))
        received = step.received
        for name, begin, end in (('step started → candidates', 'started', 'candidates'),
                                 ('candidates → decision', 'candidates', 'decision'),
                                 ('candidates → command', 'candidates', 'command')):
            if begin in received and end in received:
                samples['loop', name].append((received[end] - received[begin]) * 1e-6)
        for name, value in (('image stamp → joint command', image_to_command(step)),
                            ('part of it: until the policy has the frame', frame_age(step)),
                            ('models on the critical path', model_milliseconds(step)),
                            ('added by ROS: the difference', added_latency(step))):
            if value is not None:
                samples['loop', name].append(value)
        if previous is not None and step.index == previous.index + 1:
            samples['loop', 'period of a step'].append((step.stamp - previous.stamp) * 1e-6)
        previous = step
    order = {'policy': 0, 'critic': 1, 'arm': 2, 'loop': 3}
    return [LatencyRow(part, name, *(float(x) for x in np.percentile(values, (50, 95))), max(values), len(values))
            for (part, name), values in sorted(samples.items(), key=lambda item: order[item[0][0]])]
