"""Frames of the policy server: msgpack maps; arrays as [dtype, shape, bytes] in an extension type. No pickle.

    hello                                          -> hello {has_temperature}
    reset {instruction, seed}                      -> ok
    propose {k, temperature, stamp, image, state?, wrist_image?, committed?} -> candidates {...}
    anything that goes wrong                       -> error {name, message}

Every request carries its `type` and the protocol's `version`.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from vgps_policy_bridge.errors import PolicyError
from vgps_policy_bridge.policy import MAX_CANDIDATES, Candidates, Observation

VERSION = 1
MAX_FRAME = 32 * 2**20  # [bytes] of a request or an answer: a 4K image is 25 MB
ARRAY = 1  # msgpack extension type
DTYPES = ('uint8', 'uint32', 'float32')
MAX_INSTRUCTION = 10_000  # characters


class MalformedFrameError(PolicyError):
    """A frame is not what the protocol says."""


def encode(message: dict[str, Any]) -> bytes:
    """Return the frame of a message; arrays of the DTYPES may stand anywhere in it."""
    return msgpack.packb(message, default=_pack_array, use_bin_type=True)


def decode(frame: bytes | str) -> dict[str, Any]:
    """Return the message of a frame, or raise MalformedFrameError saying what is wrong."""
    if isinstance(frame, str):
        raise MalformedFrameError('text frame: the protocol uses binary frames')
    try:
        message = msgpack.unpackb(frame, ext_hook=_unpack_array, raw=False, strict_map_key=True)
    except MalformedFrameError:
        raise
    except Exception as error:  # msgpack raises a dozen kinds; none may end the connection
        raise MalformedFrameError(f'not msgpack: {type(error).__name__}: {error}') from error
    if not isinstance(message, dict) or not isinstance(message.get('type'), str):
        raise MalformedFrameError('a frame must be a map with a text under "type"')
    if message.get('version') != VERSION:
        raise MalformedFrameError(f'protocol version {message.get("version")!r}, this side speaks {VERSION}')
    return message


def _pack_array(value: Any):
    if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
        return msgpack.ExtType(ARRAY, msgpack.packb([value.dtype.name, list(value.shape), value.tobytes()]))
    raise TypeError(f'cannot send {type(value).__name__}')


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != ARRAY:
        raise MalformedFrameError(f'unknown extension type {code}')
    try:
        name, shape, content = msgpack.unpackb(data, raw=False)
        if name not in DTYPES or len(shape) > 4 or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f'dtype {name!r}, shape {shape!r}')
        # Python integers: a product that overflowed would let a wrong size pass.
        size = np.dtype(name).itemsize
        for n in shape:
            size *= n
        if size != len(content):
            raise ValueError(f'{name} {shape} needs {size} bytes, got {len(content)}')
        return np.frombuffer(bytearray(content), name).reshape(shape)  # writable, as in process
    except Exception as error:
        raise MalformedFrameError(f'bad array: {error}') from error


def field(message: dict, name: str, kinds: type | tuple[type, ...]) -> Any:
    """Return a field of the right type, or raise MalformedFrameError."""
    value = message.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise MalformedFrameError(f'{message["type"]}: {name} must be {kinds}, got {type(value).__name__}')
    return value


def read_reset(message: dict) -> tuple[str, int]:
    """Return instruction and seed of a reset request."""
    instruction, seed = field(message, 'instruction', str), field(message, 'seed', int)
    if len(instruction) > MAX_INSTRUCTION or not 0 <= seed < 2**64:
        raise MalformedFrameError(f'reset: instruction of at most {MAX_INSTRUCTION} characters, seed within uint64')
    return instruction, seed


def read_propose(message: dict) -> tuple[Observation, int, float, int | None]:
    """Return a propose request's observation, k, temperature and which candidate before it went to the robot.

    ObservationError for arrays that do not fit.
    """
    k = field(message, 'k', int)
    if not 1 <= k <= MAX_CANDIDATES:
        raise MalformedFrameError(f'propose: k must be 1 .. {MAX_CANDIDATES}, got {k}')
    observation = Observation(message.get('image'), float(field(message, 'stamp', (int, float))),
                              message.get('state'), message.get('wrist_image'))
    committed = None if message.get('committed') is None else field(message, 'committed', int)
    return observation, k, float(field(message, 'temperature', (int, float))), committed


def write_candidates(candidates: Candidates) -> dict[str, Any]:
    """Return the message of an answer."""
    return {'type': 'candidates', 'version': VERSION, 'actions': candidates.actions, 'policy': candidates.policy,
            'log_probabilities': candidates.log_probabilities, 'counts': candidates.counts,
            'temperature': float(candidates.temperature), 'seed': int(candidates.seed),
            'stages': {name: float(ms) for name, ms in candidates.stages.items()}, 'used': list(candidates.used),
            'statistics': candidates.statistics, 'closing': candidates.closing, 'finished': candidates.finished}


def read_candidates(message: dict) -> Candidates:
    """Return the checked candidates of an answer; CandidatesError when they break the contract."""
    stages = field(message, 'stages', dict)
    statistics = message.get('statistics', '')  # a server of an older version says neither this nor the last two
    if not isinstance(statistics, str):
        raise MalformedFrameError(f'candidates: statistics must be a text, got {type(statistics).__name__}')
    return Candidates(message.get('actions'), field(message, 'policy', str), message.get('log_probabilities'),
                      message.get('counts'), float(field(message, 'temperature', (int, float))),
                      field(message, 'seed', int), {str(name): float(ms) for name, ms in stages.items()},
                      tuple(field(message, 'used', list)), statistics, message.get('closing'),
                      message.get('finished') is True)


def error_message(error: BaseException) -> dict[str, Any]:
    """Return the answer for an error: its name and words; anything but a PolicyError came from the policy itself."""
    if isinstance(error, PolicyError):
        return {'type': 'error', 'version': VERSION, 'name': type(error).__name__, 'message': str(error)}
    return {'type': 'error', 'version': VERSION, 'name': 'PolicyFailedError',
            'message': f'the policy raised {type(error).__name__}: {error}'}
