"""Policy and critic behind one socket that speaks openpi's protocol: for other evaluation suites.

A client sends `{observation/image, prompt, observation/state?}` and gets `{actions (H, 7), server_timing, steering}`:
the chunk that the critic chose among K proposals. Units are BridgeData's, as everywhere here: metres and radians per
step, gripper openness 0..1 (1 open). The protocol knows no episodes: one begins with a connection, with another prompt,
or with another value under `episode`, where the client sends one.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from vgps_critic.steering import Steerer, step_seed
from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policies.openpi import MAX_FRAME, pack, unpack
from vgps_policy_bridge.policy import Observation, Policy, check_candidates, check_widowx

LOG = logging.getLogger('vgps-serve')


@dataclass(frozen=True)
class ServedPolicy:
    """What is asked for every frame, and how clients name things."""

    policy: Policy
    steerer: Steerer
    k: int  # proposals per frame
    image_key: str = 'observation/image'  # (H, W, 3) or (3, H, W) uint8 RGB
    state_key: str = 'observation/state'  # (7,), where the policy looks at it: x y z roll pitch yaw openness
    prompt_key: str = 'prompt'
    seed: int = 0  # of the first episode; each later one counts up


class Conversation:
    """One client's episodes, one after the other. Not for two threads."""

    def __init__(self, served: ServedPolicy):
        self._served, self._episode, self._step, self._seed = served, None, 0, served.seed - 1
        self._openness = 1.0

    def answer(self, request: dict) -> dict:
        """Return the answer to one observation.

        Raises:
            PolicyError: the request lacks something, or the policy cannot use it; the text is for the client.

        """
        s, began = self._served, time.perf_counter()
        image, instruction = self._image(request), request.get(s.prompt_key)
        if not isinstance(instruction, str) or not instruction.strip():
            raise PolicyError(f'no instruction under {s.prompt_key!r}; the request holds {_contents(request)}')
        episode = instruction, request.get('episode')
        if episode != self._episode:
            self._episode, self._step, self._seed = episode, 0, self._seed + 1
            s.policy.reset(instruction, self._seed)
            s.steerer.reset()
        candidates = check_widowx(check_candidates(
            s.policy.propose(Observation(image, time.time(), request.get(s.state_key)), s.k), s.k))
        proposed = time.perf_counter()
        encoded = s.steerer.encode(image, instruction)
        decision = s.steerer.decide(encoded, candidates.actions, seed=step_seed(self._seed, self._step))
        getattr(s.policy, 'committed', lambda _: None)(decision.chosen)
        self._step += 1
        # a hold moves nothing and leaves the gripper as it is
        chunk = candidates.actions[decision.chosen] if decision.chosen >= 0 else np.array(
            [[0, 0, 0, 0, 0, 0, self._openness]], np.float32)
        self._openness = float(chunk[0, 6])
        ended = time.perf_counter()
        return {
            'actions': np.ascontiguousarray(chunk),
            'server_timing': {'infer_ms': 1e3 * (ended - began), 'policy_ms': 1e3 * (proposed - began),
                              'critic_ms': 1e3 * (ended - proposed)},
            'steering': {'reason': decision.reason.name, 'chosen': int(decision.chosen), 'candidates': len(candidates),
                         'value': float(decision.value) if math.isfinite(decision.value) else None,
                         'values': np.ascontiguousarray(decision.q_values, np.float32), 'beta': float(decision.beta),
                         'seed': self._seed, 'step': self._step - 1}}

    def _image(self, request: dict) -> np.ndarray:
        key = self._served.image_key
        image = request.get(key)
        if not isinstance(image, np.ndarray):
            raise PolicyError(f'no image under {key!r}; the request holds {_contents(request)}')
        if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
            image = np.moveaxis(image, 0, 2)
        if image.dtype != np.uint8:
            raise PolicyError(f'{key} is {image.dtype}; uint8 RGB, 0 .. 255, is needed')
        return np.ascontiguousarray(image)


def _contents(request: dict) -> str:
    return ', '.join(f'{key} {value.dtype} {value.shape}' if isinstance(value, np.ndarray) else f'{key}'
                     for key, value in request.items()) or 'nothing'


def listen(served: ServedPolicy, host: str = '127.0.0.1', port: int = 8000,
           say: Callable[[str], None] = LOG.info) -> Server:
    """Open the port (0 takes a free one) and return the server; run serve_forever() of it.

    One client at a time: a policy has one memory. A second one is told so and closed.
    """
    seat = threading.Lock()

    def handle(connection: ServerConnection) -> None:
        if not seat.acquire(blocking=False):
            connection.close(1013, 'another client is connected')
            return
        try:
            talk(connection)
        except ConnectionClosed:
            pass
        finally:
            seat.release()

    def talk(connection: ServerConnection) -> None:
        connection.send(pack({'server': 'vgps-serve', 'k': served.k, 'beta': served.steerer.config.beta,
                              'critic_hash': getattr(served.steerer.critic, 'hash', ''),
                              'action': 'dx dy dz [m], droll dpitch dyaw [rad] per step, gripper openness (1 open)'}))
        conversation = Conversation(served)
        for frame in connection:
            try:
                connection.send(pack(conversation.answer(unpack(frame))))
            except PolicyError as error:
                say(f'refused: {error}')
                connection.send(f'{type(error).__name__}: {error}')  # a text frame is openpi's way to say an error

    def health(connection: ServerConnection, request):
        return connection.respond(HTTPStatus.OK, 'OK\n') if request.path == '/healthz' else None

    # no Origin: a web page in the operator's browser must not reach a server on the loopback
    return serve(handle, host, port, max_size=MAX_FRAME, compression=None, process_request=health, origins=[None],
                 ping_timeout=120)
