"""The commands of ``vgps-evaluate`` and their options, with defaults and ranges."""

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
    """Score recordings again under other critics, K and beta.

    Example: vgps-evaluate bag runs --critic default --critic runs/iql/critic --k 1,10 --beta 0,0.1,1

    Next: open OUTPUT/index.html in a browser; OUTPUT/steps.parquet holds every step.
    """

    bags: Positional[tuple[Path, ...]]
    """rosbag2 folders or files (MCAP, sqlite3), or folders that hold them"""
    critic: UseAppendAction[tuple[str, ...]] = ()
    """checkpoint: folder, owner/name on the hub, 'default' (shipped) or 'untrained'; at least one"""
    k: Counts = ()
    """numbers of candidates, 1 .. 1000, e.g. 10,50; by default as recorded"""
    beta: Temperatures = (BETA,)
    """temperatures of the choice, at least 0, e.g. 0,0.1,1.0; 0 takes the best candidate"""
    policy: str = ''
    """entry-point name of a policy that proposes anew; by default the recorded candidates are scored"""
    instruction: str = ''
    """instruction of recordings that name none"""
    camera: Annotated[str, arg(aliases=['--image-topic'])] = ''
    """image topic, or whole names of it; needed if several cameras were recorded"""
    joint_topic: str = ''
    """topic of joint states, or whole names of it; needed if other software recorded several arms"""
    output: Path = Path('rejudged')
    """folder of the report"""
    overwrite: bool = False
    """replace an existing report"""

    command: ClassVar[str] = 'bag'


@dataclass
class _Study:
    """Options of every study."""

    study: Path | None = None
    """YAML file with tasks, conditions, trials ...; replaces the options from --tasks to --order-seed"""
    tasks: Names = ()
    """tasks, or shipped lists of them: simulation, paper_real, paper_simpler"""
    conditions: Names = ('baseline', 'steered')
    """baseline, steered, random-select, random-policy; steered is swept over --critic, --k and --beta"""
    policy: UseAppendAction[tuple[str, ...]] = ()
    """entry-point name of the policy; by default flow, in SIMPLER octo-small-1.5"""
    policy_options: UseAppendAction[tuple[str, ...]] = ()
    """the policy's options as YAML, e.g. '{checkpoint: FILE}'; with several --policy one for each, in their order"""
    critic: UseAppendAction[tuple[str, ...]] = ()
    """checkpoint: folder, owner/name on the hub, 'default' (shipped) or 'untrained'"""
    k: Counts = (K,)
    """numbers of candidates, 1 .. 1000, e.g. 10,50"""
    beta: Temperatures = (BETA_ROBOT,)
    """temperatures of the choice, at least 0, e.g. 0,0.1,1.0; 0 takes the best candidate"""
    trials: int = 20
    """trials per task and condition, at least 1"""
    first_seed: int = 10000
    """seed of the first trial; the others count up from it"""
    max_steps: int = 60
    """control steps per trial, of 0.2 s each (1/3 s for SIMPLER's Google Robot)"""
    order_seed: int = 0
    """seed of the order in which conditions are interleaved"""
    no_record: bool = False
    """record no bags, and so no videos"""
    stop_early: float = 0.0
    """with two conditions: stop as soon as the result is clear; the probability of calling equal conditions different
    stays below this, e.g. 0.05; 0 plays every trial"""
    report_only: bool = False
    """play nothing; write the tables of the trials finished so far"""
    output: Path = Path('trials')
    """folder of journal, bags and report"""
    processes: Annotated[int, arg(aliases=('--workers',))] = 1
    """parallel processes on this machine (runners without ROS)"""
    shard: str = ''
    """'i/n': play every n-th trial only, as task i (from 0) of a job array on a shared folder (runners without ROS)"""
    cluster: str = ''
    """address of a Ray cluster that shares the folder, or 'auto' (runners without ROS)"""


@dataclass
class Trials(_Study):
    """Play blind, interleaved, resumable trials; report success with confidence intervals.

    Example: vgps-evaluate trials --tasks simulation --conditions baseline,steered --critic default --trials 20

    Next: open OUTPUT/index.html in a browser. An interrupted call continues where it stopped.
    """

    tasks: Names = ('put_eggplant_in_basket',)
    """tasks, or shipped lists of them: simulation, paper_real, paper_simpler"""
    runner: Literal['lockstep', 'ros-simulation', 'robot'] = 'lockstep'
    """lockstep: simulation without ROS, fast; ros-simulation: the live nodes, started for the trials; robot: the
    running system, judged by the operator"""
    namespace: str = ''
    """namespace of the running system, for robot vgps by default; ros-simulation starts a system of its own"""
    image_size: int = 256
    """side of the simulated camera image [pixels], 16 .. 4096"""
    looks: Literal['plain', 'light', 'varied', 'camera', 'lighting', 'colours'] = 'plain'
    """appearance of the scene (lockstep): plain is always the same, the others vary with the seed"""
    against: Path | None = None
    """folder of another run to compare with on the same seeds; the result goes to same_seeds.json"""

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
    """control steps per trial, of 0.2 s each (1/3 s for the Google Robot)"""
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
