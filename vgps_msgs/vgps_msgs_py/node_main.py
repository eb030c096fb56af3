"""Run one node: start, spin, stop cleanly on SIGINT and SIGTERM, explain a bad start."""

import os
import signal
import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vgps_msgs_py import discovery, run_files
from vgps_msgs_py.parameters import ParameterError


def run(make_node, args=None) -> None:
    """Spin ``make_node()`` until it is told to stop or says ``finished``; ``close()`` is called before it is destroyed.

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
    executor = SingleThreadedExecutor()

    def stop(number, _frame):
        stopping.append(number)
        if node is None:
            raise KeyboardInterrupt
        executor.wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        node = make_node()
        run_files.note_shared_memory()
        executor.add_node(node)
        while rclpy.ok() and not stopping and not getattr(node, 'finished', False):
            executor.spin_once(timeout_sec=0.2)
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
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
        run_files.forget_shared_memory()


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
