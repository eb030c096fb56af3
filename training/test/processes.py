"""Processes that train, started from one that has imported torch already: half a minute less for each."""
import multiprocessing
import os
import socket
import time
from multiprocessing import connection
from pathlib import Path

from vgps_training.run.loop import Run

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['vgps_training.run.loop', 'pytest'])


def train(config):
    Run(config, quiet=True).train()


def start(function, *arguments):
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def member(rank, world, port, folder, function, *arguments):
    """Be one process of several, with the environment that torchrun gives it, and write what it says to a file."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=str(port), OMP_NUM_THREADS='1')
    with (folder / f'process-{rank}.txt').open('w') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    function(*arguments)


def together(folder: Path, function, *arguments, world=2, timeout=240.0):
    """Run a function in `world` processes, which end together as torchrun ends them; return (exit codes, texts)."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    members = [start(member, rank, world, port, folder, function, *arguments) for rank in range(world)]
    deadline = time.monotonic() + timeout
    try:
        while any(m.exitcode is None for m in members) and not any(m.exitcode for m in members):
            left = [m.sentinel for m in members if m.exitcode is None]
            assert connection.wait(left, max(0.0, deadline - time.monotonic())), 'they did not end in time'
        codes = [m.exitcode for m in members]
    finally:
        for m in members:
            m.kill()
            m.join()
    return codes, [(folder / f'process-{rank}.txt').read_text() for rank in range(world)]
