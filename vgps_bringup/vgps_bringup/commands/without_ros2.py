"""``vgps-param``, ``vgps-arm`` and ``vgps-topic``: substitutes for ``ros2``, where it is not installed.

On a workstation with ROS from apt, ``ros2 param``, ``ros2 service`` and ``ros2 topic`` do the same and more.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import yaml
from tyro.conf import Positional, arg, subcommand

from vgps_bringup.system.presence import Onlooker, full, where_else
from vgps_msgs_py import command_line

HOLDER = 'heartbeat_node'
CALL_PATIENCE = 4.0  # [s] in which a service of a node that runs is found, on a busy machine too
Node = Annotated[Positional[str], arg(metavar='NODE')]
Name = Annotated[Positional[str], arg(metavar='NAME')]
Namespace = Annotated[str, arg(help='namespace of the running system')]


class CommandError(RuntimeError):
    """A command could not do what it was told; the text says why and what to do."""


@dataclass
class List:
    """Show the parameters of a node, or of every node, with their values. Example: vgps-param list critic_node"""

    node: Node = ''
    """name of the node, for example critic_node; empty: all"""
    namespace: Namespace = 'vgps'


@dataclass
class Get:
    """Show one parameter. Example: vgps-param get critic_node beta"""

    node: Node
    """for example critic_node"""
    name: Name
    """for example beta"""
    namespace: Namespace = 'vgps'


@dataclass
class Set:
    """Change one parameter of a running node. Example: vgps-param set policy_node num_candidates 50"""

    node: Node
    """for example policy_node"""
    name: Name
    """for example num_candidates"""
    value: Annotated[Positional[str], arg(metavar='VALUE')]
    """new value, as in YAML: 50, 0.1, true, first"""
    namespace: Namespace = 'vgps'


Parameters = (Annotated[List, subcommand('list', prefix_name=False)]
              | Annotated[Get, subcommand('get', prefix_name=False)]
              | Annotated[Set, subcommand('set', prefix_name=False)])


@dataclass
class Arm:
    """Stop the arm, send it home, or reset it (gripper open, neutral pose, start pose).

    Example: vgps-arm stop

    After a stop only home or reset let the arm move again. A command line is not an emergency stop: keep the power
    switch within reach.
    """

    what: Positional[Literal['stop', 'home', 'reset']]
    """stop: hold still until home or reset; home: neutral pose; reset: gripper open, neutral pose, start pose"""
    node: str = 'widowx_node'
    """node to call; heartbeat_node also takes stop, and gets it if widowx_node does not answer"""
    namespace: Namespace = 'vgps'


@dataclass
class Topic:
    """Measure the message rate of a topic of the running system, or list all topics.

    Example: vgps-topic rate image_raw
    """

    what: Positional[Literal['rate', 'list']]
    """rate: messages per second; list: every visible topic with its type"""
    topic: Annotated[Positional[str], arg(metavar='TOPIC')] = ''
    """topic relative to the namespace, or absolute with a leading slash: /blue/image_raw"""
    seconds: float = 3.0
    """how long to listen [s], 0.5 .. 600"""
    namespace: Namespace = 'vgps'


class Caller(Onlooker):
    """Calls services of the nodes in sight."""

    def call(self, kind, name: str, request, node: str, namespace: str):
        """Return the answer of ``NAMESPACE/NODE/NAME``.

        Raises:
            CommandError: nobody answers.

        """
        from rclpy.executors import SingleThreadedExecutor

        path = full(namespace, f'{node}/{name}')
        client = self.node.create_client(kind, path)
        if not client.wait_for_service(timeout_sec=CALL_PATIENCE):
            raise CommandError(f'{full(namespace, node)} is not in sight; {self.hint(node, namespace)}')
        executor = SingleThreadedExecutor(context=self._context)
        executor.add_node(self.node)
        future = client.call_async(request)
        executor.spin_until_future_complete(future, 5.0)
        executor.remove_node(self.node)
        executor.shutdown()
        if not future.done():
            raise CommandError(f'{path} does not answer within 5 s: see what {node} says, or start it again')
        return future.result()

    def hint(self, node: str, namespace: str) -> str:
        """Say which nodes of the namespace are there, or where else such a node runs."""
        here = sorted(n.rpartition('/')[2] for n in self.nodes() if n.startswith(full(namespace) + '/'))
        return f'{full(namespace)} has {", ".join(here)}' if here else where_else(self.nodes(), node)

    def parameters(self, node: str, namespace: str, names: list[str] | None = None) -> dict[str, object]:
        """Return name -> value."""
        from rcl_interfaces.msg import Parameter as Message
        from rcl_interfaces.srv import GetParameters, ListParameters
        from rclpy.parameter import Parameter

        if names is None:
            names = sorted(self.call(ListParameters, 'list_parameters', ListParameters.Request(), node,
                                     namespace).result.names)
        answer = self.call(GetParameters, 'get_parameters', GetParameters.Request(names=names), node, namespace)
        if len(answer.values) != len(names) or any(value.type == 0 for value in answer.values):
            known = ', '.join(sorted(self.call(ListParameters, 'list_parameters', ListParameters.Request(), node,
                                               namespace).result.names))
            raise CommandError(f'{node} has no parameter {", ".join(names)}; it has {known}')
        return {name: Parameter.from_parameter_msg(Message(name=name, value=value)).value
                for name, value in zip(names, answer.values)}


def parameters(options: List | Get | Set) -> str:
    """Do what ``vgps-param`` was told and return what to print."""
    with Caller() as caller:
        if isinstance(options, List):
            nodes = [options.node] if options.node else sorted(
                name.rpartition('/')[2] for name in caller.find(lambda found: False)
                if name.startswith(full(options.namespace) + '/') and '_' in name)
            if not nodes:
                raise CommandError(f'nothing runs in {full(options.namespace)}; {where_else(caller.nodes())}')
            return '\n'.join(f'{node}:\n{_indented(caller.parameters(node, options.namespace))}' for node in nodes)
        before = caller.parameters(options.node, options.namespace, [options.name])[options.name]
        if isinstance(options, Get):
            return f'{options.name}: {before}'
        return _set(caller, options, before)


def _set(caller: Caller, options: Set, before) -> str:
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    value = options.value if isinstance(before, str) else yaml.safe_load(options.value)
    if isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(before) and not (isinstance(value, list) and hasattr(before, '__iter__')):
        raise CommandError(f"{options.name} of {options.node} is of type {type(before).__name__} (now {before}), and "
                           f"'{options.value}' is not")
    request = SetParameters.Request(parameters=[Parameter(options.name, value=value).to_parameter_msg()])
    result, = caller.call(SetParameters, 'set_parameters', request, options.node, options.namespace).results
    if not result.successful:
        raise CommandError(f'{options.node} refuses {options.name} = {options.value}: {result.reason}')
    return f'{options.name}: {before} -> {value}, from the next step on'


def _indented(values: dict[str, object]) -> str:
    return '\n'.join(f'  {name}: {list(v) if hasattr(v, "tolist") else v}' for name, v in values.items())


def arm(options: Arm) -> str:
    """Call stop, home or reset and return what the controller answered."""
    from std_srvs.srv import Trigger

    with Caller() as caller:
        node = options.node
        try:
            answer = caller.call(Trigger, options.what, Trigger.Request(), node, options.namespace)
        except CommandError as error:
            if options.what != 'stop' or node == HOLDER:
                raise
            node = HOLDER    # it answers when widowx_node hangs, and stops that once it wakes
            with contextlib.suppress(CommandError):
                answer = caller.call(Trigger, options.what, Trigger.Request(), node, options.namespace)
                return f'{error}. {HOLDER}: {answer.message}'
            raise
    if not answer.success:
        raise CommandError(f'{node} refuses to {options.what}: {answer.message}')
    return f'{options.what}: {answer.message or "under way"}'


def topic(options: Topic) -> str:
    """List topics, or listen to one and return its rate in words."""
    if not 0.5 <= options.seconds <= 600:
        raise CommandError(f'--seconds must be 0.5 .. 600, not {options.seconds:g}')
    if options.what == 'rate' and not options.topic:
        raise CommandError('say which topic, for example vgps-topic rate image_raw')
    with Onlooker() as onlooker:
        onlooker.find(lambda nodes: False)
        known = dict(onlooker.node.get_topic_names_and_types())
        if options.what == 'list':
            return '\n'.join(f'{name}  {", ".join(types)}' for name, types in sorted(known.items()))
        path = options.topic if options.topic.startswith('/') else full(options.namespace, options.topic)
        if path not in known or not onlooker.node.count_publishers(path):
            near = [name for name in known if name.rpartition('/')[2] == path.rpartition('/')[2]]
            raise CommandError(f'nobody publishes {path}' + (f'; did you mean {", ".join(near)}?' if near else
                                                            '; vgps-topic list shows what there is'))
        return _rate(onlooker, path, known[path][0], options.seconds)


def message_class(kind: str):
    """Return the class of ``sensor_msgs/msg/Image``.

    Raises:
        CommandError: its package is not installed here.

    """
    package, _, name = kind.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError) as error:
        raise CommandError(f'messages of type {kind} cannot be read here: install {package}') from error


def _rate(onlooker: Onlooker, path: str, kind: str, seconds: float) -> str:
    import numpy as np
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data

    arrivals: list[float] = []
    onlooker.node.create_subscription(message_class(kind), path, lambda _: arrivals.append(time.monotonic()),
                                      qos_profile_sensor_data, raw=True)
    executor = SingleThreadedExecutor(context=onlooker._context)
    executor.add_node(onlooker.node)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    executor.remove_node(onlooker.node)
    executor.shutdown()
    if len(arrivals) < 2:
        raise CommandError(f'{path} carried {len(arrivals)} messages in {seconds:g} s, too few for a rate: listen '
                           'longer with --seconds')
    gaps = np.diff(arrivals)
    return (f'{path}: {1 / gaps.mean():.2f} messages per second; gaps of {1e3 * np.median(gaps):.1f} ms (median), '
            f'{1e3 * gaps.max():.1f} ms (longest), over {len(arrivals)} messages')


def _run(what, form, command: str, description: str | None = None) -> None:
    options = command_line.read(form, command, description=description)
    with command_line.refusing(command, CommandError, ValueError, yaml.YAMLError):
        print(what(options))


def parameter_main() -> None:
    """``vgps-param``."""
    _run(parameters, Parameters, 'vgps-param', 'Look at the parameters of running nodes, and change them.')


def arm_main() -> None:
    """``vgps-arm``."""
    _run(arm, Arm, 'vgps-arm')


def topic_main() -> None:
    """``vgps-topic``."""
    _run(topic, Topic, 'vgps-topic')
