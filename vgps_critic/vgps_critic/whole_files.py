"""Write files and folders so that, whatever is killed and when, they are complete or as they were before."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def sync(path: Path) -> None:
    """Have a file or folder on the disk, not on its way there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Give a name beside `path` to write a file to; it becomes `path` at the end, and is removed where that fails."""
    path = Path(path)
    temporary = path.with_name(f'.{path.stem}.tmp{path.suffix}')
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
