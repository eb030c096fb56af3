"""The second start reads an index instead of the data, and never a stale one."""
import os

import numpy as np
import pytest
import rlds_factory

from vgps_training.data import index, rlds
from vgps_training.data.encoded import Buffers
from vgps_training.data.index import read_indexed
from vgps_training.data.table import read_table

SIZE = 64


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def payload(random, length, text):
    images = random.integers(0, 256, (length, 32, 40, 3), dtype=np.uint8)
    actions = np.concatenate([random.normal(0, 0.02, (length, 6)), np.ones((length, 1))], 1)
    return rlds_factory.example(rlds_factory.steps(images, actions, text))


def data_set(folder, seed=0, episodes=6):
    random = np.random.default_rng(seed)
    payloads = [payload(random, int(random.integers(3, 9)), f'task {i % 3}') for i in range(episodes)]
    payloads.append(payload(random, 1, 'too short'))
    return rlds_factory.folder(folder / 'vgps/1.0.0', 'vgps', payloads)


def same(a, b):
    for name in ('actions', 'starts', 'instruction', 'success', 'dataset'):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.instructions, a.sources) == (b.instructions, b.sources)
    steps = np.arange(len(a))
    np.testing.assert_array_equal(a.images(steps), b.images(steps))
    for (rows, frames), (other_rows, other) in zip(a.groups(steps, Buffers(1)), b.groups(steps, Buffers(1)),
                                                   strict=True):
        assert rows.equal(other_rows) and frames.equal(other)


def test_index_holds_what_the_data_hold_and_the_second_start_reads_no_record(tmp_path, monkeypatch):
    paths = [data_set(tmp_path / 'a').parent, data_set(tmp_path / 'b', seed=1)]
    plain, report = read_table(paths, SIZE, lazy=True, progress=False)
    first, _ = read_indexed(paths, SIZE, progress=False)
    monkeypatch.setattr(rlds, 'records', None)  # any use would raise
    second, told = read_indexed(paths, SIZE, progress=False)
    same(plain, first)
    same(plain, second)
    assert told.text() == report.text() and '2 x ' in told.text()
    assert isinstance(second.actions, np.memmap) and isinstance(second.frames.offset, np.memmap)


@pytest.mark.parametrize('change', ['time', 'episodes', 'option'])
def test_changed_data_or_options_are_read_anew(tmp_path, change):
    folder, options = data_set(tmp_path), {}
    before, _ = read_indexed([folder], SIZE, progress=False)
    shard = next(folder.glob('*.tfrecord-*'))
    if change == 'time':
        os.utime(shard, ns=(1, 1))
    elif change == 'episodes':
        extra = rlds_factory.record(payload(np.random.default_rng(5), 4, 'new'))
        shard.write_bytes(shard.read_bytes() + extra)
    else:
        options = {'failures': 'skip'}
    after, _ = read_indexed([folder], SIZE, progress=False, **options)
    assert len(list((tmp_path / 'cache/vgps/tables').glob('*/table.json'))) == 2
    assert len(after.starts) == len(before.starts) + (change == 'episodes')


def test_index_that_a_kill_left_half_written_is_made_again(tmp_path, monkeypatch):
    folder = data_set(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index.np, 'save', killed)
        with pytest.raises(KeyboardInterrupt):
            read_indexed([folder], SIZE, progress=False)
    same(read_table([folder], SIZE, lazy=True, progress=False)[0], read_indexed([folder], SIZE, progress=False)[0])
