"""Who is there: the nodes of a running system, seen from a command line. Imports rclpy only when it looks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable

from vgps_msgs_py import discovery, run_files

SIGHT = 1.5  # [s] in which nodes that run show themselves to a newcomer
PATIENCE = 2.0  # [s] of silence before a command says what it waits for
REPEAT = 10.0  # [s] between two such lines


def full(namespace: str, name: str = '') -> str:
    """Return ``/vgps/widowx_node`` of ``vgps`` and ``widowx_node``."""
    return '/'.join(['', *filter(None, (namespace.strip('/'), name))])


class Onlooker:
    """A nameless node that only looks; a context manager."""

    def __enter__(self) -> Onlooker:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        discovery.limit(os.environ)
        self._context = rclpy.Context()
        # without our command line: name:=value would be taken for a remapping
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f'onlooker_{os.getpid()}', context=self._context, start_parameter_services=False,
                                      enable_rosout=False)
        run_files.note_shared_memory()
        return self

    def __exit__(self, *_) -> None:
        import rclpy

        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def nodes(self) -> set[str]:
        """Return the full names of all other nodes in sight."""
        return {full(namespace, name) for name, namespace in self.node.get_node_names_and_namespaces()
                if name != self.node.get_name()}

    def find(self, wanted: Callable[[set[str]], bool], within: float = SIGHT) -> set[str]:
        """Look until ``wanted`` says that the nodes in sight are enough, or the time is over; return them."""
        deadline = time.monotonic() + within
        while not wanted(found := self.nodes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


def systems(nodes: Iterable[str], node: str = 'policy_node') -> list[str]:
    """Return the namespaces in which ``node`` is among ``nodes``."""
    return sorted(name[:-len(node) - 1] or '/' for name in nodes if name.endswith(f'/{node}'))


def where_else(nodes: Iterable[str], node: str = 'policy_node') -> str:
    """Say which namespaces hold that node, for a message."""
    found = systems(nodes, node)
    return f'{node} runs in {", ".join(found)}: give --namespace {found[0].strip("/")}' if found else (
        f'no {node} is in sight at all: start a system (vgps-run simulation), with the same ROS_DOMAIN_ID')


def second_system(namespace: str, names: Iterable[str]) -> str:
    """Return why nodes of these names must not be started in a namespace, '' where they may."""
    wanted = {full(namespace, name): name for name in names}
    with Onlooker() as onlooker:
        found = onlooker.find(lambda nodes: bool(nodes & wanted.keys()))
    running = sorted(wanted[name] for name in found & wanted.keys())
    return '' if not running else (
        f'{", ".join(running)} already run{"s" if len(running) == 1 else ""} in {full(namespace)}: two systems would '
        'move one arm; stop that one, or start this one with namespace:=OTHER')


class Announcer:
    """Says what is waited for after a moment, and again now and then; on standard error."""

    def __init__(self, what: str, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)):
        self._what, self._say, self._began = what, say, time.monotonic()
        self._next = self._began + PATIENCE

    def look(self, nodes: Callable[[], Iterable[str]], node: str = 'policy_node') -> None:
        """Say it if it is time; ``nodes`` tells who is in sight."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + REPEAT
        self._say(f'waiting for {self._what} ({now - self._began:.0f} s); {_sight(nodes(), node)}')


def _sight(nodes: Iterable[str], node: str) -> str:
    found = systems(nodes, node)
    return f'{node} is in sight in {", ".join(found)}' if found else f'no {node} is in sight'
