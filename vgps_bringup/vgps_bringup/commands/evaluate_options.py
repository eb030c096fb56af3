"""What can be said to ``vgps-evaluate``: its commands and their options, with defaults and ranges."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, UseAppendAction, arg, subcommand
from tyro.constructors import PrimitiveConstructorSpec

from vgps_bringup.system.defaults import BETA, BETA_ROBOT, K


def _listed(kind: type) -> PrimitiveConstructorSpec:
    """Return how one word such as 0,0.1,1 becomes a tuple."""
    return PrimitiveConstructorSpec(
        nargs=1, metavar=f'{kind.__name__.upper()},...', is_instance=lambda value: isinstance(value, tuple),
        instance_from_str=lambda words: tuple(kind(part) for part in words[0].split(',') if part.strip()),
        str_from_instance=lambda value: [','.join(map(str, value))])


Names = Annotated[tuple[str, ...], _listed(str)]
Counts = Annotated[tuple[int, ...], _listed(int)]
Temperatures = Annotated[tuple[float, ...], _listed(float)]


@dataclass
class Bag:
    """Judge recordings again under other critics, K and beta.

    Example: vgps-evaluate bag runs --critic default --critic runs/iql/critic --k 1,10 --beta 0,0.1,1

    Next: open OUTPUT/index.html in a browser; OUTPUT/steps.parquet holds every judged step.
    """

    bags: Positional[tuple[Path, ...]]
    """rosbag2 folders or files (MCAP, sqlite3), or folders that hold them"""
    critic: UseAppendAction[tuple[str, ...]] = ()
    """checkpoint folder, hub id, 'default' (shipped) or 'untrained'; at least one"""
    k: Counts = ()
    """numbers of candidates, 1 .. 1000, e.g. 10,50; by default as recorded"""
    beta: Temperatures = (BETA,)
    """temperatures of the choice, at least 0, e.g. 0,0.1,1.0; 0 takes the best candidate"""
    policy: str = ''
    """propose candidates anew with this policy"""
    instruction: str = ''
    """instruction for recordings that name none"""
    camera: Annotated[str, arg(aliases=['--image-topic'])] = ''
    """image topic, or its end, where several cameras were recorded"""
    joint_topic: str = ''
    """joint states to read, where other software recorded several arms"""
    output: Path = Path('rejudged')
    """report folder"""
    overwrite: bool = False
    """replace a report that is there"""

    command: ClassVar[str] = 'bag'


@dataclass
class _Study:
    """What every study takes."""

    study: Path | None = None
    """YAML: tasks, conditions, trials ...; replaces the options from --tasks to --order-seed"""
    tasks: Names = ()
    """tasks, or shipped lists of them: simulation, paper_real, paper_simpler"""
    conditions: Names = ('baseline', 'steered')
    """baseline, steered, random-select, random-policy; steered is swept over --critic, --k and --beta"""
    policy: UseAppendAction[tuple[str, ...]] = ()
    """entry-point name; by default flow, and octo-small-1.5 for simpler"""
    critic: UseAppendAction[tuple[str, ...]] = ()
    """checkpoint folder, hub id or 'default' (the shipped one)"""
    k: Counts = (K,)
    """numbers of candidates, 1 .. 1000, e.g. 10,50"""
    beta: Temperatures = (BETA_ROBOT,)
    """temperatures of the choice, at least 0, e.g. 0,0.1,1.0; 0 takes the best candidate"""
    trials: int = 20
    """trials per task and condition, at least 1"""
    first_seed: int = 10000
    """seed of the first trial; the others count up from it"""
    max_steps: int = 60
    """control steps per trial, of 0.2 s; of 1/3 s for the Google Robot in SIMPLER"""
    order_seed: int = 0
    """seed of the order in which conditions are interleaved"""
    no_record: bool = False
    """record no bag for each trial, hence no videos"""
    stop_early: float = 0.0
    """with two conditions: stop as soon as the difference is certain, with at most this chance (e.g. 0.05) of calling
    equal ones different; 0 plays every trial"""
    report_only: bool = False
    """play nothing; write the tables of what is finished so far"""
    output: Path = Path('trials')
    """folder of journal, bags and report"""
    workers: int = 1
    """without ROS: parallel processes on this machine"""
    shard: str = ''
    """without ROS: i/n, every n-th trial only, as task i (from 0) of a job array on a shared folder"""
    cluster: str = ''
    """without ROS: address of a Ray cluster that shares the folder, or 'auto'"""


@dataclass
class Trials(_Study):
    """Play blind, interleaved, resumable trials; report success with confidence intervals.

    Example: vgps-evaluate trials --tasks simulation --conditions baseline,steered --critic default --trials 20

    Next: open OUTPUT/index.html in a browser. An interrupted call continues where it stopped.
    """

    tasks: Names = ('put_eggplant_in_basket',)
    """tasks, or shipped lists of them: simulation, paper_real, paper_simpler"""
    runner: Literal['lockstep', 'ros-simulation', 'robot'] = 'lockstep'
    """lockstep: simulation without ROS, fast; ros-simulation: the live nodes, started for the trials; robot: the system
    that is running, judged by the operator"""
    namespace: str = ''
    """namespace of a running system; by default vgps for the robot, while ros-simulation starts its own system"""
    image_size: int = 256
    """side of the simulated camera image [pixels], 16 .. 4096"""
    looks: Literal['plain', 'light', 'varied', 'camera', 'lighting', 'colours'] = 'plain'
    """lockstep: appearance of the scene"""
    against: Path | None = None
    """folder of another run: compare both on the same seeds and write same_seeds.json"""

    command: ClassVar[str] = 'trials'
    default_policy: ClassVar[str] = 'flow'


@dataclass
class Simpler(_Study):
    """Play the paper's protocol on SIMPLER's simulated tasks, which are installed separately (doc/evaluation.md).

    Example: vgps-evaluate simpler --tasks widowx_carrot_on_plate --policy octo-small-1.5 --critic default --k 10

    Next: open OUTPUT/index.html in a browser. An interrupted call continues where it stopped.
    """

    tasks: Names = ('widowx_put_eggplant_in_basket',)
    """tasks, or the shipped list paper_simpler"""
    max_steps: int = 120
    """control steps per trial, of 0.2 s; of 1/3 s for the Google Robot"""
    output: Path = Path('simpler')
    """folder of journal, videos and report"""

    command: ClassVar[str] = 'simpler'
    default_policy: ClassVar[str] = 'octo-small-1.5'
    runner: ClassVar[str] = 'simpler'
    against: ClassVar[None] = None


@dataclass
class Overhead:
    """Measure the inference time with and without steering (the paper's Table 9).

    Example: vgps-evaluate overhead --policy flow --critic default --k 10,50
    """

    policy: str = 'flow'
    """entry-point name"""
    critic: str = 'untrained'
    """checkpoint folder, hub id, 'default' (shipped); 'untrained': full width, random weights"""
    k: Counts = (10, 30, 50, 100)
    """numbers of candidates, 1 .. 1000"""
    repetitions: int = 20
    """repetitions of every measurement; the median is reported"""

    command: ClassVar[str] = 'overhead'


Command = (Annotated[Bag, subcommand('bag', prefix_name=False)]
           | Annotated[Trials, subcommand('trials', prefix_name=False)]
           | Annotated[Simpler, subcommand('simpler', prefix_name=False)]
           | Annotated[Overhead, subcommand('overhead', prefix_name=False)])
