"""A controller with an arm that is pure arithmetic and a clock that only the test moves."""

import numpy as np

from vgps_bringup.arm.arms import FINGER_CLOSED, FINGER_OPEN, Reading
from vgps_bringup.arm.controller import ArmController
from vgps_bringup.arm.controller_config import ControllerConfig
from vgps_bringup.arm.gate import Command

PERIOD = 0.02
ROS_OFFSET = 1.7e9   # the clock of stamps is not the monotonic one
CONFIG = ControllerConfig(base_frame='base', dry_run=False)
NEUTRAL = np.array(CONFIG.neutral_joints)


class FakeArm:
    """Goes where it is told within one control period, unless blocked; keeps every command."""

    ready, message = True, ''

    def __init__(self, positions=NEUTRAL):
        self.positions, self.openness = np.array(positions, float), 1.0
        self.commands, self.blocked, self.recovered, self.holds = [], False, 0, 0

    def command(self, joint_positions, openness):
        self.commands.append((np.array(joint_positions), openness))
        if not self.blocked:
            self.positions = np.array(joint_positions)
            self.openness = self.openness if openness is None else openness

    def hold(self):
        self.holds += 1

    def tick(self, now):
        pass

    def recover(self):
        self.recovered += 1

    def close(self):
        pass


class World:
    """A controller, its arm and a clock that only this test moves."""

    def __init__(self, config=CONFIG, positions=NEUTRAL, **others):
        self.now, self.arm = 100.0, FakeArm(positions)
        self.controller = ArmController(self.arm, config, **others)
        self.ros_jump, self.step, self.episodes = 0.0, 0, 0
        self.frames, self.camera, self.efforts, self.override = True, True, np.zeros(6), None
        self.run(0.1)

    @property
    def ros_now(self):
        return self.now + ROS_OFFSET + self.ros_jump

    def run(self, duration):
        for _ in range(round(duration / PERIOD)):
            self.now += PERIOD
            if self.frames:
                positions = self.arm.positions if self.override is None else self.override
                finger = FINGER_CLOSED + self.arm.openness * (FINGER_OPEN - FINGER_CLOSED)
                self.controller.on_reading(Reading(positions, self.efforts, finger), self.now)
            if self.camera:
                self.controller.watchdog.image(self.now)
            self.controller.tick(self.now, self.ros_now)

    def announce(self, episode=None):
        """Begin an episode, of a new name where none is given."""
        self.episodes += 1
        self.controller.on_episode(episode or f'episode {self.episodes}', True, self.now)
        self.step = 0

    def send(self, dx=0.0, *, step=None, episode=None, age=0.05, frame='base', hold=False, action=None):
        """Send one command of `episode`, or of the running one, which begins here where there is none."""
        if episode is None:
            if self.controller.gate.running is None:
                self.announce()
            episode = self.controller.gate.running
        self.step = self.step + 1 if step is None else step
        action = np.array([dx, 0, 0, 0, 0, 0, 1.0]) if action is None else np.asarray(action, float)
        self.controller.on_command(Command(self.ros_now - age, frame, episode, self.step, hold, action, 'because'),
                                   self.now, self.ros_now)
        return self.controller.reason

    @property
    def shown(self):
        return self.controller.state, self.controller.reason
