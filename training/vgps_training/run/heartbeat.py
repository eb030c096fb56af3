"""End a run of several processes, and name the one that hangs, instead of letting the others wait for it."""
import contextlib
import logging
import os
import socket
import threading
import time

import torch.distributed as dist

logger = logging.getLogger(__name__)


class Heartbeat:
    """Tells the other processes what this one does, and watches that the job goes on.

    Where no update has been finished for `limit` seconds, every process that still lives names those that do not
    answer, or that do something else while the others wait in the update, and ends; torchrun then ends the rest.
    """

    def __init__(self, rank: int, world: int, limit: float):
        self._rank, self._world, self._limit = rank, world, limit
        address: list = [None]
        if rank == 0:
            store = dist.TCPStore(os.environ['MASTER_ADDR'], 0, is_master=True, wait_for_workers=False)
            address = [store.port]
        dist.broadcast_object_list(address)
        self._store = store if rank == 0 else dist.TCPStore(os.environ['MASTER_ADDR'], address[0], is_master=False)
        self._beat, self._host, self._finished = 0, socket.gethostname(), time.monotonic()
        self.doing('starting')
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='heartbeat', daemon=True)
        self._thread.start()

    def doing(self, what: str) -> None:
        """Note what this process begins to do; 'update N' is where processes wait for each other."""
        self._doing, self._since = what, time.monotonic()
        self._tell()

    def _tell(self) -> None:
        self._beat += 1
        seconds = time.monotonic() - self._since
        with contextlib.suppress(RuntimeError):  # the first process has ended, and with it the job
            self._store.set(f'{self._rank}', f'{self._beat}|{self._host}|{self._doing}|{seconds:.0f}')

    def finished(self) -> None:
        """Note that an update was finished: the job goes on."""
        self._finished = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        seen: dict[int, tuple[str, float]] = {}  # rank -> its last word, when it was new
        interval = min(10.0, self._limit / 5)
        while not self._stopped.wait(interval):
            self._tell()
            try:
                for rank in range(self._world):
                    told = self._store.get(f'{rank}').decode() if self._store.check([f'{rank}']) else '0|?|starting|0'
                    if told != seen.get(rank, ('', 0.0))[0]:
                        seen[rank] = told, time.monotonic()
            except RuntimeError:
                continue
            if time.monotonic() - self._finished > self._limit:
                logger.error('no update for %.0f s: %s. The run ends; what was saved is kept', self._limit,
                             '; '.join(self._culprits(seen, interval)))
                os._exit(1)
                return

    def _culprits(self, seen: dict[int, tuple[str, float]], interval: float) -> list[str]:
        silent, elsewhere = [], []
        for rank, (told, when) in sorted(seen.items()):
            _, host, doing, seconds = told.split('|')
            if time.monotonic() - when > 3 * interval:
                silent.append(f'process {rank} on {host} does not answer, its last report was "{doing}"')
            elif not doing.startswith('update'):
                elsewhere.append(f'process {rank} on {host} has been {doing} for {seconds} s')
        return silent or elsewhere or ['every process waits in the update: look at the network between them']
