"""Score recordings again, play trials under several conditions, measure times. Each command has its own --help.

Example: vgps-evaluate bag runs --critic default --k 1,10 --beta 0,1
"""

import os
import sys

from vgps_bringup.commands import checks
from vgps_bringup.commands.evaluate_options import Bag, Command, Overhead, Simpler, Trials
from vgps_bringup.rejudging.critics import load_critic, load_critics
from vgps_msgs_py import command_line
from vgps_msgs_py.jobs import Engine
from vgps_policy_bridge.errors import PolicyError


def check_bag(options) -> None:
    """Refuse what cannot be right before anything is loaded or written."""
    if not options.critic:
        raise checks.ArgumentError('say which critic re-scores them: --critic CHECKPOINT, e.g. --critic default')
    checks.recording(*options.bags)
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
        summary = write(judge_bags(options.bags, rejudge, options.instruction, options.camera or None,
                                   options.joint_topic or None), options.output)
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
    table = 'steps.parquet' if summary['settings'] else 'summary.json'  # value curves are not judged step by step
    print(f'{summary["times_real_time"]:.1f} times faster than real time. Report: {options.output / "index.html"}; '
          f'every step: {options.output / table}\nNext, use it: vgps-evaluate trials --critic '
          f'{options.critic[0]} --tasks simulation, or on the robot: vgps-run robot critic:={options.critic[0]}')


def check_study(options) -> None:
    """Refuse what cannot be right before anything is loaded or written."""
    for name in options.critic:
        checks.critic(name)
    for name in options.policy:
        if not (options.command == 'simpler' and name == 'scripted'):  # it exists in that runner only
            checks.policy(name)
    checks.candidates(*options.k)
    checks.temperature(*options.beta)
    checks.whole('--trials', options.trials, 1, 10**6)
    checks.whole('--first-seed', options.first_seed, 0, checks.LARGEST_SEED - options.trials)
    checks.whole('--max-steps', options.max_steps, 1, checks.LONGEST_EPISODE)
    checks.whole('--processes', options.processes, 1, 1024)
    checks.shard(options.shard)
    checks.whole('--image-size', getattr(options, 'image_size', 256), 16, 4096)
    checks.new_folder(options.output)


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
    from vgps_critic.network import parameter_count
    from vgps_policy_bridge.policy import load_policy
    critic, = load_critics([options.critic]).values()
    before = busy()
    rows = measure(load_policy(options.policy), critic, options.k, options.repetitions)
    print(markdown(rows, f'Policy {options.policy}, critic {options.critic} ('
                         f'{parameter_count(critic.network) / 1e6:.1f} M parameters), '
                         f'{torch.get_num_threads()} CPU threads, {options.repetitions} repetitions in turns',
                   doubts(rows, *before)))
    print('Next, what steering is worth: vgps-evaluate trials --critic default')


def run_trials(options) -> None:
    """Run or resume a study and write its report."""
    from vgps_bringup.trials import same_seeds
    from vgps_bringup.trials.journal import JournalError
    from vgps_bringup.trials.plan import Study, StudyError, load_study, named_conditions, task_list
    from vgps_bringup.trials.report import markdown, write_report
    try:
        if not options.report_only:
            conditions = [] if options.study else named_conditions(
                list(options.conditions), list(options.policy) or [options.default_policy], list(options.critic),
                options.k, options.beta, list(options.policy_options))
            study = load_study(options.study.read_text()) if options.study else Study(
                task_list(list(options.tasks)), tuple(conditions), options.trials, options.first_seed,
                options.max_steps, options.order_seed)
            _play(study, options)
        if not options.shard:
            results = write_report(options.output, load_critic)
            print(markdown(results))
            if options.runner == 'simpler' and (seconds := sum(row['seconds'] for row in results.rows)):
                print(f'{sum(row["steps"] for row in results.rows) / seconds:.1f} control steps per second of each '
                      'process, policy and critic included')
            if options.against:
                same_seeds.write(options.output, options.against, say=print)
            print(f'Report: {options.output / "index.html"}')
            bags = options.output / 'bags'
            if any(bags.rglob('metadata.yaml')):  # of the Google Robot there are videos only
                print(f'Next, what another critic would have chosen: vgps-evaluate bag {bags} --critic default')
    except (StudyError, JournalError, OSError, RuntimeError, ImportError) as error:
        # of RuntimeError: AbandonedError, JobError, PolicyError, SimplerError
        sys.exit(f'vgps-evaluate {options.command}: {error}')
    except KeyboardInterrupt:
        sys.exit('\nstopped: every finished trial is kept, the same command continues')


def _runner(study, options):
    """Return who plays the trials."""
    from vgps_bringup.trials.plan import StudyError
    from vgps_bringup.trials.trials import InEachProcess
    if options.runner == 'lockstep':
        from vgps_bringup.trials.lockstep import LockstepRunner
        return InEachProcess(LockstepRunner, (study.max_steps, options.image_size, options.looks, load_critic))
    if options.runner == 'simpler':
        from vgps_bringup.trials.simpler.fit import check_study as check_robots
        from vgps_bringup.trials.simpler.runner import SimplerRunner
        check_robots(study)
        return InEachProcess(SimplerRunner, (study.max_steps, load_critic))
    if options.processes > 1 or options.shard or options.cluster:
        raise StudyError('there is one robot: --processes, --shard and --cluster are for simulations without ROS')
    from vgps_bringup.trials.robot import RobotRunner, simulation
    simulated = options.runner == 'ros-simulation'
    own = simulated and not options.namespace
    return RobotRunner(study, options.namespace or 'vgps', simulated=simulated, system=simulation(
        study, options.image_size, not options.no_record) if own else None)


def _play(study, options) -> None:
    from vgps_bringup.trials.trials import run_study
    runner = _runner(study, options)
    setting = {name: getattr(options, name) for name in ('runner', 'image_size', 'looks') if hasattr(options, name)}
    try:
        run_study(study, runner, options.output, not options.no_record,
                  Engine(options.processes, options.shard, options.cluster), say=lambda text: print(text, flush=True),
                  setting=setting, stop_early=options.stop_early)
    finally:
        runner.close()


COMMANDS = {Bag: (check_bag, run_bag), Trials: (check_study, run_trials), Simpler: (check_study, run_trials),
            Overhead: (check_overhead, run_overhead)}


def main() -> None:
    """Dispatch."""
    # numpy's own threads would go on spinning beside torch's: resize and encoder together took 8 times as long
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    options = command_line.read(Command, 'vgps-evaluate', description=__doc__)
    check, run = COMMANDS[type(options)]
    checks.or_exit(f'vgps-evaluate {options.command}', lambda: check(options))
    if getattr(options, 'runner', '') == 'lockstep':  # small networks, one frame at a time: threads would wait
        os.environ.setdefault('OMP_NUM_THREADS', '2')
    try:
        run(options)
    except PolicyError as error:
        sys.exit(f'vgps-evaluate {options.command}: {error}')


if __name__ == '__main__':
    main()
