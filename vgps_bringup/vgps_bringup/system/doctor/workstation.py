"""The machine itself: everything that can be looked at while nothing runs. No ROS import.

Checks take what they look at as arguments, with the machine's own values as defaults, so that a fault can be put in.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from vgps_bringup.system.doctor.environment import discovery, middleware, ros_starts, shared_memory, text_encoding
from vgps_bringup.system.doctor.findings import FAULT, OK, UNKNOWN, WARNING, Finding
from vgps_bringup.system.doctor.software import arrays, dependencies, interpreter, python, ros

RQT_PLUGINS = ('rqt_gui', 'rqt_image_view', 'rqt_plot', 'rqt_reconfigure')
CAMERA_BYTES_PER_SECOND = 640 * 480 * 3 * 30  # a raw camera at 30 Hz, what the recorder writes
GIGABYTE = 1e9


def disk(folder: Path = Path('.'), free: float | None = None) -> Finding:
    """Is there room for recordings?"""
    folder = next((p for p in (folder, *folder.resolve().parents) if p.exists()), Path('/'))
    free = shutil.disk_usage(folder).free if free is None else free
    hours = free / CAMERA_BYTES_PER_SECOND / 3600
    found = f'{free / GIGABYTE:.1f} GB free at {folder.resolve()}: {hours:.1f} hours of a raw 640x480 camera at 30 Hz'
    if free < 2 * GIGABYTE:
        return Finding('disk space', FAULT, found, 'make room, or record elsewhere: output:=FOLDER')
    return Finding(
        'disk space', WARNING if hours < 0.25 else OK, found, 'make room before a long session' if hours < 0.25 else ''
    )


def write_speed(folder: Path = Path('.'), size: int = 64 << 20, clock: Callable[[], float] = time.monotonic) -> Finding:
    """Does the disk keep up with a camera?"""
    folder = next((p for p in (folder, *folder.resolve().parents) if p.exists()), Path('/'))
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            began, block = clock(), os.urandom(1 << 20)
            for _ in range(size >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            rate = size / max(clock() - began, 1e-9)
    except OSError as error:
        return Finding(
            'write speed', FAULT, f'{folder}: {error}', 'choose a folder that can be written: output:=FOLDER'
        )
    found = f'{rate / 1e6:.0f} MB/s to {folder.resolve()}, a raw camera writes {CAMERA_BYTES_PER_SECOND / 1e6:.0f}'
    if rate < CAMERA_BYTES_PER_SECOND:
        return Finding('write speed', FAULT, found, 'record to a local disk: output:=FOLDER')
    return Finding(
        'write speed',
        WARNING if rate < 2 * CAMERA_BYTES_PER_SECOND else OK,
        found,
        'frames may be lost under load' if rate < 2 * CAMERA_BYTES_PER_SECOND else '',
    )


def bag_writer(folder: Path | None = None) -> Finding:
    """Can a recording be written and read back?"""
    try:
        from vgps_msgs_py.bags.reader import Bag
        from vgps_msgs_py.bags.writer import BagWriter, Topic
        with tempfile.TemporaryDirectory(dir=folder) as parent:
            path = Path(parent, 'probe')
            writer = BagWriter(path)
            name = 'vgps_msgs/msg/NodeConfiguration'
            make = writer.types.message_class
            header = make('std_msgs/msg/Header')(make('builtin_interfaces/msg/Time')(sec=1, nanosec=2), 'probe')
            message = make(name)(header, 'doctor', '0', '{}', '', '')
            writer.write(Topic('/probe', name), writer.types.serialize(message, name), 1)
            writer.close()
            count = len(Bag(path).of_type('NodeConfiguration'))
    except Exception as error:  # whatever it is, the answer to the question is no
        return Finding('bag writer', FAULT, f'{type(error).__name__}: {error}', 'pip install rosbags mcap')
    return (
        Finding('bag writer', OK, 'wrote and read back an MCAP recording')
        if count == 1
        else Finding(
            'bag writer', FAULT, f'{count} of 1 messages came back', 'please report this with vgps-doctor --json'
        )
    )


def clock_synchronised(answer: str | None = None) -> Finding:
    """Does this machine's clock agree with the world? Stamps of a camera on another machine are compared with it."""
    if answer is None:
        try:
            answer = subprocess.run(
                ['timedatectl', 'show', '-p', 'NTPSynchronized', '--value'],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            answer = ''
    if answer == 'yes':
        return Finding('clock', OK, 'synchronised')
    if answer == 'no':
        return Finding(
            'clock',
            WARNING,
            'not synchronised',
            'install chrony; needed where the camera or the policy is on another machine',
        )
    return Finding('clock', UNKNOWN, 'timedatectl does not say (a container?)')


def graphics_card(cuda: bool | None = None, driver: bool | None = None) -> Finding:
    """Is there a GPU, and can torch use it?"""
    name = ''
    if cuda is None:
        import torch

        cuda = torch.cuda.is_available()
        name = torch.cuda.get_device_name(0) if cuda else ''
    driver = shutil.which('nvidia-smi') is not None if driver is None else driver
    if cuda:
        return Finding('GPU', OK, f'{name}: device:=cuda')
    if driver:
        return Finding(
            'GPU',
            WARNING,
            'the NVIDIA driver is there, but torch cannot use it',
            'install a torch with CUDA that fits the driver',
        )
    return Finding('GPU', OK, 'none: policy and critic run on the CPU (device:=cpu)')


def load(average: float | None = None, cores: int | None = None) -> Finding:
    """Is the machine busy with something else?"""
    average = os.getloadavg()[0] if average is None else average
    cores = cores or os.cpu_count() or 1
    found = f'{average:.1f} on {cores} cores'
    if average > 1.5 * cores:
        return Finding('load', WARNING, found, 'other programs slow down policy and critic: see top')
    return Finding('load', OK, found)


def rqt(prefixes: str | None = None) -> Finding:
    """Are the plugins of the shipped perspective there?"""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '') if prefixes is None else prefixes
    missing = [
        p
        for p in RQT_PLUGINS
        if not any(Path(prefix, 'share', p).is_dir() for prefix in prefixes.split(os.pathsep) if prefix)
    ]
    if len(missing) == len(RQT_PLUGINS):
        return Finding('rqt', UNKNOWN, 'not installed; vgps-param sets parameters without it')
    if missing:
        return Finding(
            'rqt',
            WARNING,
            f'without {", ".join(missing)} parts of the shipped rqt perspective stay empty',
            'sudo apt-get install ' + ' '.join(f'ros-$ROS_DISTRO-{p.replace("_", "-")}' for p in missing),
        )
    return Finding('rqt', OK, ', '.join(RQT_PLUGINS))


def renderer() -> Finding:
    """Can the simulation draw its camera on the graphics hardware or Mesa?"""
    import ctypes.util

    if ctypes.util.find_library('EGL') or ctypes.util.find_library('OSMesa'):
        return Finding("simulation's camera", OK, 'OpenGL through EGL or OSMesa')
    return Finding(
        "simulation's camera",
        WARNING,
        'no OpenGL: the camera image is rendered by ray casting, about ten times slower',
        'sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri',
    )


def interbotix(port: Path = Path('/dev/ttyDXL'), module: bool | None = None) -> Iterable[Finding]:
    """Are the manufacturer's packages and the arm's serial port there?"""
    module = importlib.util.find_spec('interbotix_xs_modules') is not None if module is None else module
    yield (
        Finding("Interbotix's API", OK, 'interbotix_xs_modules')
        if module
        else Finding(
            "Interbotix's API",
            FAULT,
            'interbotix_xs_modules cannot be imported',
            'install the X-Series packages (lab guide, section 2) and source their workspace',
        )
    )
    if not port.exists():
        yield Finding('serial port', FAULT, f'{port} is not there', 'USB cable, power, and the udev rule of Interbotix')
    elif not os.access(port, os.R_OK | os.W_OK):
        yield Finding(
            'serial port', FAULT, f'{port} cannot be opened', 'sudo usermod -aG dialout $USER, then log in again'
        )
    else:
        yield Finding('serial port', OK, str(port))


def critic(name: str) -> Finding:
    """Can this critic be loaded, and what are its actions?"""
    from vgps_critic.config import CheckpointError
    from vgps_critic.critic import Critic

    try:
        loaded = Critic.load(name)
    except (CheckpointError, OSError, ValueError) as error:
        return Finding('critic', FAULT, str(error), 'critic:=FOLDER, owner/name on the hub, or default')
    space = loaded.config.action_space
    size = ', '.join(f'{low:g}..{high:g}' for low, high in zip(space.low[:3], space.high[:3]))
    return Finding('critic', OK, f'{name}, hash {loaded.hash[:12]}, trained on steps of {size} m')


def policy_server(url: str) -> Finding:
    """Does a policy server answer there?"""
    from vgps_policy_bridge.errors import PolicyError
    from vgps_policy_bridge.policies.server_client import ServerPolicy

    try:
        ServerPolicy(url=url, connect_timeout=5.0).close()
    except PolicyError as error:
        return Finding('policy server', FAULT, str(error), 'start vgps-policy-server NAME in its own environment')
    return Finding('policy server', OK, url)


def examine(output: Path, critic_name: str, server: str, real_arm: bool, quick: bool) -> Iterable[Finding]:
    """Yield every finding about the machine; one check that fails to run is a finding, never an end."""
    checks: list[Callable] = [
        ros,
        python,
        interpreter,
        dependencies,
        arrays,
        text_encoding,
        discovery,
        middleware,
        ros_starts,
        shared_memory,
        load,
        graphics_card,
        clock_synchronised,
        lambda: disk(output),
        rqt,
        renderer,
    ]
    if not quick:
        checks += [lambda: write_speed(output), bag_writer]
    if critic_name:
        checks.append(lambda: critic(critic_name))
    if server:
        checks.append(lambda: policy_server(server))
    if real_arm:
        checks.append(interbotix)
    for check in checks:
        try:
            found = check()
            yield from ([found] if isinstance(found, Finding) else found)
        except Exception as error:  # the doctor must not fall ill
            yield Finding(
                getattr(check, '__name__', 'check'), UNKNOWN, f'{type(error).__name__}: {error}', 'please report this'
            )
