"""LeRobot's asynchronous inference server (gRPC), on this machine only.

SECURITY: both ends of that protocol unpickle what they receive and nothing is authenticated or encrypted
(CVE-2026-25874): whoever reaches the port runs code here. Hence the loopback address and nothing else. Prefer
vgps-policy-server with the policy `lerobot` behind it: the same models, no pickle.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import replace

import numpy as np

from vgps_policy_bridge.errors import CandidatesError, MissingExtraError, PolicyError
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds
from vgps_policy_bridge.proposals import merge_duplicates
from vgps_policy_bridge.server.server import is_loopback

STATE_NAMES = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'openness')


class LeRobotAsyncPolicy:
    """A policy behind `python -m lerobot.async_inference.policy_server`. K candidates are K round trips.

    Args:
        policy_type: LeRobot's name of the architecture: smolvla, pi0, pi05, diffusion, act ...
        checkpoint: hub id or folder, loaded by the server.
        address: host:port of the server; loopback only.
        camera: name of the camera in the policy's features (observation.images.<camera>).
        actions_per_chunk: H.
        device: torch device on the server.
        timeout: [s] for one answer.
        load_timeout: [s] for the server to load the policy.
    """

    def __init__(self, policy_type: str, checkpoint: str, address: str = '127.0.0.1:8080', camera: str = 'image_0',
                 actions_per_chunk: int = 4, device: str = 'cuda', timeout: float = 60.0, load_timeout: float = 600.0):
        host = address.rpartition(':')[0].strip('[]')
        if not is_loopback(host):
            raise PolicyError(f'lerobot-async: {address} is not on this machine. The protocol unpickles what it '
                              'receives (CVE-2026-25874); use an SSH tunnel to the loopback, or vgps-policy-server')
        try:
            import grpc
            from lerobot.async_inference.helpers import RemotePolicyConfig, TimedObservation
            from lerobot.transport import services_pb2, services_pb2_grpc
            from lerobot.transport.utils import grpc_channel_options, send_bytes_in_chunks
        except ImportError as error:
            raise MissingExtraError('lerobot-async', 'lerobot', error) from error
        self._messages, self._observation, self._chunks = services_pb2, TimedObservation, send_bytes_in_chunks
        self._error, self._timeout, self._camera = grpc.RpcError, timeout, camera
        self._identity = f'lerobot-async {policy_type} {checkpoint}'
        self._channel = grpc.insecure_channel(address, grpc_channel_options())
        self._stub = services_pb2_grpc.AsyncInferenceStub(self._channel)
        features = {
            'observation.state': {'dtype': 'float32', 'shape': (7,), 'names': list(STATE_NAMES)},
            f'observation.images.{camera}': {'dtype': 'image', 'shape': (480, 640, 3),
                                             'names': ['height', 'width', 'channels']}}
        config = RemotePolicyConfig(policy_type, checkpoint, features, actions_per_chunk, device)
        try:
            self._stub.Ready(services_pb2.Empty(), timeout=timeout)
            self._stub.SendPolicyInstructions(services_pb2.PolicySetup(data=pickle.dumps(config)),
                                              timeout=load_timeout)
        except grpc.RpcError as error:
            raise PolicyError(f'lerobot-async: server at {address}: {error.code().name}') from error
        self._timestep, self._instruction, self._seeds = 0, '', StepSeeds()

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode. The server draws its own random numbers: seed does not reach it."""
        self._instruction, self._seeds = instruction, StepSeeds(seed)

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Ask k times for a chunk; fewer rows come back where the policy is deterministic."""
        start = time.perf_counter()
        state = observation.require_state('lerobot-async')
        raw = {name: float(value) for name, value in zip(STATE_NAMES, state)}
        raw |= {self._camera: observation.image, 'task': self._instruction}
        try:
            actions = np.stack([self._ask(raw) for _ in range(k)])
        except self._error as error:
            raise PolicyError(f'lerobot-async: {error.code().name}') from error
        actions[..., GRIPPER] = np.clip(actions[..., GRIPPER], 0.0, 1.0)
        candidates = Candidates(actions, policy=self._identity, seed=self._seeds.next(),
                                used=('image', 'instruction', 'state'),
                                stages={f'{k} round trips': 1e3 * (time.perf_counter() - start)})
        merged = merge_duplicates(candidates)
        return merged if len(merged) < k else replace(candidates, counts=None)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _ask(self, raw: dict) -> np.ndarray:
        # The server drops observations of a time step it has seen and those too similar to the last.
        self._timestep += 1
        timed = self._observation(timestamp=time.time(), timestep=self._timestep, observation=raw, must_go=True)
        self._stub.SendObservations(self._chunks(pickle.dumps(timed), self._messages.Observation, silent=True),
                                    timeout=self._timeout)
        answer = self._stub.GetActions(self._messages.Empty(), timeout=self._timeout).data
        if not answer:
            raise PolicyError('lerobot-async: the server gave no actions; its log says why')
        chunk = np.stack([np.asarray(timed.get_action(), np.float32) for timed in pickle.loads(answer)])
        if chunk.ndim != 2 or chunk.shape[1] < 7:
            raise CandidatesError(f'lerobot-async: actions must be (H, 7 or more), got {chunk.shape}')
        return chunk[:, :7].copy()
