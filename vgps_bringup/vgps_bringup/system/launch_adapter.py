"""Turn a system of ``description.py`` into a launch description. Imported by the launch files only."""

import os
import sys

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from vgps_bringup.system import description, presence
from vgps_bringup.system.description import SYSTEMS, Include, Process
from vgps_msgs_py import discovery, run_files
from vgps_msgs_py.start import LAUNCHED_BY


def _include(include: Include):
    path = os.path.join(get_package_share_directory(include.package), 'launch', include.launch_file)
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=include.arguments.items())


def _at_exit(name: str, process: Process, arguments: dict[str, str], given: dict[str, str]):
    """Say who has ended; end the others only where they must not go on."""
    def act(event, context):
        if context.is_shutdown:
            return None
        run_files.note_end(arguments['namespace'], process.name, event.returncode)
        text = description.obituary(name, process, event.returncode, given)
        if description.ends_system(process, event.returncode):
            if event.returncode:
                raise RuntimeError(text)  # launch logs it, shuts down, and exits with 1 as well
            return [LogInfo(msg=text), EmitEvent(event=Shutdown(reason=text))]
        return [LogInfo(msg=text)]
    return act


def _node(process: Process, name: str, arguments: dict[str, str], given: dict[str, str]):
    namespace = arguments['namespace']
    share = get_package_share_directory('vgps_bringup')
    node = Node(
        package=process.package, executable=process.executable, name=process.name, namespace=namespace,
        parameters=[*(os.path.join(share, 'config', path) for path in process.parameter_files),
                    # or launch_ros would read a text such as '{}' or '3' as YAML
                    {name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
                     for name, value in process.parameters.items()}],
        remappings=list(process.remappings.items()),
        # launch leaves its processes behind when it is terminated or killed: they end by themselves
        additional_env={LAUNCHED_BY: str(os.getpid()),
                        **{name: value for name, value in process.environment.items() if name not in os.environ}},
        ros_arguments=['--enclave', description.enclave(process, namespace)] if arguments['keystore'] else [],
        respawn=process.respawn, respawn_delay=description.RESPAWN_DELAY,
        output='screen', emulate_tty=True, sigterm_timeout='5', on_exit=_at_exit(name, process, arguments, given))
    return TimerAction(period=process.delay, actions=[node]) if process.delay else node


def _typed(name: str) -> dict[str, str]:
    """Return what was typed behind ``ros2 launch ... NAME.launch.py``; nothing if another launch file includes it."""
    own = [i for i, word in enumerate(sys.argv) if os.path.basename(word) == f'{name}.launch.py']
    return dict(word.split(':=', 1) for word in sys.argv[own[0] + 1:] if ':=' in word) if own else {}


def launch_description(name: str) -> LaunchDescription:
    """Return the launch description of one system; every argument shows in ``--show-args``."""
    system = SYSTEMS[name]

    def start(context):
        given = {a.name: LaunchConfiguration(a.name).perform(context) for a in system.arguments}
        # launch itself ignores what nobody declared
        system.resolve(_typed(name))
        arguments = system.resolve(given)
        # for every process that follows, the driver's launch file too
        around = dict(os.environ)
        discovery.limit(around, arguments['machines'])
        around |= description.security(arguments['keystore'])
        changed = {key: value for key, value in around.items() if os.environ.get(key) != value}
        parts = system.build(arguments)
        second = presence.second_system(arguments['namespace'], [p.name for p in parts if isinstance(p, Process)])
        if second:
            raise RuntimeError(second)  # before anything is started: launch logs it and exits with 1
        run_files.remove_leftovers()
        run_files.forget_ends(arguments['namespace'])
        told = {key: value for key, value in given.items()
                if value != next(a.default for a in system.arguments if a.name == key)}
        return [*(SetEnvironmentVariable(variable, value) for variable, value in changed.items()),
                *(_include(part) if isinstance(part, Include) else _node(part, name, arguments, told)
                  for part in parts)]

    return LaunchDescription([
        *(DeclareLaunchArgument(a.name, default_value=a.default, description=a.description,
                                **({'choices': list(a.choices)} if a.choices else {})) for a in system.arguments),
        OpaqueFunction(function=start),
    ])
