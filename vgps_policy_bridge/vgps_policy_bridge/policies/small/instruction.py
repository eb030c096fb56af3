"""Instructions as MUSE embeddings, the language input of the small policies and of actors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vgps_msgs_py.embeddings import muse
from vgps_policy_bridge.errors import MissingExtraError


@lru_cache(maxsize=256)
def embed(instruction: str, policy: str = 'flow/binned') -> np.ndarray:
    """Return the (512,) float32 embedding of an instruction; one that is not kept on disk loads the encoder, 1.6 s."""
    try:
        embedding = muse(instruction).reshape(512)
    except ImportError as error:
        raise MissingExtraError(policy, 'small', error) from error
    embedding.setflags(write=False)
    return embedding
