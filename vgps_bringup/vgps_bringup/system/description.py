"""The system, once: which processes run, with which parameters and remaps.

The launch files (``ros2 launch vgps_bringup simulation.launch.py``) and the runner that stands in where ``ros2 launch``
is not installed (``vgps-run simulation``) both read this module, so they cannot drift apart. No ROS import here.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from vgps_bringup.system.defaults import BETA, BETA_ROBOT, K


@dataclass(frozen=True)
class Argument:
    """One launch argument, given as ``name:=value``."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


# numpy's threads spin while torch's work: resizing and encoding one image took 15.6 ms, and 1.8 with this.
# OpenMP's own would spin at every barrier for a core that somebody else has: 2.8 to 5.8 s a frame instead of 0.67.
NUMPY_ALONE = {'OPENBLAS_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}


@dataclass(frozen=True)
class Process:
    """One ROS node in a process of its own."""

    package: str
    executable: str
    name: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    parameter_files: tuple[str, ...] = ()  # in vgps_bringup's share/config, or absolute
    remappings: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # [s] after the start; later phases need the earlier ones
    required: bool = False  # its end ends the system; the others can be started again while the rest goes on
    must_start: bool = False  # so does its refusal to start (exit code 2: a wrong configuration)
    respawn: bool = False  # it is started again by itself: for nodes that move nothing
    environment: Mapping[str, str] = field(default_factory=lambda: NUMPY_ALONE)  # where the user has not set it


REFUSED = 2  # exit code of a node whose configuration is wrong; it has said why
RESPAWN_DELAY = 2.0  # s


@dataclass(frozen=True)
class Include:
    """Another package's launch file; only ``ros2 launch`` can start it."""

    package: str
    launch_file: str
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """A named set of processes and the arguments it takes."""

    summary: str
    arguments: tuple[Argument, ...]
    build: Callable[[Mapping[str, str]], list[Process | Include]]

    def resolve(self, given: Mapping[str, str]) -> dict[str, str]:
        """Fill in defaults.

        Raises:
            ValueError: an unknown argument, or a value that is not among its choices.

        """
        known = {argument.name: argument for argument in self.arguments}
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"there is no argument '{name}'; known: {', '.join(known)}")
            if known[name].choices and value not in known[name].choices:
                raise ValueError(f"{name}:={value} must be one of {', '.join(known[name].choices)}")
        return {**{argument.name: argument.default for argument in self.arguments}, **given}


SECURE = (
    Argument('machines', '', "which machines see the nodes: 'this', 'all', or addresses separated by commas; empty: "
                             '$VGPS_MACHINES, or else this'),
    Argument('keystore', '', 'SROS2 keystore with an enclave per node (doc/security.md); empty: no access control'),
)

STEERING = (
    Argument('namespace', 'vgps', 'namespace of every node and topic'),
    Argument('critic', 'default', "checkpoint: folder, owner/name on the hub, 'default' (shipped) or 'untrained'"),
    Argument('device', 'cpu', 'what the critic runs on: cpu, cuda, cuda:0, ...'),
    Argument('policy_options', '{}', "the policy's options as YAML, e.g. '{checkpoint: FOLDER}'"),
    Argument('k', str(K), 'candidates per frame, 1 .. 1000 (live parameter num_candidates of policy_node)'),
    Argument('beta', str(BETA_ROBOT),
             'temperature of the choice, at least 0; 0 takes the best candidate (live parameter of critic_node)'),
    Argument('selection', 'value', 'how a candidate is chosen: by the critic (value), always the first (the plain '
             'policy), or at random', ('value', 'first', 'random')),
    Argument('fallback', 'hold', 'what happens when the critic did not choose: hold still, or the first candidate (the '
             'plain policy)', ('hold', 'first')),
    Argument('max_steps', '60', 'control steps of 0.2 s after which an episode ends'),
    Argument('record', 'true', 'record every episode into a bag', ('true', 'false')),
    Argument('output', 'runs', 'folder for bags and reports'),
    Argument('image_transport', 'auto', 'which image topic is used: raw; compressed (topic + /compressed); auto: '
             'compressed only while the camera offers no raw one', ('auto', 'raw', 'compressed')),
    Argument('decision_image', 'true', 'publish the camera frame with the decision drawn on it, for rqt and Foxglove',
             ('true', 'false')),
    *SECURE,
)


def _number(a: Mapping[str, str], name: str, kind: type = float):
    """Return an argument as a number; raises ValueError that names it."""
    try:
        return kind(a[name])
    except ValueError:
        raise ValueError(f"{name}:={a[name]} must be a {'whole number' if kind is int else 'number'}") from None


def security(keystore: str) -> dict[str, str]:
    """Return the variables that make every node ask for its enclave, or none without a keystore."""
    return {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'Enforce',
            'ROS_SECURITY_KEYSTORE': keystore} if keystore else {}


def enclave(process: Process, namespace: str) -> str:
    """Return the name of a process' enclave: that of its node."""
    return f'/{namespace.strip("/")}/{process.name}'


def ends_system(process: Process, code: int) -> bool:
    """Return whether the others must not go on without this process."""
    return process.required or (process.must_start and code == REFUSED)


def obituary(system: str, process: Process, code: int, given: Mapping[str, str]) -> str:
    """Say that a process has ended and how it comes back."""
    how = f'was killed (signal {-code})' if code < 0 else f'ended with code {code}'
    if ends_system(process, code):
        return f'{process.name} {how}: the system ends'
    if process.respawn and code != REFUSED:
        return f'{process.name} {how}: it is being restarted'
    words = ' '.join([f'vgps-run {system} --only {process.name}', *(
        shlex.quote(f'{name}:={value}') for name, value in given.items())])
    return f'{process.name} {how}: the others go on without it. To restart it: {words}'


def _true(text: str) -> bool:
    return text.lower() == 'true'


def _steering(a: Mapping[str, str], remappings: Mapping[str, str], base: Mapping[str, str],
              calibration: str) -> list[Process]:
    """Recorder, critic and policy: the same in every system; ``base`` names the frame of the commands.

    None of them is required: without it the arm holds and says why, and it rejoins when it is started again.
    """
    processes = [
        Process('vgps_critic', 'critic_node', 'critic_node',
                {'critic': a['critic'], 'device': a['device'], 'beta': _number(a, 'beta'), 'selection': a['selection'],
                 'fallback': a['fallback'], 'image_transport': a['image_transport'], **base},
                remappings=remappings),
        Process('vgps_policy_bridge', 'policy_node', 'policy_node',
                {'policy': a['policy'], 'policy_options': a['policy_options'], 'num_candidates': _number(a, 'k', int),
                 'max_steps': _number(a, 'max_steps', int), 'image_transport': a['image_transport'],
                 'wrist_topic': a.get('wrist_topic', ''), 'require_live_camera': 'camera_topic' in a},
                remappings=remappings),
    ]
    if _true(a['record']):
        processes.insert(0, Process('vgps_bringup', 'recorder_node', 'recorder_node',
                                    {'output_directory': a['output'], 'image_transport': a['image_transport'],
                                     'wrist_topic': a.get('wrist_topic', '')},
                                    remappings=remappings, respawn=True))
    if _true(a['decision_image']):
        processes.append(Process('vgps_bringup', 'decision_image_node', 'decision_image_node',
                                 {'calibration': calibration}, remappings=remappings, respawn=True))
    return processes


# Threads that share one small batch wait for each other, and for long when another node has taken the core of one: with
# two threads per node on two busy cores, 7 % of the steps took 200 to 1,000 ms from image to command instead of 43.
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}


def _simulation(a: Mapping[str, str]) -> list[Process]:
    size = _number(a, 'image_size', int)
    processes = [
        Process('vgps_bringup', 'simulation_node', 'simulation_node',
                {'task': a['task'], 'image_width': size, 'image_height': size, 'renderer': a['renderer']},
                required=True),
        # the simulated table is at 0, and the fingers reach 23.4 mm below the gripper's frame
        Process('vgps_bringup', 'widowx_node', 'widowx_node',
                # BridgeData's stack, too, looks again before a step of 0.2 s is over (at 0.112 s); with what policy and
                # critic take, 0.1 s makes 5 Hz. On the robot a step blocks for 0.2 s, as in the paper.
                # The simulation shares its cores with the models and whatever else runs; the robot's driver, which does
                # not, has 0.25 s.
                {'arm': 'simulated', 'dry_run': False, 'min_height': 0.0235, 'step_duration': 0.1,
                 'joint_states_timeout': 0.5},
                ('widowx.yaml',)),
        Process('vgps_bringup', 'heartbeat_node', 'heartbeat_node', {'arm': 'simulated', 'heartbeat_timeout': 0.45},
                respawn=True),
        *_steering(a, {}, {}, 'simulation_camera.yaml'),
    ]
    return [replace(process, environment=ONE_THREAD, must_start=True) for process in processes]


def _robot(a: Mapping[str, str]) -> list[Process | Include]:
    robot = a['robot_name'] or a['robot_model']
    topics = {'image_raw': a['camera_topic'], 'camera_info': a['camera_info_topic'],
              'joint_states': f'/{robot}/joint_states'}
    base = {'base_frame': f'{robot}/base_link'}
    driver = [Include('interbotix_xsarm_control', 'xsarm_control.launch.py',
                      {'robot_model': a['robot_model'], 'robot_name': robot, 'use_rviz': 'false',
                       'use_sim': a['use_sim_driver']})]
    arm = Process('vgps_bringup', 'widowx_node', 'widowx_node',
                  {'arm': 'interbotix', 'robot_model': a['robot_model'], 'robot_name': robot,
                   'dry_run': _true(a['dry_run']), 'require_efforts': True,
                   'bus_watchdog': not _true(a['use_sim_driver']), **base},
                  ('widowx.yaml',), topics, delay=5.0)  # the driver needs a few seconds to find its motors
    heartbeat = Process('vgps_bringup', 'heartbeat_node', 'heartbeat_node', {'robot_name': robot}, respawn=True,
                        delay=5.0)
    return [*(driver if _true(a['driver']) else []), *_steering(a, topics, base, a['camera_calibration']), arm,
            heartbeat]


def _replay(a: Mapping[str, str]) -> list[Process]:
    if not a['bag']:
        raise ValueError('replay needs bag:=FOLDER, a recorded episode')
    return [
        Process('vgps_critic', 'critic_node', 'critic_node',
                {'critic': a['critic'], 'device': a['device'], 'beta': _number(a, 'beta'), 'selection': a['selection'],
                 'fallback': a['fallback'],
                 # the player waits for every decision: none is late, and a frame may take its time to come
                 'deadline_ms': 10000.0, 'frame_wait_ms': 2000.0},
                remappings={'decision': 'replayed_decision', 'command': 'replayed_command'}, required=True),
        Process('vgps_bringup', 'replay_node', 'replay_node',
                {'bag': a['bag'], 'rate': _number(a, 'rate'), 'output_directory': a['output']}, required=True,
                delay=3.0),
    ]


SYSTEMS = {
    'simulation': System(
        'A simulated WidowX 250, its camera, policy, critic and recorder.',
        (Argument('policy', 'flow', 'entry-point name of the policy (group vgps.policies)'),
         Argument('task', 'put_eggplant_in_basket', 'simulated task'),
         Argument('image_size', '256', 'side of the camera image [pixels]'),
         Argument('renderer', 'auto', 'what renders the camera image', ('auto', 'egl', 'osmesa', 'rays')),
         # fallback: a simulated arm hurts nobody, and an episode that goes on is worth more than one that waits.
         *(replace(a, default={'beta': str(BETA), 'fallback': 'first'}.get(a.name, a.default)) for a in STEERING)),
        _simulation),
    'robot': System(
        'The real WidowX 250: Interbotix driver, policy, critic, guarded controller and recorder.',
        (Argument('policy', 'octo-small-1.5', 'entry-point name of the policy (group vgps.policies)'),
         Argument('robot_model', 'wx250s', 'Interbotix model name'),
         Argument('robot_name', '', "namespace of Interbotix's driver; empty: the model name"),
         Argument('camera_topic', '/blue/image_raw', 'image topic of the camera that policy and critic use'),
         Argument('wrist_topic', '', "the wrist camera's topic, for a policy that uses one; recorded too; empty: none"),
         Argument('camera_info_topic', '/blue/camera_info', "the camera's CameraInfo topic"),
         Argument('camera_calibration', '', "YAML file of the camera's calibration (doc/lab_guide.md), to draw the "
                  "candidates' directions; empty: none are drawn"),
         Argument('dry_run', 'true', 'compute, check and publish everything, but move nothing', ('true', 'false')),
         Argument('driver', 'true', 'start the Interbotix driver, too', ('true', 'false')),
         Argument('use_sim_driver', 'false', "use Interbotix's simulated driver instead of the arm",
                  ('true', 'false')),
         *STEERING), _robot),
    'replay': System(
        'The live critic on a recorded episode: what would it choose today?',
        (Argument('bag', '', 'folder of a recorded episode'),
         Argument('rate', '1.0', 'replay speed, relative to real time'),
         # a namespace of its own: the nodes of a running robot must not receive an old episode
         *(replace(a, default='vgps_replay') if a.name == 'namespace' else a for a in STEERING
           if a.name not in ('policy_options', 'k', 'max_steps', 'record', 'image_transport',
                             'decision_image'))), _replay),
}
