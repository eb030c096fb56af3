"""Begin a node's process: ready to be told to end before anything is imported that takes seconds. No rclpy here.

A package's ``nodes.py`` names its nodes, and its setup.py their commands::

    critic_node = start.node('vgps_critic.critic_node')
"""

import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable

LAUNCHED_BY = 'VGPS_LAUNCHED_BY'  # process id of whoever started the system; nodes end when it does
_PR_SET_PDEATHSIG = 1


def on_end(handler: Callable[[int, object], None]) -> None:
    """Have `handler` called for Ctrl-C, SIGTERM, and SIGHUP: a terminal or a connection that is closed.

    Whoever asked for SIGHUP to be ignored (nohup) gets that.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def leave(number: int, _frame: object) -> None:
    """Unwind the program: what a command has started ends with it."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def node(module: str) -> Callable[[], None]:
    """Return a command that imports ``module`` and runs its ``main()``."""

    def run() -> None:
        on_end(_leave)  # until the node's own: nothing has been opened yet
        _end_with_launcher()
        code = 1
        try:
            importlib.import_module(module).main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        # The node has closed what it opened. The interpreter's own end would take seconds more, to free models.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    return run


def _leave(number: int, _frame: object) -> None:
    os._exit(128 + number)


def _end_with_launcher() -> None:
    """Let the kernel (Linux) interrupt this process when the one that launched it has gone, by whatever signal."""
    launcher = os.environ.get(LAUNCHED_BY, '')
    if not launcher.isdigit() or not sys.platform.startswith('linux'):
        return
    if os.getppid() == int(launcher):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if not os.path.exists(f'/proc/{launcher}'):  # it went before that
        _leave(signal.SIGINT, None)
