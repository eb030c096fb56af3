"""``vgps-evaluate``: bag | trials | simpler | overhead. Each says more with ``--help``."""

import argparse
import os
import sys
from pathlib import Path


def _numbers(kind):
    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(',') if part.strip())
    parse.__name__ = f'comma-separated {kind.__name__}s'
    return parse


def load_critics(names: list[str]) -> dict[str, object]:
    """Load checkpoints by path, hub id, or ``untrained`` (random weights); named by folder.

    Raises:
        SystemExit: a checkpoint cannot be used.

    """
    from vgps_critic.checkpoint import CheckpointError
    from vgps_critic.critic import Critic
    critics = {}
    for name in names:
        try:
            critic = Critic.untrained() if name == 'untrained' else Critic.load(name)
        except (CheckpointError, OSError, ValueError) as error:
            sys.exit(f'vgps-evaluate: critic {name}: {error}')
        label = Path(name).name or name
        critics[label if label not in critics else name] = critic
    return critics


def add_bag(commands) -> None:
    """Add ``vgps-evaluate bag``."""
    parser = commands.add_parser('bag', help='judge recordings again under other critics, K and beta')
    parser.add_argument('bags', nargs='+', type=Path, help='rosbag2 folders or files (MCAP, sqlite3)')
    parser.add_argument('--critic', action='append', required=True,
                        help="checkpoint folder or hub id, repeatable; 'untrained': random weights")
    parser.add_argument('--k', type=_numbers(int), default=(), help='numbers of candidates, e.g. 10,50; default: as '
                        'recorded')
    parser.add_argument('--beta', type=_numbers(float), default=(0.0,), help='temperatures, e.g. 0,0.1,1.0')
    parser.add_argument('--policy', help='propose candidates anew with this policy')
    parser.add_argument('--instruction', default='', help='for recordings that name none')
    parser.add_argument('--image-topic', help='where several cameras were recorded')
    parser.add_argument('--output', type=Path, default=Path('rejudged'), help='report folder')
    parser.set_defaults(run=run_bag)


def run_bag(options) -> None:
    """Re-judge recordings."""
    from vgps_bringup.evaluation.bag_storage import BagError
    from vgps_bringup.evaluation.rejudge import Rejudge
    from vgps_bringup.evaluation.rejudge_report import judge_bags, write
    policy = None
    if options.policy:
        from vgps_policy_bridge.policy import load_policy
        policy = load_policy(options.policy)
    try:
        rejudge = Rejudge(load_critics(options.critic), options.k, options.beta, policy)
        summary = write(judge_bags(options.bags, rejudge, options.instruction, options.image_topic), options.output)
    except BagError as error:
        sys.exit(f'vgps-evaluate bag: {error}')
    for problem in summary['problems']:
        print(f'note: {problem}', file=sys.stderr)
    for line in summary['settings']:
        print(f'{line["critic"]}  K {line["k"]:3d}  beta {line["beta"]:<5g} differs {100 * line["differs"]:5.1f} %  '
              f'value {line["value"]:8.3f}  regret {line["regret"]:7.3f}  fallbacks {line["fallbacks"]} of '
              f'{line["steps"]}')
    same = summary['live_and_offline_agree']
    if same['of']:
        print(f'live and offline choices agree on {same["same"]} of {same["of"]} steps')
    print(f'{summary["times_real_time"]:.1f} times faster than real time. Report: {options.output / "index.html"}')


def main() -> None:
    """Dispatch."""
    # one small batch at a time: more threads only wait for each other
    os.environ.setdefault('OMP_NUM_THREADS', '2')
    parser = argparse.ArgumentParser(prog='vgps-evaluate', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    for add in (add_bag,):
        add(commands)
    options = parser.parse_args()
    options.run(options)


if __name__ == '__main__':
    main()
