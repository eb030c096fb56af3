"""What looking at every link costs, and what it finds.

    python -m vgps_bringup.benchmarks.collision_check

Prints the processor time of the look at one step (5 Hz: 200 ms are there) and of finding a way home, how many of the
poses that legal steps reach have a way home with a link below the table when it is straight, how many as it is taken,
how many are refused, and the largest gripper speed.
"""

import time

import numpy as np

from vgps_bringup.arm.collision import FINGER_REACH, CollisionModel, UnsafePathError
from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.motion import Motion
from vgps_bringup.arm.step_controller import StepController, StepControllerConfig

_WALKS, _STEPS, _EVERY = 60, 40, 5


def walks(config, start, seed):
    """Return the (N, 6) poses that seeded walks of legal steps lead to, and (command, next command) of each step."""
    rng, steps, poses, pairs = np.random.default_rng(seed), StepController(config), [], []
    for _ in range(_WALKS):
        steps.reset(start)
        drift = rng.uniform(-1, 1, 6) * [0.05, 0.05, 0.05, 0.25, 0.25, 0.25]
        for i in range(_STEPS):
            before = steps.joint_command
            noise = rng.normal(0, 1, 6) * [0.02, 0.02, 0.02, 0.1, 0.1, 0.1]
            if steps.step([*(drift + noise), 1.0], before).accepted:
                pairs.append((before, steps.joint_command))
            if i % _EVERY == _EVERY - 1:
                poses.append(steps.joint_command)
    return np.array(poses), pairs


def _milliseconds(act, arguments):
    times = []
    for argument in arguments:
        started = time.process_time()
        act(*argument)
        times.append((time.process_time() - started) * 1e3)
    return 'median {:.2f}, p99 {:.2f}, largest {:.2f} ms of processor time'.format(*np.percentile(times, [50, 99, 100]))


def main():
    """Measure and print."""
    config, model = ControllerConfig(), CollisionModel()
    steps = StepControllerConfig(min_height=FINGER_REACH, workspace='openvla')
    neutral = np.array(config.neutral_joints)
    poses, pairs = walks(steps, config.start_joints(), 1)
    below = [model.look(pose).height < steps.floor - 0.002 for pose in poses]
    print(f'{len(poses)} poses that legal steps reach; a link more than 2 mm below the table in {sum(below)}')

    def look(before, after):
        try:
            model.check_path([before, after], steps.floor)
        except UnsafePathError:
            pass
    print(f'look at one step, {len(pairs)} steps: {_milliseconds(look, pairs)}')

    straight = found = refused = 0
    speeds, cost = [], []
    for pose in poses:
        straight += min(model.look(pose + s * (neutral - pose)).height for s in np.linspace(0, 1, 60)) < -0.002
        started = time.process_time()
        try:
            motion = Motion(pose, neutral, config.move_speed, config.max_gripper_speed, steps.floor, collision=model)
        except UnsafePathError:
            refused += 1
            continue
        cost.append((time.process_time() - started) * 1e3)
        times = np.linspace(0, motion.duration, 120)
        points = [motion.at(t) for t in times]
        found += min(model.look(point).height for point in points) < -0.002
        tips = np.array([model.fingertip(point) for point in points])
        speeds.append((np.linalg.norm(np.diff(tips, axis=0), axis=1) / np.diff(times)).max())
    print(f'way home with a link more than 2 mm below the table: straight {straight}, as taken {found}, '
          f'refused {refused} of {len(poses)}')
    print(f'largest fingertip speed {max(speeds):.3f} m/s; finding a way: median {np.median(cost):.1f}, '
          f'p99 {np.percentile(cost, 99):.1f}, largest {max(cost):.1f} ms of processor time')


if __name__ == '__main__':
    main()
