"""Processes of nodes: told to stop at any moment, or left by whoever started them, they end quickly and quietly."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

COMMAND = 'from vgps_msgs_py import start; start.node("started")()'
# not one long sleep: Python does not notice a signal that comes in the moment before such a call
BUSY = """
import time
print('here', flush=True)
while True:
    time.sleep(0.1)
"""


def do_not_ignore_a_closed_terminal():
    """Undo in a new process what `nohup make test` hands down to it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def begin(tmp_path, code, command=COMMAND, **environment):
    """Start a process that runs a module of this code, and return it once the module said that it is there."""
    (tmp_path / 'started.py').write_text(textwrap.dedent(code))
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    process = subprocess.Popen([sys.executable, '-c', command], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': path, **environment},
                               preexec_fn=do_not_ignore_a_closed_terminal)
    assert process.stdout.readline() == 'here\n', process.stderr.read()
    return process


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_imports_ends_it_without_a_traceback(tmp_path, number):
    process = begin(tmp_path, BUSY)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert process.stderr.read() == ''


def test_a_terminal_that_is_closed_does_not_end_what_nohup_started(tmp_path):
    nohup = f'import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {COMMAND}'
    process = begin(tmp_path, BUSY, nohup)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.ros
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_model_loads_ends_it_in_one_line(tmp_path, number):
    pytest.importorskip('rclpy')
    process = begin(tmp_path, '''
        import time
        from vgps_msgs_py import node_main

        def load():
            print('here', flush=True)
            while True:
                time.sleep(0.1)

        def main():
            node_main.run(load)
    ''')
    process.send_signal(number)
    assert process.wait(60) == 130
    assert process.stderr.read() == 'stopped while starting\n'


@pytest.mark.parametrize('code, expected, words', [
    ('', 0, ''), ("import sys; sys.exit('no camera')", 1, 'no camera\n'), ('import sys; sys.exit(2)', 2, '')])
def test_the_exit_code_is_main_s(tmp_path, code, expected, words):
    process = begin(tmp_path, f"print('here', flush=True)\ndef main():\n    pass; {code}")
    assert process.wait(60) == expected
    assert process.stderr.read() == words


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason="the kernel's word on a parent's end is Linux'")
def test_a_node_ends_with_its_launcher_however_that_ends(tmp_path):
    launcher = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, '-c', {COMMAND!r}], env={{**os.environ, 'VGPS_LAUNCHED_BY': str(os.getpid())}})
time.sleep(600)
"""
    process = begin(tmp_path, BUSY, command=launcher)
    process.kill()
    # both hold the other end of the pipe: it is read to its end when both have gone
    assert process.communicate(timeout=60) == ('', '')
