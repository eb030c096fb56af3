"""Run one node: start, spin, stop cleanly when told to, explain a bad start, outlive an error in a callback.

An exception in a callback ends that callback, not the node. It is logged once with its traceback, by the callback's
name, and counted on ``/diagnostics`` from then on, where it is an ERROR: what was being done when it came is not done.
"""

import math
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vgps_msgs_py import discovery, run_files, start
from vgps_msgs_py.parameters import ParameterError

OUR_PROFILE = 'fastdds_shm.xml'  # what activate.sh sets
PROBE_PATIENCE = 1.0  # s; the events executor of some builds never runs a timer
DIAGNOSE_PERIOD = 1.0  # s
BETWEEN = {'rclpy', 'vgps_msgs_py'}  # packages that only pass things on to a callback
CALLBACK_ERROR = 'an error in a callback, '  # so begins the line in the log
Result = TypeVar('Result')


def run(make_node: Callable[[], Node], args: list[str] | None = None, events: bool = False,
        shared_memory: bool = True) -> None:
    """Spin ``make_node()`` until it is told to stop or says ``finished``; ``close()`` is called before it is destroyed.

    With ``events`` by rclpy's events executor where it has one and it works: the usual one builds its wait set anew for
    every message, which is most of what a small callback costs. The nodes that hold the arm stay with the usual one.

    Without ``shared_memory`` Fast DDS talks over UDP alone: a node killed while it holds a lock in shared memory makes
    those who write to it there wait for a second or two, and what holds the arm must not wait for a recorder.

    An error in a callback ends that callback, not the node: see ``CallbackErrors``.
    Exits with 2 when the configuration is wrong, saying so in one line instead of a traceback, and with 130 when it is
    told to stop while it still starts: loading a model takes long, and is given up.
    """
    try:
        discovery.limit(os.environ)      # whichever way the node was started
    except ValueError as error:
        _refuse(error)
    if not shared_memory:
        over_udp(os.environ)
    run_files.remove_leftovers()     # of nodes that were killed
    # our own handlers: rclpy's would shut the context down before the node can say good-bye
    stopping: list[int] = []
    node: Any = None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # before there is a node, only the command line and the environment can be wrong
        _refuse(error)
    executor: Any = None

    def stop(number: int, _frame: object) -> None:
        stopping.append(number)
        if node is None:
            raise KeyboardInterrupt
        if executor is not None:
            executor.wake()

    start.on_end(stop)
    try:
        with run_files.noting_shared_memory():
            node = make_node()
        errors = getattr(node, 'callback_errors', None) or CallbackErrors(node)
        executor = _events_executor(node, errors) if events else None
        if executor is None:
            executor = SingleThreadedExecutor()
            executor.add_node(node)
        while rclpy.ok() and not stopping and not getattr(node, 'finished', False):
            _spin_once(executor, node, errors, 0.2)
            errors.publish()
    except ParameterError as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        if node is not None:
            raise
        print('stopped while starting', file=sys.stderr, flush=True)
        sys.exit(130)
    except ExternalShutdownException:
        pass
    except Exception as error:
        if node is not None or not _secured():
            raise
        _refuse(error)
    finally:
        if node is not None:
            getattr(node, 'close', lambda: None)()
            if executor is not None:
                executor.remove_node(node)
            node.destroy_node()
        if executor is not None:
            executor.shutdown()
        rclpy.try_shutdown()
        run_files.forget_shared_memory()


def soon(node: Any, callback: Callable[[], None]) -> None:
    """Run a callback in the node's executor, from any thread; dropped while the node is not being spun."""
    def task() -> None:
        try:
            callback()
        except Exception as error:  # raised by `run`: an exception in a task crashes the events executor
            node.failure = error

    executor = node.executor
    if executor is not None:
        executor.create_task(task)


def _spin_once(executor: Any, node: Any, errors: 'CallbackErrors', timeout: float) -> None:
    try:
        executor.spin_once(timeout_sec=timeout)
        if (failure := getattr(node, 'failure', None)) is not None:
            node.failure = None
            raise failure
    except (ParameterError, ExternalShutdownException):
        raise
    except Exception as error:
        errors.handle(error)


def _events_executor(node: Node, errors: 'CallbackErrors') -> Any:
    """Return rclpy's events executor, spinning the node, or None where there is none or its timers do not run."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:  # Humble
        return None
    executor, fired = EventsExecutor(), list[bool]()
    executor.add_node(node)
    probe = node.create_timer(0.001, lambda: fired.append(True), clock=Clock(clock_type=ClockType.STEADY_TIME))
    try:
        deadline = time.monotonic() + PROBE_PATIENCE
        while not fired and time.monotonic() < deadline:
            _spin_once(executor, node, errors, 0.05)
    finally:
        node.destroy_timer(probe)
    if fired:
        return executor
    node.get_logger().info("rclpy's events executor does not run timers here: the standard executor is used")
    executor.remove_node(node)
    executor.shutdown()
    return None


def _secured() -> bool:
    return os.environ.get('ROS_SECURITY_ENABLE', '').lower() == 'true'


def over_udp(variables: MutableMapping[str, str]) -> None:
    """Take Fast DDS's profile without shared memory, unless the environment names one that is not ours."""
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):    # the second: Humble, Jazzy
        if Path(variables.get(name) or OUR_PROFILE).name == OUR_PROFILE:
            variables[name] = str(Path(__file__).with_name('fastdds_udp.xml'))


def _refuse(error: Exception) -> None:
    """Say in one line why the node cannot join, and exit with 2."""
    why = ' '.join(str(error).split())[:300]
    if _secured():
        enclave = next((b for a, b in zip(sys.argv, sys.argv[1:]) if a == '--enclave'), '/')
        why = (f"no enclave '{enclave}' could be used from the keystore "
               f"{os.environ.get('ROS_SECURITY_KEYSTORE') or '(ROS_SECURITY_KEYSTORE is not set)'}: {why}")
    print(f'error: {why}', file=sys.stderr, flush=True)
    sys.exit(2)


def callback_of(error: BaseException) -> str:
    """Return the name of the callback that an exception came out of, with its file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not BETWEEN & set(Path(frame.filename).parts)]
    frame = own[0] if own else frames[-1] if frames else None
    return 'an unknown callback' if frame is None else f'{frame.name} ({Path(frame.filename).name})'


class CallbackErrors:
    """Notes the errors of one node; ``then`` is what a node does about each, e.g. hold the arm."""

    def __init__(self, node: Node, then: Callable[[Exception], object] = lambda error: None):
        self.node, self.then = node, then
        self.counts: Counter[str] = Counter()  # by callback
        self.last = ''
        self._told: set[tuple[str, str]] = set()
        self._publisher: Any = None    # not before it is needed
        self._published = -math.inf    # monotonic s

    def call(self, act: Callable[..., Result], *arguments: object) -> Result | None:
        """Return what ``act`` returns; None where it raised, which is handled.

        Raises:
            ParameterError: a node's way to say that it cannot be of use.

        """
        try:
            return act(*arguments)
        except ParameterError:
            raise
        except Exception as error:
            self.handle(error)
        return None

    def handle(self, error: Exception) -> None:
        """Have the node do something about an error, and note it."""
        self.then(error)
        self.note(error)

    def note(self, error: Exception) -> None:
        """Log an error the first time it comes from this callback, and count it."""
        name = callback_of(error)
        self.counts[name] += 1
        self.last = f'{name}: {type(error).__name__}: {error}'
        if (name, type(error).__name__) in self._told:
            return
        self._told.add((name, type(error).__name__))
        self.node.get_logger().error(f'{CALLBACK_ERROR}{name}: the node goes on; further ones are counted on '
                                     '/diagnostics\n'
                                     + ''.join(traceback.format_exception(error)).rstrip())
        if self._publisher is None:
            try:
                self._publisher = self.node.create_publisher(DiagnosticArray, '/diagnostics', 10)
            except Exception as refusal:  # e.g. not allowed by the enclave: the log has it
                self.node.get_logger().error(f'errors cannot be counted on /diagnostics: {refusal}')

    def publish(self) -> None:
        """Say on /diagnostics, once a second, how many errors came from which callback; nothing before the first."""
        if self._publisher is None or time.monotonic() - self._published < DIAGNOSE_PERIOD:
            return
        self._published = time.monotonic()
        array = DiagnosticArray(status=[DiagnosticStatus(
            level=DiagnosticStatus.ERROR, name=f'{self.node.get_fully_qualified_name()}: callbacks',
            message=f'{self.counts.total()} errors in callbacks, the last in {self.last}'[:500],
            values=[KeyValue(key=name, value=str(count)) for name, count in self.counts.items()])])
        array.header.stamp = self.node.get_clock().now().to_msg()
        self._publisher.publish(array)
