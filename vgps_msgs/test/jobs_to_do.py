"""Jobs for the tests of `jobs`: a module of its own, because worker processes import it by its name."""
import os
import signal
import time
from pathlib import Path


def square(number):
    return number * number


def trial(arguments):
    """Return what a trial returns; the process is killed where a file asks for it, once per file."""
    number, folder = arguments
    time.sleep(0.002)
    order = Path(folder) / f'kill_{number}'
    if order.exists():
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return {'trial': number, 'success': number % 3 == 0}


def deadly(number):
    os.kill(os.getpid(), signal.SIGKILL)


def wrong(number):
    raise ValueError(f'trial {number} cannot be played')
