"""Run one node: start, spin, stop cleanly on SIGINT and SIGTERM, explain a bad start."""

import os
import signal
import sys
import time
from collections.abc import Callable

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vgps_msgs_py import discovery, run_files
from vgps_msgs_py.parameters import ParameterError

PROBE_PATIENCE = 1.0  # s; the events executor of some builds never runs a timer


def run(make_node, args=None, events: bool = False) -> None:
    """Spin ``make_node()`` until it is told to stop or says ``finished``; ``close()`` is called before it is destroyed.

    With ``events`` by rclpy's events executor where it has one and it works: the usual one builds its wait set anew for
    every message, which is most of what a small callback costs. The nodes that hold the arm stay with the usual one.

    Exits with 2 when the configuration is wrong, saying so in one line instead of a traceback, and with 130 when it is
    told to stop while it still starts: loading a model takes long, and is given up.
    """
    discovery.limit(os.environ)      # whichever way the node was started
    run_files.remove_leftovers()     # of nodes that were killed
    # our own handlers: rclpy's would shut the context down before the node can say good-bye
    stopping, executor, node = [], None, None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # before there is a node, only the command line and the environment can be wrong
        _refuse(error)
    executor = None

    def stop(number, _frame):
        stopping.append(number)
        if node is None:
            raise KeyboardInterrupt
        if executor is not None:
            executor.wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        node = make_node()
        run_files.note_shared_memory()
        executor = _events_executor(node) if events else None
        if executor is None:
            executor = SingleThreadedExecutor()
            executor.add_node(node)
        while rclpy.ok() and not stopping and not getattr(node, 'finished', False):
            executor.spin_once(timeout_sec=0.2)
            if (failure := getattr(node, 'failure', None)) is not None:
                raise failure
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


def soon(node, callback: Callable[[], None]) -> None:
    """Run a callback in the node's executor, from any thread; dropped while the node is not being spun."""
    def task():
        try:
            callback()
        except Exception as error:  # raised by `run`: an exception in a task crashes the events executor
            node.failure = error

    executor = node.executor
    if executor is not None:
        executor.create_task(task)


def _events_executor(node):
    """Return rclpy's events executor, spinning the node, or None where there is none or its timers do not run."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:  # Humble
        return None
    executor, fired = EventsExecutor(), []
    executor.add_node(node)
    probe = node.create_timer(0.001, lambda: fired.append(True), clock=Clock(clock_type=ClockType.STEADY_TIME))
    try:
        deadline = time.monotonic() + PROBE_PATIENCE
        while not fired and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
    finally:
        node.destroy_timer(probe)
    if fired:
        return executor
    node.get_logger().info("rclpy's events executor runs no timers here: the usual one is used")
    executor.remove_node(node)
    executor.shutdown()
    return None


def _secured() -> bool:
    return os.environ.get('ROS_SECURITY_ENABLE', '').lower() == 'true'


def _refuse(error: Exception) -> None:
    """Say in one line why the node cannot join, and exit with 2."""
    why = ' '.join(str(error).split())[:300]
    if _secured():
        enclave = next((b for a, b in zip(sys.argv, sys.argv[1:]) if a == '--enclave'), '/')
        why = (f"no enclave '{enclave}' could be used from the keystore "
               f"{os.environ.get('ROS_SECURITY_KEYSTORE') or '(ROS_SECURITY_KEYSTORE is not set)'}: {why}")
    print(f'error: {why}', file=sys.stderr, flush=True)
    sys.exit(2)
