"""Run one node: start, spin, stop cleanly on SIGINT and SIGTERM, explain a bad start."""

import signal
import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vgps_msgs_py.parameters import ParameterError


def run(make_node, args=None) -> None:
    """Spin ``make_node()`` until it is told to stop or says ``finished``; ``close()`` is called before it is destroyed.

    Exits with 2 when the configuration is wrong, saying so in one line instead of a traceback, and with 130 when it is
    told to stop while it still starts: loading a model takes long, and is given up.
    """
    # our own handlers: rclpy's would shut the context down before the node can say good-bye
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stopping, executor, node = [], SingleThreadedExecutor(), None

    def stop(number, _frame):
        stopping.append(number)
        if node is None:
            raise KeyboardInterrupt
        executor.wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        node = make_node()
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
    finally:
        if node is not None:
            getattr(node, 'close', lambda: None)()
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
