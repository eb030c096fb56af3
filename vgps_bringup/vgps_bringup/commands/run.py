"""``vgps-run``: start a system where ``ros2 launch`` is not installed."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from vgps_bringup.commands import checks
from vgps_bringup.system.description import SYSTEMS, Include, Process
from vgps_bringup.system.presence import Announcer, Onlooker, full, second_system
from vgps_bringup.system.supervisor import Runner, RunnerError
from vgps_msgs_py import command_line, discovery, run_files, start


@dataclass
class Run:
    """Start a system and keep it running until Ctrl-C: the nodes, parameters and remaps of ros2 launch.

    Example: vgps-run simulation task:=put_carrot_on_plate k:=50

    To list the launch arguments (name:=value): vgps-run simulation --show-args. Next, in another terminal:
    vgps-episode.
    """

    system: Positional[Literal[tuple(SYSTEMS)]]
    """simulation: a simulated WidowX; robot: the real arm (needs ros2 launch for its driver, unless driver:=false);
    replay: the live critic on a recorded episode"""
    arguments: Annotated[Positional[tuple[str, ...]], arg(metavar='name:=value')] = ()
    """launch arguments, see --show-args"""
    only: str = ''
    """start only this node of the system, for example after it died"""
    show_args: Annotated[bool, arg(aliases=['-s'])] = False
    """list the launch arguments and exit"""


def parse(words: tuple[str, ...]) -> dict[str, str]:
    """Turn ``name:=value`` words into a dictionary.

    Raises:
        ValueError: a word of another form.

    """
    for word in words:
        if ':=' not in word:
            raise ValueError(f"'{word}' is not of the form name:=value, e.g. k:=50")
    return dict(word.split(':=', 1) for word in words)


def show_arguments(name: str) -> str:
    """Describe a system's arguments as ``ros2 launch --show-args`` does."""
    lines = [SYSTEMS[name].summary, '']
    for argument in SYSTEMS[name].arguments:
        choices = f' One of: {", ".join(argument.choices)}.' if argument.choices else ''
        lines.append(f"  {argument.name:18} {argument.description}.{choices} (default '{argument.default}')")
    return '\n'.join(lines)


def check(name: str, given: dict[str, str]) -> dict[str, str]:
    """Return every argument of a system, checked as far as that goes without starting anything.

    Raises:
        ValueError: one of them cannot be right; the text says which and what to do.

    """
    values = SYSTEMS[name].resolve(given)
    for key, kind, test in (('k', int, checks.candidates), ('beta', float, checks.temperature),
                            ('max_steps', int, lambda n: checks.whole('max_steps', n, 1, checks.LONGEST_EPISODE)),
                            ('image_size', int, lambda n: checks.whole('image_size', n, 16, 4096)),
                            ('rate', float, lambda r: checks.positive('rate', r)),
                            ('task', str, checks.task), ('policy', str, checks.policy), ('critic', str, checks.critic),
                            ('namespace', str, checks.namespace)):
        if key not in values:
            continue
        try:
            value = kind(values[key])
        except ValueError:
            article = 'a whole number' if kind is int else 'a number'
            raise ValueError(f"{key}:={values[key]} must be {article}, e.g. {key}:={_example(name, key)}") from None
        test(value)
    return values


def _example(name: str, key: str) -> str:
    return next(argument.default for argument in SYSTEMS[name].arguments if argument.name == key)


def _say_when_ready(runner: Runner, stopping: threading.Event) -> None:
    """Print the next command once episodes can run, and what is waited for until then."""
    namespace = runner.arguments['namespace']
    wanted = {full(namespace, part.name) for part in runner.parts}
    announcer = Announcer(f'the nodes of {full(namespace)} and their models', runner.log)
    with Onlooker() as onlooker:
        from rclpy.action import get_action_names_and_types
        while not stopping.wait(0.25):
            offered = {action for action, _ in get_action_names_and_types(onlooker.node)}
            if not wanted - onlooker.nodes() and full(namespace, 'execute_instruction') in offered:
                break
            announcer.look(onlooker.nodes)
        else:
            return
    where = '' if namespace.strip('/') == 'vgps' else f' --namespace {namespace.strip("/")}'
    what = f'--task {runner.arguments["task"]}' if 'task' in runner.arguments else '--instruction "put the ..."'
    runner.log(f'ready (K = {runner.arguments["k"]}, beta = {runner.arguments["beta"]}) — in another terminal: '
               f'vgps-episode {what}{where}')


def main() -> None:
    """Run a system in the foreground until Ctrl-C."""
    options = command_line.read(Run, 'vgps-run')
    if options.show_args:
        print(show_arguments(options.system))
        return
    start.on_end(start.leave)
    stopping, ended = threading.Event(), {}
    try:
        values = check(options.system, given := parse(options.arguments))
        parts = SYSTEMS[options.system].build(values)
        names = [part.name for part in parts if isinstance(part, Process)]
        if not any(isinstance(part, Include) for part in parts):  # or the Runner refuses
            discovery.limit(os.environ, values['machines'])
            if second := second_system(values['namespace'], [options.only] if options.only else names):
                raise ValueError(second)
        with Runner(options.system, given, only=options.only, log=lambda line: print(line, flush=True)) as runner:
            if 'policy_node' in names and not options.only:
                threading.Thread(target=_say_when_ready, args=(runner, stopping), daemon=True).start()
            try:
                ended = runner.wait()
            finally:
                stopping.set()
    except KeyboardInterrupt:
        ended = {}
    except (ValueError, RunnerError) as error:
        sys.exit(f'vgps-run: {error}')
    if ended:
        sys.exit(f'vgps-run: {run_files.describe_ends(ended)}')


if __name__ == '__main__':
    main()
