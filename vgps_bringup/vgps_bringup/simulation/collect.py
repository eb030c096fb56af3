"""Record seeded demonstrations of mixed quality, faster than real time and without ROS.

Example: vgps-collect --output demonstrations --episodes 700

Next: vgps-train iql --preset small --data demonstrations/ --out runs/iql

Each task's episodes go into rosbag2 recordings of --episodes-per-bag episodes (OUTPUT/TASK_0000 and so on) with the
topics of a live recording. An interrupted run continues where it stopped: finished recordings are kept, the unfinished
one is made again, and every episode depends on its seed alone. With a larger --episodes the missing recordings are
added; a recording that would have to be longer is named and kept.
"""

import contextlib
import dataclasses
import fcntl
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tqdm import tqdm

from vgps_bringup.simulation.appearance import LOOKS
from vgps_bringup.simulation.bag_episode import EpisodeWriter
from vgps_bringup.simulation.demonstrator import Demonstrator, DemonstratorConfig
from vgps_bringup.simulation.environment import LockstepEnvironment
from vgps_bringup.simulation.tasks import TASKS
from vgps_msgs_py import command_line, jobs
from vgps_msgs_py.bags.writer import BagWriter
from vgps_msgs_py.jobs import Engine

_SUMMARY = 'collection.yaml'
LOG_EVERY = 30.0  # s between two lines of progress where nobody watches


@dataclass(frozen=True)
class Collection:
    """What is recorded. Where it runs (`processes`, `shard`, `cluster`) does not change the data."""

    output: Path  # folder for the recordings
    tasks: tuple[str, ...] = ()  # simulated tasks
    episodes: int = 700  # episodes per task, at least 1; a larger number later adds the missing ones
    episodes_per_bag: int = 50  # episodes in one recording
    max_steps: int = 40  # control steps of 0.2 s after which an episode counts as failed
    first_seed: int = 1_000_000  # seed of the first episode; the others count up. Lower seeds are for evaluation
    processes: int = 1  # parallel processes on this machine
    shard: str = ''  # 'i/n': record every n-th bag only, as task i (from 0) of a job array on a shared folder
    cluster: str = ''  # address of a Ray cluster that shares the folder, or 'auto'
    demonstrator: DemonstratorConfig = field(default_factory=DemonstratorConfig)

    def __post_init__(self):
        unknown = [task for task in self.tasks if task not in self.known_tasks()]
        if unknown:
            raise ValueError(f'no such task: {", ".join(unknown)}; known are {", ".join(self.known_tasks())}')
        if min(self.episodes, self.episodes_per_bag, self.max_steps, self.processes) < 1:
            raise ValueError('episodes, episodes_per_bag, max_steps and processes must be at least 1')
        Engine(shard=self.shard)

    def known_tasks(self) -> Iterable[str]:
        """Return the tasks that can be recorded."""
        raise NotImplementedError

    def stage(self, task: str) -> tuple:
        """Return an environment (LockstepEnvironment, or what looks like one) and a demonstrator for a task."""
        raise NotImplementedError

    def bags(self) -> list[tuple[str, str, range]]:
        """Return (folder name, task, seeds) of every recording."""
        result = []
        for task in self.tasks:
            for number, start in enumerate(range(0, self.episodes, self.episodes_per_bag)):
                seeds = range(self.first_seed + start,
                              self.first_seed + min(start + self.episodes_per_bag, self.episodes))
                result.append((f'{task}_{number:04d}', task, seeds))
        return result


@dataclass(frozen=True)
class CollectConfig(Collection):
    """Demonstrations in the embedded simulation."""

    tasks: tuple[str, ...] = ('put_eggplant_in_basket', 'put_carrot_on_plate')
    image_size: int = 128  # side of the camera image [pixels]
    # appearance (light, camera pose, colours, table): 'plain' is always the same, the others vary with the seed
    looks: str = 'varied'
    renderer: str = 'auto'  # 'auto', 'egl', 'osmesa' or 'rays'; use the same for training and evaluation

    def __post_init__(self):
        super().__post_init__()
        if self.looks not in LOOKS:
            raise ValueError(f"looks is '{self.looks}', must be one of {', '.join(LOOKS)}")

    def known_tasks(self) -> Iterable[str]:
        """Return the simulated tasks."""
        return TASKS

    def stage(self, task: str) -> tuple[LockstepEnvironment, Demonstrator]:
        """Return the simulated world and its demonstrator."""
        return LockstepEnvironment(task, (self.image_size, self.image_size), self.renderer, LOOKS[self.looks]), \
            Demonstrator(self.demonstrator)


def run_episode(environment: LockstepEnvironment, demonstrator: Demonstrator, seed: int, max_steps: int,
                writer: EpisodeWriter | None = None) -> tuple[bool, str, int]:
    """Play one demonstration; return (success, name of the failure or '', steps)."""
    robot = environment.robot
    observation = environment.reset(seed)
    demonstrator.reset(robot, seed)
    truth, steps, refused = robot.task_state(), 0, 0
    if writer:
        writer.begin(f'{robot.task_name}_{seed}', robot)
        writer.frame(observation, truth)
    while steps < max_steps and not truth.success and not demonstrator.done:
        action = demonstrator.act(robot, environment.controller.target_pose)
        if writer:
            writer.start_step(action)
        observation, result, truth = environment.step(action)
        steps += 1
        refused += not result.accepted
        if writer:
            writer.end_step(result, robot.gripper_pose(), steps - refused, refused)
            writer.frame(observation, truth)
    # at the goal, but without half a second of rest before the time was up
    failure = truth.failure.name.lower().replace('_', ' ') if truth.failure else 'too late'
    failure = '' if truth.success else failure
    if writer:
        writer.end(truth.success, failure)
    return truth.success, failure, steps


def record_bag(config: Collection, name: str, task: str, seeds: range) -> None:
    """Record the demonstrations of `seeds` into ``OUTPUT/NAME``, which appears when it is complete."""
    partial = config.output / '.partial' / name
    shutil.rmtree(partial, ignore_errors=True)
    (environment, demonstrator), outcomes, steps = config.stage(task), Counter(), 0
    bag = BagWriter(partial)
    writer = EpisodeWriter(bag, config.max_steps)
    for seed in seeds:
        success, failure, taken = run_episode(environment, demonstrator, seed, config.max_steps, writer)
        outcomes['success' if success else failure] += 1
        steps += taken
    bag.close()
    environment.close()
    summary = {'task': task, 'first_seed': seeds.start, 'steps': steps, 'outcomes': dict(outcomes)}
    (partial / _SUMMARY).write_text(yaml.safe_dump(summary))
    partial.replace(config.output / name)


def _record(job: tuple[Collection, str, str, range]) -> int:
    """Record one bag, unless a process that was killed had just finished it; return its number of episodes."""
    config, name, task, seeds = job
    if not (config.output / name).is_dir():
        record_bag(config, name, task, seeds)
    return len(seeds)


def collect(config: Collection) -> dict[str, Counter]:
    """Record what is missing of this shard and return how its episodes of each task ended.

    Raises:
        ValueError: the folder holds recordings made with another configuration than fewer `episodes`.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    _check_same(config)
    # sharded before what is done is left out: every shard sees the same list, whatever the others have finished
    mine = set(Engine(shard=config.shard).select([bag[0] for bag in config.bags()]))
    missing = [bag for bag in config.bags() if bag[0] in mine and not (config.output / bag[0]).is_dir()]
    episodes = sum(len(seeds) for name, _, seeds in config.bags() if name in mine)
    left = sum(len(seeds) for _, _, seeds in missing)
    # in a log a line now and then: a long collection says how long it will take there, too
    with tqdm(total=episodes, initial=episodes - left, unit='episode',
              mininterval=0.1 if sys.stderr.isatty() else LOG_EVERY) as progress:
        jobs.run(_record, {bag[0]: (config, *bag) for bag in missing},
                 engine=Engine(config.processes, cluster=config.cluster),
                 record=lambda name, episodes: progress.update(episodes))
    with contextlib.suppress(OSError):  # not empty: another shard is recording
        (config.output / '.partial').rmdir()
    totals = {task: Counter() for task in config.tasks}
    for name, task, seeds in config.bags():
        if name not in mine:
            continue
        totals[task].update(_outcomes(config, name, seeds))
    return totals


def _outcomes(config: Collection, name: str, seeds: range) -> dict[str, int]:
    """Return how the episodes of a finished recording ended; raise ValueError unless it holds all of them."""
    outcomes = yaml.safe_load((config.output / name / _SUMMARY).read_text())['outcomes']
    if sum(outcomes.values()) != len(seeds):
        raise ValueError(f'{config.output / name} holds {sum(outcomes.values())} of {len(seeds)} episodes: remove it '
                         'to have it recorded anew, or choose another --output')
    return outcomes


def _check_same(config: Collection) -> None:
    """Begin a folder, or see that it was begun with this configuration; let it grow where more episodes are wanted."""
    where = {'output', 'processes', 'shard', 'cluster'}
    wanted = {k: v for k, v in dataclasses.asdict(config).items() if k not in where}
    wanted = yaml.safe_dump({**wanted, 'tasks': list(config.tasks),
                             'demonstrator': {k: list(v) if isinstance(v, tuple) else v
                                              for k, v in wanted['demonstrator'].items()}})
    path = config.output / _SUMMARY
    if not path.exists():
        _write(path, wanted)  # another shard may be doing the same
    elif path.read_text() != wanted:
        with (config.output / '.lock').open('w') as lock:  # of two shards the one with more episodes decides
            fcntl.flock(lock, fcntl.LOCK_EX)
            _check_more_episodes(config.output, yaml.safe_load(wanted))
            _check_whole(config)
            _write(path, wanted)
    else:
        _check_whole(config)


def _check_more_episodes(output: Path, wanted: dict) -> None:
    """Raise ValueError, with every difference, where a folder was begun with anything else than fewer episodes."""
    path = output / _SUMMARY
    try:
        before, now = _flat(yaml.safe_load(path.read_text())), _flat(wanted)
        differences = [f'{name} is {before.get(name, "not set")} there and {now.get(name, "not set")} here'
                       for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        more = before['episodes'] < now['episodes']
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is damaged ({error}): restore it, or choose another --output') from error
    if len(differences) > more:  # it is then one of them
        raise ValueError(f'{output} holds recordings made with another configuration: {"; ".join(differences)} (see '
                         f'{path}). Only --episodes can change, to a larger number; otherwise choose another --output')


def _flat(settings: dict) -> dict:
    return {**settings, **{f'demonstrator.{name}': value for name, value in settings['demonstrator'].items()},
            'demonstrator': None}


def _check_whole(config: Collection) -> None:
    """Raise ValueError where a recording does not hold all of its episodes: it was the last of a smaller collection."""
    for name, _, seeds in config.bags():
        if (config.output / name).is_dir():
            _outcomes(config, name, seeds)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(8)}')  # shards on several machines share process ids
    temporary.write_text(text)
    temporary.replace(path)


def run(config_type: type[Collection], command: str, description: str, next_step: str) -> None:
    """Collect from the command line; `next_step` names the command that follows, {output} in it the folder."""
    # One thread per process: numpy's own threads only get in each other's way here.
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    started = time.monotonic()
    config = command_line.read(config_type, command, description=description)
    with command_line.refusing(command, ValueError, ImportError, RuntimeError,  # JobError, SimplerError
                               stopped='stopped: the same command continues'):
        totals = collect(config)
    for task, outcomes in totals.items():
        total = outcomes.total()
        print(f'{task}: {total} episodes, {outcomes["success"] / total:.0%} succeed; '
              + ', '.join(f'{name} {count}' for name, count in outcomes.most_common() if name != 'success'))
    print(f'in {config.output}, {time.monotonic() - started:.0f} s. Next: {next_step.format(output=config.output)}')


def main() -> None:
    """Collect in the embedded simulation."""
    run(CollectConfig, 'vgps-collect', __doc__, 'vgps-train iql --preset small --data {output}/ --out runs/iql')


if __name__ == '__main__':
    main()
