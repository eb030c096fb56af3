"""Start a system where ``ros2 launch`` is not installed: same processes, same parameters, same remaps.

    vgps-run simulation task:=put_carrot_on_plate k:=50
    vgps-run simulation --show-args

Each child leads a process group of its own; on any way out (Ctrl-C, a node's end, an exception) all of them get SIGINT,
then SIGTERM, then SIGKILL, and what a killed node left in shared memory is removed.
"""

import argparse
import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import yaml

from vgps_bringup.system.description import SYSTEMS, Include, Process

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
    raise RunnerError(f'{package}/{name} is not installed: build the workspace (make build) and source '
                      'vgps_bringup/workspace/activate.sh')


def share(package: str) -> pathlib.Path:
    """Return a package's share folder."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        path = pathlib.Path(prefix, 'share', package)
        if (path / 'package.xml').is_file():
            return path
    raise RunnerError(f'package {package} is not installed: build the workspace (make build)')


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

    def __init__(self, name: str, arguments: dict[str, str], log=print, quiet: bool = False):
        system = SYSTEMS[name]
        self.arguments = system.resolve(arguments)
        self.parts = system.build(self.arguments)
        self.log, self.quiet = log, quiet
        self.children: dict[str, subprocess.Popen] = {}
        self._folder = tempfile.TemporaryDirectory(prefix='vgps-')
        self._stopping = threading.Event()
        for part in self.parts:
            if isinstance(part, Include):
                raise RunnerError(f'{name} includes {part.launch_file} of {part.package}, which needs ROS 2 from apt: '
                                  f'ros2 launch vgps_bringup {name}.launch.py')

    def __enter__(self):
        try:
            self._before = shared_memory()
            started = time.monotonic()
            for process in sorted(self.parts, key=lambda part: part.delay):
                self._stopping.wait(max(0.0, started + process.delay - time.monotonic()))
                self._start(process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self, process: Process) -> None:
        command = command_line(process, self.arguments['namespace'],
                               pathlib.Path(self._folder.name, f'{process.name}.yaml'))
        # the ROS wheels re-execute Python once and mark it so; a child has to do it for itself
        environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
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

    def ended(self) -> dict[str, int]:
        """Return the exit codes of required nodes that are no longer running."""
        required = {part.name for part in self.parts if part.required}
        return {n: c.returncode for n, c in self.children.items() if n in required and c.poll() is not None}

    def wait(self) -> dict[str, int]:
        """Block until a required node ends; return exit codes."""
        while not self._stopping.is_set():
            if ended := self.ended():
                return ended
            self._stopping.wait(0.2)
        return {}

    def stop(self) -> None:
        """Stop every child, gently first; safe to repeat."""
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
        if any(child.returncode == -signal.SIGKILL for child in self.children.values()):
            for path in shared_memory() - self._before - in_use():
                path.unlink(missing_ok=True)


def shared_memory() -> set[pathlib.Path]:
    """Return Fast DDS' shared-memory files: SIGKILLed nodes leave theirs behind."""
    folder = pathlib.Path('/dev/shm')
    return {p for pattern in ('fastdds_*', 'fastrtps_*', 'sem.fastdds_*', 'sem.fastrtps_*')
            for p in folder.glob(pattern)}


def in_use() -> set[pathlib.Path]:
    """Return the shared-memory files that some process has mapped or open: another robot's, say."""
    used = set()
    for process in pathlib.Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            used |= {pathlib.Path(line.split()[-1]) for line in (process / 'maps').read_text().splitlines()
                     if '/dev/shm/' in line}
            for link in (process / 'fd').iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    used.add(pathlib.Path(os.readlink(link)))
    return used


def parse(words: list[str]) -> dict[str, str]:
    """Turn ``name:=value`` words into a dictionary.

    Raises:
        ValueError: a word of another form.

    """
    for word in words:
        if ':=' not in word:
            raise ValueError(f"'{word}' is not of the form name:=value")
    return dict(word.split(':=', 1) for word in words)


def show_arguments(name: str) -> str:
    """Describe a system's arguments as ``ros2 launch --show-args`` does."""
    lines = [SYSTEMS[name].summary, '']
    for argument in SYSTEMS[name].arguments:
        choices = f' One of: {", ".join(argument.choices)}.' if argument.choices else ''
        lines.append(f"  {argument.name:18} {argument.description}.{choices} (default '{argument.default}')")
    return '\n'.join(lines)


def main() -> None:
    """Run a system in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(prog='vgps-run', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('system', choices=SYSTEMS, help='; '.join(f'{n}: {s.summary}' for n, s in SYSTEMS.items()))
    parser.add_argument('arguments', nargs='*', metavar='name:=value', help='see --show-args')
    parser.add_argument('-s', '--show-args', action='store_true', help='list the arguments and exit')
    options = parser.parse_args()
    if options.show_args:
        print(show_arguments(options.system))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Runner(options.system, parse(options.arguments)) as runner:
            ended = runner.wait()
    except KeyboardInterrupt:
        ended = {}
    except (ValueError, RunnerError) as error:
        sys.exit(f'vgps-run: {error}')
    if ended:
        sys.exit('vgps-run: ' + ', '.join(f'{name} ended with code {code}' for name, code in ended.items()))


if __name__ == '__main__':
    main()
