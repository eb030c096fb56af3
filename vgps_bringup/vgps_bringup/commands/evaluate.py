"""Judge recordings anew, play trials under several conditions, measure times. Each command says more with --help.

Example: vgps-evaluate bag runs --critic default --k 1,10 --beta 0,1
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from vgps_bringup.commands import checks
from vgps_bringup.rejudging.critics import load_critic, load_critics
from vgps_policy_bridge.errors import PolicyError


def _numbers(kind):
    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(',') if part.strip())
    parse.__name__ = f'comma-separated {kind.__name__}s'
    return parse


def add_bag(commands) -> None:
    """Add ``vgps-evaluate bag``."""
    parser = commands.add_parser('bag', help='judge recordings again under other critics, K and beta')
    parser.add_argument('bags', nargs='+', type=Path, help='rosbag2 folders or files (MCAP, sqlite3)')
    parser.add_argument('--critic', action='append', required=True,
                        help="checkpoint folder, hub id, 'default' (shipped) or 'untrained'; repeatable")
    parser.add_argument('--k', type=_numbers(int), default=(), help='numbers of candidates, e.g. 10,50; default: as '
                        'recorded')
    parser.add_argument('--beta', type=_numbers(float), default=(0.0,), help='temperatures, e.g. 0,0.1,1.0')
    parser.add_argument('--policy', help='propose candidates anew with this policy')
    parser.add_argument('--instruction', default='', help='for recordings that name none')
    parser.add_argument('--camera', '--image-topic', help='image topic, or its end, where several were recorded')
    parser.add_argument('--joint-topic', help='joint states, where several arms were recorded by other software')
    parser.add_argument('--output', type=Path, default=Path('rejudged'), help='report folder')
    parser.add_argument('--overwrite', action='store_true', help='replace a report that is there')
    parser.set_defaults(run=run_bag, check=check_bag)


def check_bag(options) -> None:
    """Refuse what cannot be right before anything is loaded or written."""
    for path in options.bags:
        checks.recording(path)
    for name in options.critic:
        checks.critic(name)
    checks.candidates(*options.k)
    checks.temperature(*options.beta)
    if options.policy:
        checks.policy(options.policy)
    checks.new_folder(options.output)
    checks.unused(options.output / 'index.html', options.overwrite)
    options.bags = checks.recordings(options.bags)


def run_bag(options) -> None:
    """Re-judge recordings."""
    from vgps_bringup.rejudging.rejudge import Rejudge
    from vgps_bringup.rejudging.report import judge_bags, write
    from vgps_msgs_py.bags.storage import BagError
    policy = None
    if options.policy:
        from vgps_policy_bridge.policy import load_policy
        policy = load_policy(options.policy)
    try:
        rejudge = Rejudge(load_critics(options.critic), options.k, options.beta, policy)
        summary = write(judge_bags(options.bags, rejudge, options.instruction, options.camera, options.joint_topic),
                        options.output)
    except BagError as error:
        sys.exit(f'vgps-evaluate bag: {error}')
    for problem in summary['problems']:
        print(f'note: {problem}', file=sys.stderr)
    for camera, count in summary['cameras'].items():
        print(f'camera {camera}: {count} recordings')
    for line in summary['settings']:
        print(f'{line["critic"]}  K {line["k"]:3d}  beta {line["beta"]:<5g} differs {100 * line["differs"]:5.1f} %  '
              f'value {line["value"]:8.3f}  regret {line["regret"]:7.3f}  fallbacks {line["fallbacks"]} of '
              f'{line["steps"]}')
    for sentence in summary['verdicts']:
        print(sentence)
    same = summary['live_and_offline_agree']
    if same['of']:
        print(f'live and offline choices agree on {same["same"]} of {same["of"]} steps')
    print(f'{summary["times_real_time"]:.1f} times faster than real time. Report: {options.output / "index.html"}; '
          f'every judged step: {options.output / "steps.parquet"}')


def _add_study(parser, tasks: tuple[str, ...], policy: str, max_steps: int, output: Path) -> None:
    """Add what every study takes."""
    parser.add_argument('--study', type=Path, help='YAML: tasks, conditions, trials ...; replaces the options from '
                        '--tasks to --order-seed')
    parser.add_argument('--tasks', type=_numbers(str), default=tasks,
                        help='tasks or shipped lists: simulation, paper_real, paper_simpler')
    parser.add_argument('--conditions', type=_numbers(str), default=('baseline', 'steered'),
                        help='baseline, steered, random-select, random-policy; steered is swept over --critic, --k, '
                             '--beta')
    parser.add_argument('--policy', action='append', help=f'entry-point name, repeatable; default: {policy}')
    parser.add_argument('--critic', action='append', default=[],
                        help="checkpoint folder, hub id or 'default' (the shipped one); repeatable")
    parser.add_argument('--k', type=_numbers(int), default=(10,), help='numbers of candidates, e.g. 10,50')
    parser.add_argument('--beta', type=_numbers(float), default=(0.0,), help='temperatures, e.g. 0,0.1,1.0')
    parser.add_argument('--trials', type=int, default=20, help='per task and condition')
    parser.add_argument('--first-seed', type=int, default=10000, help='seeds count up from here')
    parser.add_argument('--max-steps', type=int, default=max_steps, help='control steps per trial, of 0.2 s; '
                        'of 1/3 s for the Google Robot in SIMPLER')
    parser.add_argument('--order-seed', type=int, default=0, help='of the interleaving')
    parser.add_argument('--no-record', action='store_true', help='no bag per trial, hence no videos')
    parser.add_argument('--stop-early', type=float, default=0.0, metavar='ERROR', help='two conditions: end as soon as '
                        'enough is known, with at most this chance (0.05) of calling equal ones different')
    parser.add_argument('--report-only', action='store_true', help='tables of what is finished so far')
    parser.add_argument('--output', type=Path, default=output, help='folder of journal, bags and report')
    parser.set_defaults(default_policy=policy, check=check_study)


def check_study(options) -> None:
    """Refuse what cannot be right before anything is loaded or written."""
    for name in options.critic:
        checks.critic(name)
    for name in options.policy or []:
        checks.policy(name)
    checks.candidates(*options.k)
    checks.temperature(*options.beta)
    checks.whole('--trials', options.trials, 1, 10**6)
    checks.whole('--first-seed', options.first_seed, 0, checks.LARGEST_SEED - options.trials)
    checks.whole('--max-steps', options.max_steps, 1, checks.LONGEST_EPISODE)
    checks.whole('--workers', options.workers, 1, 1024)
    checks.whole('--image-size', getattr(options, 'image_size', 256), 16, 4096)
    checks.new_folder(options.output)


def add_trials(commands) -> None:
    """Add ``vgps-evaluate trials``."""
    parser = commands.add_parser('trials', help='blind, interleaved, resumable trials with confidence intervals')
    _add_study(parser, tasks=('put_eggplant_in_basket',), policy='flow', max_steps=60, output=Path('trials'))
    parser.add_argument('--runner', choices=('lockstep', 'ros-simulation', 'robot'), default='lockstep',
                        help='lockstep: simulation without ROS, fast; ros-simulation: the live nodes, started for the '
                             'trials; robot: the system that is running, judged by the operator')
    parser.add_argument('--namespace', help='of a system that is running; default: vgps for the robot, and '
                                            'ros-simulation starts its own')
    parser.add_argument('--image-size', type=int, default=256, help="the simulation's camera, pixels")
    parser.add_argument('--looks', default='plain', help='lockstep scene appearance',
                        choices=('plain', 'light', 'varied', 'camera', 'lighting', 'colours'))
    parser.add_argument('--workers', type=int, default=1, help='lockstep processes')
    parser.add_argument('--worker', type=int, help=argparse.SUPPRESS)  # which of them this is
    parser.add_argument('--against', type=Path, help="another run's folder: compare on the same seeds, same_seeds.json")
    parser.set_defaults(run=run_trials)


def add_simpler(commands) -> None:
    """Add ``vgps-evaluate simpler``."""
    parser = commands.add_parser('simpler', help="the paper's protocol on SIMPLER's simulated tasks")
    _add_study(parser, tasks=('widowx_put_eggplant_in_basket',), policy='octo-small-1.5', max_steps=120,
               output=Path('simpler'))
    parser.set_defaults(run=run_trials, runner='simpler', workers=1, worker=None, against=None)


def add_overhead(commands) -> None:
    """Add ``vgps-evaluate overhead``."""
    parser = commands.add_parser('overhead', help="inference time with and without steering (the paper's Table 9)")
    parser.add_argument('--policy', default='flow')
    parser.add_argument('--critic', default='untrained', help="checkpoint; 'untrained': full width, random weights")
    parser.add_argument('--k', type=_numbers(int), default=(10, 30, 50, 100))
    parser.add_argument('--repetitions', type=int, default=20)
    parser.set_defaults(run=run_overhead, check=check_overhead)


def check_overhead(options) -> None:
    """Refuse what cannot be right before anything is loaded."""
    checks.policy(options.policy)
    checks.critic(options.critic)
    checks.candidates(*options.k)
    checks.whole('--repetitions', options.repetitions, 1, 10**6)


def run_overhead(options) -> None:
    """Print the table."""
    import torch

    from vgps_bringup.benchmarks.overhead import busy, doubts, markdown, measure
    from vgps_policy_bridge.policy import load_policy
    critic, = load_critics([options.critic]).values()
    before = busy()
    rows = measure(load_policy(options.policy), critic, options.k, options.repetitions)
    parameters = sum(p.numel() for p in critic.network.parameters())
    print(markdown(rows, f'Policy {options.policy}, critic {options.critic} ({parameters / 1e6:.1f} M parameters), '
                         f'{torch.get_num_threads()} CPU threads, {options.repetitions} repetitions in turns',
                   doubts(rows, *before)))


def run_trials(options) -> None:
    """Run or resume a study and write its report."""
    from vgps_bringup.trials import same_seeds
    from vgps_bringup.trials.journal import JournalError
    from vgps_bringup.trials.plan import Study, StudyError, load_study, named_conditions, task_list
    from vgps_bringup.trials.report import markdown, write_report
    try:
        if not options.report_only:
            conditions = [] if options.study else named_conditions(
                list(options.conditions), options.policy or [options.default_policy], options.critic, options.k,
                options.beta)
            study = load_study(options.study.read_text()) if options.study else Study(
                task_list(list(options.tasks)), tuple(conditions), options.trials, options.first_seed,
                options.max_steps, options.order_seed)
            _play(study, options)
        if options.worker is None:
            print(markdown(write_report(options.output, load_critic)))
            if options.against:
                same_seeds.write(options.output, options.against, say=print)
            print(f'Report: {options.output / "index.html"}')
    except (StudyError, JournalError, OSError, RuntimeError) as error:  # AbandonedError, PolicyError, SimplerError
        sys.exit(f'vgps-evaluate {options.command}: {error}')
    except KeyboardInterrupt:
        sys.exit('\nstopped: every finished trial is kept, the same call resumes')


def _play(study, options) -> None:
    from vgps_bringup.trials.trials import AbandonedError, run_study
    if options.workers > 1 and options.worker is None:
        if options.runner != 'lockstep':
            sys.exit('vgps-evaluate trials: there is one robot: --workers is for the lockstep simulation')
        children = [subprocess.Popen([sys.executable, '-m', 'vgps_bringup.commands.evaluate', *sys.argv[1:], '--worker',
                                      str(i)], env={**os.environ, 'OMP_NUM_THREADS': '1'})
                    for i in range(options.workers)]
        try:
            codes = [child.wait() for child in children]
        finally:
            for child in children:
                child.terminate()
        if any(codes):
            raise AbandonedError('a worker ended early; the same call resumes')
        return
    if options.runner == 'lockstep':
        from vgps_bringup.trials.lockstep import LockstepRunner
        runner = LockstepRunner(study.max_steps, options.image_size, looks=options.looks,
                                load_critic=load_critic)
    elif options.runner == 'simpler':
        from vgps_bringup.trials.simpler.runner import SimplerRunner
        runner = SimplerRunner(study.max_steps, load_critic)
    else:
        from vgps_bringup.trials.robot import RobotRunner, simulation
        simulated = options.runner == 'ros-simulation'
        own = simulated and not options.namespace
        runner = RobotRunner(study, options.namespace or 'vgps', simulated=simulated, system=simulation(
            study, options.image_size, not options.no_record) if own else None)
    setting = {name: getattr(options, name) for name in ('runner', 'image_size', 'looks') if hasattr(options, name)}
    try:
        run_study(study, runner, options.output, not options.no_record, (options.worker or 0, options.workers),
                  say=lambda text: print(text, flush=True), setting=setting, stop_early=options.stop_early)
        if options.runner == 'simpler' and runner.seconds:
            print(f'{runner.steps / runner.seconds:.1f} control steps per second, policy and critic included')
    finally:
        runner.close()


def main() -> None:
    """Dispatch."""
    # numpy's own threads would go on spinning beside torch's: resize and encoder together took 8 times as long
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    parser = argparse.ArgumentParser(prog='vgps-evaluate', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for add in (add_bag, add_trials, add_simpler, add_overhead):
        add(commands)
    options = parser.parse_args()
    checks.or_exit(f'vgps-evaluate {options.command}', lambda: options.check(options))
    if getattr(options, 'runner', '') == 'lockstep':  # small networks, one frame at a time: threads would wait
        os.environ.setdefault('OMP_NUM_THREADS', '2')
    try:
        options.run(options)
    except PolicyError as error:
        sys.exit(f'vgps-evaluate {options.command}: {error}')


if __name__ == '__main__':
    main()
