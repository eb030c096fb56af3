"""openpi's websocket server (pi0, pi0.5, pi0-FAST): a black box asked K times, because it answers one at a time.

The protocol is small, and openpi's own client waits forever for a server that is not there and pins numpy < 2; so it
is spoken here directly: msgpack maps with arrays as {__ndarray__, data, dtype, shape}, a metadata map first, text
frames for errors.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from vgps_msgs_py.robot_state import TO_OPENNESS
from vgps_policy_bridge.errors import CandidatesError, PolicyError
from vgps_policy_bridge.policies.checkpoints import openness, physical_action_width
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds
from vgps_policy_bridge.proposals import merge_duplicates

MAX_FRAME = 32 * 2**20  # [bytes]
# How servers that answer with one array per part of the action name BridgeData's seven.
PARTS = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper')
NUMERIC = 'biuf'  # kinds of numpy types that may arrive: never objects


class OpenPiError(PolicyError):
    """The openpi server cannot be reached, went away, or answered with a traceback."""


def pack(value: dict) -> bytes:
    """Return openpi's frame of a map with arrays."""
    def array(item):
        if isinstance(item, np.ndarray) and item.dtype.kind in NUMERIC:
            return {b'__ndarray__': True, b'data': item.tobytes(), b'dtype': item.dtype.str, b'shape': item.shape}
        raise TypeError(f'cannot send {type(item).__name__}')
    return msgpack.packb(value, default=array)


def unpack(frame: bytes) -> dict:
    """Return the map of a frame; OpenPiError when it is malformed."""
    def array(item: dict):
        if b'__ndarray__' not in item:
            return item
        dtype = np.dtype(item[b'dtype'])
        if dtype.kind not in NUMERIC:
            raise ValueError(f'array of type {dtype}')
        return np.frombuffer(item[b'data'], dtype).reshape(item[b'shape'])
    try:
        message = msgpack.unpackb(frame, object_hook=array, strict_map_key=False)
    except Exception as error:
        raise OpenPiError(f'malformed frame: {type(error).__name__}: {error}') from error
    if not isinstance(message, dict):
        raise OpenPiError(f'expected a map, got {type(message).__name__}')
    return message


def join_actions(parts: dict, keys: tuple[str, ...]) -> np.ndarray:
    """Return (H, D) of an answer that holds one array, (H,) or (H, d), per part of the action.

    Args:
        parts: as the server sent it; names may carry a prefix (`action.x`).
        keys: which parts, in order; () where they are called x y z roll pitch yaw gripper.

    Raises CandidatesError that lists what the server sent.
    """
    arrays = {name: value for name, value in parts.items() if isinstance(value, np.ndarray)}
    found = ', '.join(f'{name} {value.shape}' for name, value in arrays.items()) or 'no arrays'
    short = {str(name).rpartition('.')[2]: value for name, value in arrays.items()} if not keys else arrays
    missing = [key for key in keys or PARTS if key not in short]
    if missing:
        raise CandidatesError(f'openpi: the server answers with the parts {found}; say which make up dx dy dz droll '
                              "dpitch dyaw openness, in that order: policy_options '{action_keys: [...]}'"
                              + (f' (there is no {", ".join(missing)})' if keys else ''))
    chosen = [short[key] for key in keys or PARTS]
    # GR00T's own server keeps a batch axis of one
    chosen = [value[0] if value.ndim == 3 and len(value) == 1 else value for value in chosen]
    chosen = [value[:, None] if value.ndim == 1 else value for value in chosen]
    if any(value.ndim != 2 for value in chosen) or len({len(value) for value in chosen}) != 1:
        raise CandidatesError(f'openpi: the parts of the action do not fit together: {found}')
    return np.concatenate(chosen, axis=1)


def resize_with_pad(image: np.ndarray, size: int) -> np.ndarray:
    """Return (size, size, 3) uint8: the aspect ratio kept, black borders, bilinear."""
    from PIL import Image
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new('RGB', (size, size))
    canvas.paste(Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR),
                 ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return np.asarray(canvas)


class OpenPiPolicy:
    """A policy behind openpi's `serve_policy.py`. K candidates are K round trips; equal chunks are merged.

    The server decides about sampling: pi0-FAST is greedy unless it was started with a temperature, and then all K
    chunks are one. Its actions must be BridgeData's: metres and radians per step, as a Bridge fine-tuning gives them.

    Args:
        url: of the server.
        image_key: name the server's configuration gives the camera.
        wrist_image_key: likewise the wrist camera's, such as observation/wrist_image; '' where it has none.
        state_key: name of the 7-D robot state; '' leaves it out.
        prompt_key: name of the instruction.
        image_size: [pixels] images are shrunk to this square with borders.
        gripper: what the last action dimension means: 'openness' (1 open), 'closedness' (1 closed), 'minus-one-open'
            (-1 open, 1 closed: LIBERO) or 'minus-one-closed'.
        action_keys: for a server that answers with one array per part of the action (as vLLM-Omni does): which, in the
            order dx dy dz [m], droll dpitch dyaw [rad], gripper. Parts called x y z roll pitch yaw gripper need none.
        api_key: sent as `Authorization: Api-Key ...`.
        timeout: [s] for one answer.
    """

    def __init__(self, url: str = 'ws://127.0.0.1:8000', image_key: str = 'observation/image',
                 state_key: str = 'observation/state', prompt_key: str = 'prompt', image_size: int = 224,
                 gripper: str = 'openness', action_keys: Sequence[str] = (), api_key: str = '', timeout: float = 60.0,
                 wrist_image_key: str = ''):
        if gripper not in TO_OPENNESS:
            raise PolicyError(f'openpi: gripper must be one of {", ".join(TO_OPENNESS)}, not {gripper!r}')
        parts = urlsplit(url)
        if parts.scheme != 'ws' or not parts.hostname:
            raise PolicyError(f'openpi: url must look like ws://127.0.0.1:8000, not {url!r}')
        self._url, self._address, self._timeout = url, (parts.hostname, parts.port or 8000), timeout
        self._keys, self._wrist_key = (image_key, state_key, prompt_key), wrist_image_key
        self._action_keys = tuple(action_keys)
        self._size, self._gripper, self._api_key = image_size, gripper, api_key
        self._stack = ExitStack()
        self._connection, self._instruction, self._seeds = None, '', StepSeeds()
        self._connect()

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode. The server draws its own random numbers: seed does not reach it."""
        self._instruction, self._seeds = instruction, StepSeeds(seed)
        if self._connection is None:
            self._connect()

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Ask k times for a chunk; fewer rows come back where the server repeats itself."""
        image_key, state_key, prompt_key = self._keys
        request = {image_key: resize_with_pad(observation.image, self._size), prompt_key: self._instruction}
        if state_key:
            request[state_key] = observation.require_state('openpi')
        if self._wrist_key:
            request[self._wrist_key] = resize_with_pad(observation.require_wrist('openpi'), self._size)
        frame, start = pack(request), time.perf_counter()
        chunks = [self._infer(frame) for _ in range(k)]
        if len({chunk.shape for chunk in chunks}) > 1:
            raise CandidatesError('openpi: the server answered with chunks of different lengths')
        actions = np.stack(chunks)
        actions[..., GRIPPER] = openness(TO_OPENNESS[self._gripper](actions[..., GRIPPER]),
                                         f'openpi with the gripper as {self._gripper}')
        stages = {f'{k} round trips': 1e3 * (time.perf_counter() - start)}
        candidates = Candidates(actions, policy=f'openpi {self._url}', seed=self._seeds.next(), stages=stages,
                                used=('image', 'instruction') + ('state',) * bool(state_key) +
                                ('wrist_image',) * bool(self._wrist_key))
        merged = merge_duplicates(candidates)
        return merged if len(merged) < k else replace(candidates, counts=None)

    def close(self) -> None:
        """Close the connection."""
        self._connection = None
        self._stack.close()

    def _connect(self) -> None:
        headers = {'Authorization': f'Api-Key {self._api_key}'} if self._api_key else None
        try:
            peer = socket.create_connection(self._address, 5.0)
            self._connection = self._stack.enter_context(
                connect(self._url, sock=peer, open_timeout=5.0, max_size=MAX_FRAME, compression=None,
                        ping_interval=None,  # a server that compiles cannot answer pings; the timeout decides
                        additional_headers=headers))
            self._receive()  # the server's metadata
        except (ConnectionClosed, InvalidHandshake, OSError) as error:
            self.close()
            raise OpenPiError(f'openpi server at {self._url}: {error}; is serve_policy.py running?') from error

    def _infer(self, frame: bytes) -> np.ndarray:
        if self._connection is None:
            raise OpenPiError(f'the connection to {self._url} was lost; the next episode connects again')
        try:
            self._connection.send(frame)
            actions = self._receive().get('actions')
        except (ConnectionClosed, OSError) as error:  # TimeoutError is an OSError
            self.close()
            raise OpenPiError(f'openpi server at {self._url}: {type(error).__name__}: {error}') from error
        if isinstance(actions, dict):
            actions = join_actions(actions, self._action_keys)
        if not isinstance(actions, np.ndarray) or actions.ndim != 2:
            raise CandidatesError(f'openpi: actions must be (H, 7), got '
                                  f'{getattr(actions, "shape", type(actions).__name__)}')
        physical_action_width('openpi', actions.shape[1])
        return actions.astype(np.float32)

    def _receive(self) -> dict:
        frame = self._connection.recv(timeout=self._timeout)
        if isinstance(frame, str):
            raise OpenPiError(f'the server raised: {frame.strip().splitlines()[-1] if frame.strip() else ""}')
        return unpack(frame)
