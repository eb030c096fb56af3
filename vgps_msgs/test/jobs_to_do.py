"""Jobs for the tests of `jobs`: a module of its own, because worker processes import it by its name."""
import os
import signal
import time
from pathlib import Path

from vgps_msgs_py import jobs


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


def process_of(number):
    return os.getpid()


def deadly(number):
    os.kill(os.getpid(), signal.SIGKILL)


def wrong(number):
    raise ValueError(f'trial {number} cannot be played')


def waiting(folder):
    """Run a command that would go on for long, having said which process it is."""
    jobs.command(['sh', '-c', f'echo $$ > {folder}/began; exec sleep 600'], Path(folder) / 'log')


def waiting_or_not(folder):
    """Wait for long, or not at all where there is no folder."""
    if folder:
        waiting(folder)


class _EndsItsProcess:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return str, ()


def asked_to_end_behind_it(order):
    """Return what asks the process to end when the pool sends it, the first time."""
    if order.exists():
        return 'done'
    order.touch()
    return _EndsItsProcess()


def cleaning_up_when_asked_twice(folder):
    """Be asked to end, and again while cleaning up; done again, return."""
    if (folder / 'asked').exists():
        return 'done'
    (folder / 'asked').touch()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        (folder / 'clean').touch()
