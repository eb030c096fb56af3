"""From the marks of a system's nodes to a table: where the time between a camera frame and its joint command goes."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CAMERA, ROS, MODELS, ARM = 'camera', 'ROS', 'models', 'arm'


@dataclass(frozen=True)
class Stage:
    """One stretch of a step, between two marks of two nodes."""

    name: str
    whose: str
    begin: tuple[str, str, str] | None  # node, what, where; None: the frame's stamp
    end: tuple[str, str, str]


STAGES = (
    Stage('frame taken → published', CAMERA, None, ('camera', 'publish', 'image_raw')),
    Stage('→ policy_node has it', ROS, ('camera', 'publish', 'image_raw'), ('policy_node', 'receive', 'image_raw')),
    Stage('→ the policy begins', ROS, ('policy_node', 'receive', 'image_raw'), ('policy_node', 'begin', 'sample')),
    Stage('policy', MODELS, ('policy_node', 'begin', 'sample'), ('policy_node', 'end', 'sample')),
    Stage('→ candidates published', ROS, ('policy_node', 'end', 'sample'), ('policy_node', 'publish', 'candidates')),
    Stage('→ critic_node has them', ROS, ('policy_node', 'publish', 'candidates'),
          ('critic_node', 'receive', 'candidates')),
    Stage('rest of the encoder', MODELS, ('critic_node', 'receive', 'candidates'), ('critic_node', 'end', 'encode')),
    Stage('→ scoring begins', ROS, ('critic_node', 'end', 'encode'), ('critic_node', 'begin', 'score')),
    Stage('scoring', MODELS, ('critic_node', 'begin', 'score'), ('critic_node', 'end', 'score')),
    Stage('→ chosen, command published', ROS, ('critic_node', 'end', 'score'), ('critic_node', 'publish', 'command')),
    Stage('→ widowx_node has it', ROS, ('critic_node', 'publish', 'command'), ('widowx_node', 'receive', 'command')),
    Stage('guards, inverse kinematics', ARM, ('widowx_node', 'begin', 'guards'), ('widowx_node', 'end', 'guards')),
    Stage('→ joint command published', ROS, ('widowx_node', 'end', 'guards'),
          ('widowx_node', 'publish', 'joint_command')),
)


def read_marks(folder: Path) -> dict[int, dict[tuple[str, str, str], int]]:
    """Return the first time [ns] of every mark by the image's stamp; each file of the folder is named after its node.

    The camera is the node that publishes ``image_raw``.
    """
    steps: dict[int, dict] = defaultdict(dict)
    for path in sorted(folder.iterdir()):
        for line in path.read_text().splitlines():
            what, where, stamp, when = line.split()
            node = 'camera' if (what, where) == ('publish', 'image_raw') else path.name
            steps[int(stamp)].setdefault((node, what, where), int(when))
    return steps


def split(marks: dict[tuple[str, str, str], int], stamp: int) -> list[float] | None:
    """Return the duration [ms] of each of STAGES in one step, None where it led to no joint command.

    The encoder works while the policy samples: its rest is what lies behind the arrival of the candidates, and where
    nothing is left scoring waits for the candidates alone.
    """
    times = {None: stamp, **marks}
    encoded = ('critic_node', 'end', 'encode')
    if any(stage.end not in times for stage in STAGES):
        return None
    times[encoded] = max(times[encoded], times['critic_node', 'receive', 'candidates'])
    return [1e-6 * (times[stage.end] - times[stage.begin]) for stage in STAGES]


def table(folder: Path) -> tuple[list[tuple[str, str, float, float]], int]:
    """Return rows (stage, whose, p50, p95 [ms]) and the number of steps they are of, sums last.

    Raises:
        ValueError: no step has all marks.

    """
    steps = {stamp: parts for stamp, marks in read_marks(folder).items() if (parts := split(marks, stamp))}
    if not steps:
        raise ValueError(f'no step in {folder} has every mark from its frame to its joint command')
    values = np.array(list(steps.values()))
    rows = [(stage.name, stage.whose, *np.percentile(values[:, i], (50, 95))) for i, stage in enumerate(STAGES)]
    total = values.sum(axis=1)
    for whose in (CAMERA, MODELS, ARM, ROS):
        mine = values[:, [stage.whose == whose for stage in STAGES]].sum(axis=1)
        rows.append((f'{whose} in all', whose, *np.percentile(mine, (50, 95))))
    rows.append(('frame taken → joint command', '', *np.percentile(total, (50, 95))))
    return rows, len(values)
