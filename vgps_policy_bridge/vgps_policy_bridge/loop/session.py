"""A loaded policy and how it is asked. `load` and `propose` run in the policy's own thread."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from vgps_msgs_py import images, stamps
from vgps_policy_bridge.errors import ObservationError, PolicyError
from vgps_policy_bridge.loop.policy_config import PolicyNodeConfig
from vgps_policy_bridge.policy import Candidates, Observation, check_candidates, check_widowx
from vgps_policy_bridge.proposals import build_policy

WRIST_APART = 0.2  # [s] a control step: a wrist picture further from the frame shows another moment
STILL, MOVED = 3, 0.005  # times that the gripper moved so far [m] under one and the same picture: its camera hangs
WARM_UP_INSTRUCTION = 'put the object on the plate'
WARM_UP_STATE = (0.3, 0.0, 0.15, 0.0, 0.0, 0.0, 1.0)  # BridgeData's start pose, gripper open


class PolicySession:
    """Loads a policy, warms it up and asks it; times every request."""

    def __init__(self, config: PolicyNodeConfig):
        self._config = config
        self._policy = None
        # To be told to the policy by the next request, in its own thread.
        self._episode: tuple[str, int] | None = None
        self._committed: int | None = None
        self._still: tuple[np.ndarray, np.ndarray, int] | None = None  # picture, gripper's place, moves since it came
        self.identity = ''  # of the policy, as in Candidates.policy
        self.busy = False  # within a request
        self.stages: dict[str, float] = {}  # [ms] of the last request

    def load(self) -> float:
        """Build the policy and ask it twice with the deployment's K, so that nothing compiles while the robot waits.

        Returns [ms] of the second request. Raises PolicyError, too where nobody would look at a wrist camera.
        """
        self._policy = build_policy(self._config.policy, self._config.options(), self._config.tools())
        picture, wrist = np.full((480, 640, 3), 128, np.uint8), self._config.wrist_topic
        grey = Observation(picture, 0.0, np.array(WARM_UP_STATE, np.float32), picture if wrist else None)
        self.begin(WARM_UP_INSTRUCTION, 0)
        for _ in range(2):
            candidates = self.ask(grey, self._config.num_candidates, self._config.temperature)
        self.identity = candidates.policy
        if wrist and 'wrist_image' not in candidates.used:
            raise PolicyError(f'it does not use a wrist camera: leave out wrist_topic ({wrist}), or enable one in '
                              'policy_options')
        return self.stages['total']

    def begin(self, instruction: str, seed: int) -> None:
        """Begin an episode: the next request resets the policy first, so that a failing reset fails that request."""
        self._episode, self._committed, self._still = (instruction, seed), None, None

    def committed(self, index: int) -> None:
        """Take note of the candidate that went to the robot; a policy that wants to know hears of it when asked."""
        self._committed = index

    def propose(self, frame, wrist, state: np.ndarray | None, k: int, temperature: float,
                age: float = math.nan) -> Candidates:
        """Ask for k candidates for a frame.

        Args:
            frame: sensor_msgs/Image or CompressedImage; converted here, off the executor's thread.
            wrist: the wrist camera's newest, likewise; None where none came.
            state: (7,) or None, see Observation.
            k: number of candidates.
            temperature: of the sampling, for a policy that has one.
            age: of the frame [ms], what the camera and the way from it took; NaN where nobody measured.

        Returns:
            Checked candidates with the stages 'frame_age', 'convert' and 'total' added. Raises ImageError and
            PolicyError, an ObservationError where the wrist's picture is of another moment.
        """
        self.busy = True
        try:
            start = time.perf_counter()
            # an episode does not begin with a covered lens; later on the gripper may well fill the picture
            image = (images.to_array if self._episode is None else images.first_picture)(frame)
            if self._config.require_live_camera and state is not None:
                self._look_for_life(image, state[:3])
            observation = Observation(image, stamps.seconds(frame.header.stamp), state, self._beside(frame, wrist))
            converted = time.perf_counter()
            candidates = self.ask(observation, k, temperature)
            ended = time.perf_counter()
        finally:
            self.busy = False
        stages = {'frame_age': age, 'convert': 1e3 * (converted - start), **candidates.stages,
                  'total': 1e3 * (ended - start)}
        self.stages = {name: ms for name, ms in stages.items() if not math.isnan(ms)}
        return replace(candidates, stages=self.stages)

    def _look_for_life(self, image: np.ndarray, place: np.ndarray) -> None:
        """Raise ObservationError where one picture comes again and again, under new stamps, while the gripper moves.

        No two pictures of a real camera are equal to the bit; a simulated one's are where it does not see the arm.
        """
        if self._still is None or not np.array_equal(image, self._still[0]):
            self._still = image, place, 0
        elif np.linalg.norm(place - self._still[1]) > MOVED:
            self._still = image, place, self._still[2] + 1
        if self._still[2] >= STILL:
            raise ObservationError(f'the camera repeats one image under new stamps although the gripper moved '
                                   f'{STILL} times since: its driver hangs, start it again')

    def _beside(self, frame, wrist) -> np.ndarray | None:
        """Return the wrist camera's picture of a frame's moment, None without such a camera."""
        topic = self._config.wrist_topic
        if not topic:
            return None
        if wrist is None:
            raise ObservationError(f'no image has come from the wrist camera ({topic})')
        apart = stamps.seconds(wrist.header.stamp) - stamps.seconds(frame.header.stamp)
        if abs(apart) > WRIST_APART:
            raise ObservationError(f"the wrist camera's newest image ({topic}) is {abs(apart):.2f} s "
                                   f'{"younger" if apart > 0 else "older"} than the frame')
        return images.to_array(wrist)

    def ask(self, observation: Observation, k: int, temperature: float) -> Candidates:
        """Return k checked candidates for an observation. Raises PolicyError."""
        start = time.perf_counter()
        if hasattr(self._policy, 'temperature'):
            self._policy.temperature = temperature
        if self._episode is not None:
            self._policy.reset(*self._episode)
            self._episode = None
        if self._committed is not None and hasattr(self._policy, 'committed'):
            self._policy.committed(self._committed)
        self._committed = None
        candidates = check_widowx(check_candidates(self._policy.propose(observation, k), k))
        self.stages = candidates.stages | {'total': 1e3 * (time.perf_counter() - start)}
        return replace(candidates, stages=self.stages)

    def close(self) -> None:
        """Release the model or the connection."""
        if hasattr(self._policy, 'close'):
            self._policy.close()
