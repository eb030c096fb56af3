"""Start a system where ``ros2 launch`` is not installed: same processes, same parameters, same remaps.

Only a required process ends the others with itself (``description.py`` says which are). One that died alone is started
again, with the same arguments, by the line that the log shows::

    vgps-run simulation --only critic_node k:=50

Each child leads a process group of its own; on any way out (Ctrl-C, a node's end, an exception) all of them get SIGINT,
then SIGTERM, then SIGKILL, and what a killed node left in shared memory is removed.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import replace

import yaml

from vgps_bringup.system.description import (
    REFUSED,
    RESPAWN_DELAY,
    SYSTEMS,
    Include,
    Process,
    enclave,
    ends_system,
    obituary,
    security,
)
from vgps_msgs_py import discovery, run_files

GRACE = ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0))  # [s] to wait after each
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)  # looked up here: between fork and exec a lock of the loader may be held for ever


class RunnerError(RuntimeError):
    """The system could not be started; the text says what to do."""


def executable(package: str, name: str) -> pathlib.Path:
    """Find a node's executable the way ``ros2 run`` does.

    Raises:
        RunnerError: the workspace is not built or not sourced.

    """
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        path = pathlib.Path(prefix, 'lib', package, name)
        if path.is_file():
            return path
    raise RunnerError(f'{package}/{name} is not installed: build the workspace (make setup) and source '
                      'vgps_bringup/workspace/activate.sh')


def share(package: str) -> pathlib.Path:
    """Return a package's share folder."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        path = pathlib.Path(prefix, 'share', package)
        if (path / 'package.xml').is_file():
            return path
    raise RunnerError(f'package {package} is not installed: build the workspace (make setup)')


def command_line(process: Process, namespace: str, parameter_file: pathlib.Path) -> list[str]:
    """Return the command that starts one node; writes its parameters to ``parameter_file``."""
    if process.parameters:
        parameter_file.write_text(yaml.safe_dump({'/**': {'ros__parameters': dict(process.parameters)}}))
    files = [share('vgps_bringup') / 'config' / path for path in process.parameter_files]
    command = [str(executable(process.package, process.executable)), '--ros-args', '-r', f'__node:={process.name}',
               '-r', f'__ns:=/{namespace.strip("/")}']
    for path in [*files, *([parameter_file] if process.parameters else [])]:
        command += ['--params-file', str(path)]
    for source, target in process.remappings.items():
        command += ['-r', f'{source}:={target}']
    return command


def _end_with_parent() -> None:
    # a runner that is itself killed with -9 takes its children along (Linux)
    with contextlib.suppress(AttributeError):
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


class Runner:
    """The processes of one running system; a context manager that leaves none behind."""

    def __init__(self, name: str, arguments: dict[str, str], log=print, quiet: bool = False, only: str = ''):
        system = SYSTEMS[name]
        self.name, self.given, self.only = name, dict(arguments), only
        self.arguments = system.resolve(arguments)
        self.parts = system.build(self.arguments)
        if only:
            nodes = [part for part in self.parts if isinstance(part, Process)]
            self.parts = [replace(part, delay=0.0, required=True) for part in nodes if part.name == only]
            if not self.parts:
                raise RunnerError(f"{name} has no node '{only}'; it has {', '.join(part.name for part in nodes)}")
        self.log, self.quiet = log, quiet
        self.children: dict[str, subprocess.Popen] = {}
        self.environment = {**os.environ, **security(self.arguments['keystore'])}
        discovery.limit(self.environment, self.arguments['machines'])
        self._reported: set[subprocess.Popen] = set()
        self._folder = tempfile.TemporaryDirectory(prefix='vgps-')
        self._stopping = threading.Event()
        for part in self.parts:
            if isinstance(part, Include):
                raise RunnerError(f'{name} includes {part.launch_file} of {part.package}, which needs ROS 2 from apt: '
                                  f'ros2 launch vgps_bringup {name}.launch.py')

    def __enter__(self):
        try:
            run_files.remove_leftovers()
            if not self.only:
                run_files.forget_ends(self.arguments['namespace'])
            started = time.monotonic()
            for process in sorted(self.parts, key=lambda part: part.delay):
                self._stopping.wait(max(0.0, started + process.delay - time.monotonic()))
                self._start(process)
            threading.Thread(target=self._watch, daemon=True).start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def command(self, process: Process) -> list[str]:
        """Return the command that starts one node."""
        command = command_line(process, self.arguments['namespace'],
                               pathlib.Path(self._folder.name, f'{process.name}.yaml'))
        if self.arguments['keystore']:
            command += ['--enclave', enclave(process, self.arguments['namespace'])]
        return command

    def _start(self, process: Process) -> None:
        command = self.command(process)
        # the ROS wheels re-execute Python once and mark it so; a child has to do it for itself
        environment = {k: v for k, v in self.environment.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
        for name, value in {'PYTHONUNBUFFERED': '1', **process.environment}.items():
            environment.setdefault(name, value)
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 start_new_session=True, preexec_fn=_end_with_parent, text=True, errors='replace')
        self.children[process.name] = child
        threading.Thread(target=self._relay, args=(process.name, child), daemon=True).start()

    def _relay(self, name: str, child: subprocess.Popen) -> None:
        for line in child.stdout:
            if not self.quiet or any(word in line for word in ('WARN', 'ERROR', 'FATAL', 'error', 'Traceback')):
                self.log(f'[{name}] {line.rstrip()}')

    def _watch(self) -> None:
        """Say which node has ended, and start again what may be."""
        while not self._stopping.wait(0.2):
            for process in self.parts:
                child = self.children[process.name]
                if child.poll() is None or child in self._reported or self._stopping.is_set():
                    continue
                self._reported.add(child)
                run_files.note_end(self.arguments['namespace'], process.name, child.returncode)
                self.log(f'[{self.name}] {obituary(self.name, process, child.returncode, self.given)}')
                if process.respawn and not ends_system(process, child.returncode) and child.returncode != REFUSED \
                        and not self._stopping.wait(RESPAWN_DELAY):
                    self._start(process)

    def ended(self) -> dict[str, int]:
        """Return the exit codes of nodes that are no longer running and without which the others must not go on."""
        return {part.name: child.returncode for part in self.parts
                if (child := self.children.get(part.name)) is not None and child.poll() is not None
                and ends_system(part, child.returncode)}

    def why_not_ready(self) -> str:
        """Return which nodes have ended, in words, whether or not the others go on; empty while all run."""
        return run_files.describe_ends({name: child.returncode for name, child in self.children.items()
                                        if child.poll() is not None})

    def wait(self) -> dict[str, int]:
        """Block until a required node ends; return exit codes."""
        while not self._stopping.is_set():
            if ended := self.ended():
                return ended
            self._stopping.wait(0.2)
        return {}

    def stop(self) -> None:
        """Stop every child, gently first; safe to repeat."""
        for name, code in self.ended().items():  # a client must not take the others' end, which follows, for the cause
            if not self._stopping.is_set() and self.children[name] not in self._reported:
                run_files.note_end(self.arguments['namespace'], name, code)
        self._stopping.set()
        for number, grace in GRACE:
            alive = [child for child in self.children.values() if child.poll() is None]
            for child in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
            deadline = time.monotonic() + grace
            while any(child.poll() is None for child in alive) and time.monotonic() < deadline:
                time.sleep(0.02)
        self._folder.cleanup()
        run_files.remove_leftovers()    # a node that ends well may leave some, too
