"""A packed set in a real object store (moto's S3 server): right, or refused by name within a bounded time."""
import dataclasses
import gc
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from synthetic import config, make

from vgps_training.data import pack, packed, remote
from vgps_training.data.encoded import open_file
from vgps_training.data.remote import StoreError
from vgps_training.data.table import read_table
from vgps_training.run.loop import Run
from vgps_training.run.storage import load_state

pytest.importorskip('moto.server', reason='NOT CHECKED: moto is not installed (pip install "moto[server]" s3fs)')
s3fs = pytest.importorskip('s3fs', reason='NOT CHECKED: s3fs is not installed (pip install "moto[server]" s3fs)')
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SIZE = 64
BUCKET = 'bucket/set'
MINUTE = 60.0  # s; every refusal comes well before: the store's library tries again a few times


class Server:
    """A process that serves S3 on a port of its own; what it holds is lost with it."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        self.url = f'http://127.0.0.1:{self.port}'

    def start(self, folder):
        self.process = subprocess.Popen([sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(self.port)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < deadline and self.process.poll() is None, 'the server does not start'
            time.sleep(0.1)
        store = self.store()
        store.mkdir('bucket')
        for path in folder.glob('*.mds'):
            store.put_file(str(path), f'{BUCKET}/{path.name}')

    def _answers(self):
        try:
            urllib.request.urlopen(self.url, timeout=5).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def store(self):
        return s3fs.S3FileSystem(skip_instance_cache=True)

    def ask_for_credentials(self):
        """Check every request from now on; nobody is known."""
        urllib.request.urlopen(urllib.request.Request(f'{self.url}/moto-api/reset-auth', b'0', {
            'Content-Type': 'text/plain'}), timeout=30).close()

    def kill(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A packed set that has its shards, and the folder of one that has to fetch them; SERVER serves them."""
    monkeypatch.setattr(packed, 'SHARD_BYTES', 12 * 3 * SIZE * SIZE)  # a dozen frames
    server = Server()
    for name, value in {'AWS_ACCESS_KEY_ID': 'testing', 'AWS_SECRET_ACCESS_KEY': 'testing',
                        'AWS_DEFAULT_REGION': 'us-east-1', 'AWS_ENDPOINT_URL': server.url}.items():
        monkeypatch.setenv(name, value)
    whole, empty = tmp_path / 'whole', tmp_path / 'empty'
    pack.pack(pack.PackConfig((make(tmp_path),), whole, SIZE, remote=f's3://{BUCKET}'))
    shutil.copytree(whole, empty, ignore=shutil.ignore_patterns('*.mds'))
    open_file.cache_clear()
    server.start(whole)
    yield whole, empty, server
    server.kill()
    open_file.cache_clear()


def read(folder):
    return read_table([folder], SIZE, progress=False)[0]


def forget(folder):
    """Remove the shards that were fetched, as if others were needed now."""
    open_file.cache_clear()
    for path in folder.glob('*.mds'):
        path.unlink()


def refused(folder, words, within=MINUTE):
    """Read a frame of the first shard, which must be refused in these words, and leave nothing behind."""
    began = time.monotonic()
    with pytest.raises(StoreError, match=words) as error:
        read(folder).frames[0]
    assert time.monotonic() - began < within and 'shard.00000.mds' in str(error.value)
    assert not {path.name for path in folder.iterdir()} - {path.name for path in folder.glob('*.json')} - {
        path.name for path in folder.glob('*.npy')}


@pytest.mark.parametrize('decoders', [0, 2])
def test_training_from_a_store_is_training_from_the_folder_and_ends_by_name_when_the_store_does(
        tmp_path, folders, decoders):
    whole, empty, server = folders
    settings = config(tmp_path, steps=20, save_every=5)
    data = dataclasses.replace(settings.data, decoders=decoders)
    here, there = (dataclasses.replace(settings, out=tmp_path / f'run-{folder.name}',
                                       data=dataclasses.replace(data, paths=(folder,))) for folder in (whole, empty))
    Run(here, quiet=True).train()
    Run(there, quiet=True).train(stop_after=10)
    assert {path.name for path in empty.glob('*.mds')} <= {path.name for path in whole.glob('*.mds')}
    forget(empty)
    server.kill()
    began = time.monotonic()
    with pytest.raises(StoreError, match=rf's3://{BUCKET}/shard.0000\d.mds cannot be fetched') as error:
        Run(there, quiet=True).train()
    assert time.monotonic() - began < 2 * MINUTE and '\n' not in str(error.value)
    del error
    gc.collect()  # of the run that failed: its worker processes hold the folder's lock
    assert load_state(there.out)['step'] == 10
    server.start(whole)
    Run(there, quiet=True).train()
    for a, b in zip(load_state(here.out)['networks'].values(), load_state(there.out)['networks'].values()):
        assert torch.equal(a, b)


def test_a_shard_that_is_missing_or_cut_short_in_the_store_is_named(folders):
    whole, empty, server = folders
    store, name = server.store(), f'{BUCKET}/shard.00000.mds'
    data = (whole / 'shard.00000.mds').read_bytes()
    store.pipe_file(name, data[:-20000])
    refused(empty, f'has {len(data) - 20000} bytes and must have {len(data)}: upload it again')
    store.rm_file(name)
    refused(empty, 'cannot be fetched .FileNotFoundError')
    store.pipe_file(name, data)
    assert np.array_equal(read(empty).frames[0], read(whole).frames[0])


def test_a_store_that_does_not_know_us_is_named(folders):
    _, empty, server = folders
    server.ask_for_credentials()
    refused(empty, 'cannot be fetched .PermissionError')


def test_a_store_that_hangs_is_given_up(folders, monkeypatch):
    _, empty, server = folders
    monkeypatch.setattr(remote, 'PATIENCE', 2.0)
    server.process.send_signal(signal.SIGSTOP)
    refused(empty, 'has sent nothing for 2 s')
