"""From a camera frame's stamp to the joint command it leads to, over real DDS: a table of where the time goes.

    python -m vgps_bringup.benchmarks.command_latency --steps 300          # the nodes alone
    python -m vgps_bringup.benchmarks.command_latency --system             # all that `make demo` runs

The real policy_node, critic_node and widowx_node run in processes of their own, with marks (`marks.py`). By default a
stand-in plays camera (640x480 at 30 Hz) and driver (joint states at 100 Hz); with `--system` the simulation draws and
moves, the recorder records, and the shipped policy and critic work. What is the models' and the camera's is told apart
from what ROS, the conversions and waiting for a core add; beside it what each node takes of a core.
"""

import array
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState

from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.kinematics import JOINT_NAMES
from vgps_bringup.benchmarks import stages
from vgps_bringup.system.episode_client import EpisodeClient
from vgps_bringup.system.supervisor import Runner
from vgps_msgs_py import command_line, node_main

WIDTH, HEIGHT = 640, 480


class CameraAndDriver(Node):
    """Publishes noise as images and echoes joint commands as joint states."""

    def __init__(self):
        super().__init__('camera_and_driver')
        self.positions, self.openness = list(ControllerConfig().neutral_joints), 1.0
        self.pixels = np.random.default_rng(0).integers(0, 256, WIDTH * HEIGHT * 3, np.uint8).tobytes()
        self.images = self.create_publisher(Image, 'image_raw', 1)
        self.infos = self.create_publisher(CameraInfo, 'camera_info', 1)
        self.joints = self.create_publisher(JointState, 'joint_states', 10)
        self.create_subscription(JointState, 'joint_command', self.on_command, 10)
        self.create_timer(1 / 30, self.publish_image)
        self.create_timer(1 / 100, self.publish_joints)

    def on_command(self, message):
        """Be where the command says."""
        self.positions, self.openness = list(message.position[:6]), message.position[6]

    def publish_image(self):
        """Publish one frame, stamped when it is taken."""
        image = Image(width=WIDTH, height=HEIGHT, encoding='rgb8', step=WIDTH * 3)
        image.header.stamp = self.get_clock().now().to_msg()
        image.data = array.array('B', self.pixels)
        self.images.publish(image)
        self.infos.publish(CameraInfo(header=image.header, width=WIDTH, height=HEIGHT))

    def publish_joints(self):
        """Publish one frame of joint states."""
        finger = 0.010 + 0.025 * self.openness
        message = JointState(name=[*JOINT_NAMES, 'gripper', 'left_finger', 'right_finger'],
                             position=[*self.positions, 0.0, finger, -finger])
        message.header.stamp = self.get_clock().now().to_msg()
        self.joints.publish(message)


def stand_in():
    """Spin a CameraAndDriver until told to stop."""
    node_main.run(CameraAndDriver)


class MarkedRunner(Runner):
    """Starts every node with marks, each into a file of its name."""

    def __init__(self, folder: Path, *args, **options):
        super().__init__(*args, **options)
        self.folder = folder

    def command(self, process):
        """Return the command that starts one node under ``marks``."""
        return [sys.executable, '-m', 'vgps_bringup.benchmarks.marks', str(self.folder / process.name),
                *super().command(process)]


def processor_seconds(pid: int) -> float:
    """Return what a process has used so far [s], 0 where the system does not tell (Linux does)."""
    path = Path(f'/proc/{pid}/stat')
    if not path.exists():
        return 0.0
    user, system = path.read_text().rpartition(')')[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def measure(folder: Path, steps: int, system: bool, settle: float) -> dict[str, float]:
    """Run episodes until `steps` steps are done; write marks into `folder` and return each node's share of a core."""
    namespace = f'latency_{os.getpid()}'
    arguments = {'namespace': namespace, 'k': '10', 'beta': '1.0',
                 'max_steps': str(min(steps, 60) if system else steps), 'decision_image': 'false',
                 'output': str(folder.with_name('bags'))}
    if not system:
        arguments |= {'policy': 'random-policy', 'critic': 'untrained', 'record': 'false'}
    runner = MarkedRunner(folder, 'simulation', arguments, log=lambda line: print(line, file=sys.stderr), quiet=True)
    camera = None
    if not system:
        runner.parts = [part for part in runner.parts if part.name != 'simulation_node']
        camera = subprocess.Popen([sys.executable, '-m', 'vgps_bringup.benchmarks.marks', str(folder / 'stand_in'),
                                   __file__, '--stand-in', '--ros-args', '-r', f'__ns:=/{namespace}'])
    used, elapsed, done, marked = Counter(), 0.0, 0, []

    def began(_feedback):  # homing is not the step's
        if not marked:
            marked.append((time.monotonic(), {n: processor_seconds(c.pid) for n, c in runner.children.items()}))

    try:
        with runner, EpisodeClient(namespace) as client:
            client.wait_until_ready(240.0, runner.why_not_ready)
            time.sleep(settle)
            for seed in range(10023, 10123):  # the first is the demo's scene
                marked.clear()
                goal = {'task': runner.arguments['task']} if system else {'instruction': 'put the object on the plate'}
                result = client.run(**goal, seed=seed, on_feedback=began)
                done += result.steps
                if marked:
                    elapsed += time.monotonic() - marked[0][0]
                    used.update({n: processor_seconds(c.pid) - marked[0][1][n] for n, c in runner.children.items()})
                if done >= steps:
                    break
    finally:
        if camera is not None:
            camera.terminate()
            camera.wait()
    return {name: seconds / elapsed for name, seconds in used.items()}


def main(*, steps: int = 300, system: bool = False, settle: float = 2.0):
    """Print the figures.

    Args:
        steps: control steps to measure, at least 1
        system: simulation, recorder, shipped policy and critic as well
        settle: pause before the first step [s]

    """
    with tempfile.TemporaryDirectory(prefix='vgps-marks-') as scratch:
        folder = Path(scratch, 'marks')
        folder.mkdir()
        shares = measure(folder, steps, system, settle)
        rows, count = stages.table(folder)
    what = 'the whole simulated system' if system else f'{WIDTH}x{HEIGHT} at 30 Hz, no simulation, no recorder'
    print(f'{count} steps, {what}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {processor()}\n\n'
          '| stage | whose | p50 [ms] | p95 [ms] |\n|---|---|---|---|')
    for name, whose, p50, p95 in rows:
        print(f'| {name} | {whose} | {p50:.1f} | {p95:.1f} |')
    print('\n| node | of a core |\n|---|---|')
    for name, share in shares.items():
        print(f'| {name} | {share:.0%} |')


def processor():
    """Return the processor's name where the system tells."""
    info = Path('/proc/cpuinfo')
    names = [line.split(':', 1)[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')] \
        if info.exists() else []
    return names[0] if names else 'unknown processor'


if __name__ == '__main__':
    if '--stand-in' in sys.argv:
        stand_in()
    else:
        command_line.read(main, 'command_latency', description=__doc__)
