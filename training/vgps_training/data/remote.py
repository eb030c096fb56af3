"""Files of a store that fsspec knows (s3://, gs:// ...): fetched whole, or refused by name within a bounded time."""
import os
import threading
import time
from pathlib import Path

PATIENCE = 60.0  # s without a byte, after which a store is given up; its own library tries again within that


class StoreError(OSError):
    """A file cannot be had from its store; the text says which and why."""

    def __init__(self, text: str):
        # raised again by the DataLoader, a worker's text has its traceback before it
        super().__init__(text.strip().splitlines()[-1].rpartition('StoreError: ')[2])


def fetch(url: str, path: Path, size: int) -> None:
    """Copy a file of `size` bytes to `path`, where it appears when it is complete.

    Raises StoreError where it cannot be read, has another size, or no byte has come for PATIENCE seconds.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.{time.monotonic_ns()}')
    copying = _Copying(url, temporary)
    copying.start()
    copied, since = 0, time.monotonic()
    try:
        while copying.is_alive():
            copying.join(0.1)
            if (now := _size(temporary)) != copied:
                copied, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise StoreError(f'{url} cannot be fetched: the store has sent nothing for {PATIENCE:.0f} s')
        if copying.error is not None:
            kind = type(copying.error).__name__
            raise StoreError(f'{url} cannot be fetched ({kind}: {" ".join(str(copying.error).split())})')
        if (copied := _size(temporary)) != size:
            raise StoreError(f'{url} has {copied} bytes and must have {size}: upload it again')
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Copying(threading.Thread):
    """A store's library may wait for half an hour, and nothing can interrupt it: so it waits in a thread of its own."""

    def __init__(self, url: str, path: Path):
        super().__init__(daemon=True)
        self.url, self.path, self.error = url, path, None

    def run(self) -> None:
        import fsspec
        try:
            # made anew: keys are renewed, and a thread's is kept for good
            store, name = fsspec.core.url_to_fs(self.url, skip_instance_cache=True)
            store.get_file(name, str(self.path))
        except Exception as error:  # every store has errors of its own
            self.error = error
