"""A packed set is a saved table in shards: the same batches, wherever the shards are and whoever wrote them."""
import dataclasses
import json

import fsspec
import numpy as np
import pytest
from synthetic import make

from vgps_training.data import pack, packed
from vgps_training.data.encoded import Buffers, open_file
from vgps_training.data.episode import DataError
from vgps_training.data.pack import PackConfig
from vgps_training.data.remote import StoreError
from vgps_training.data.table import data_digest, read_table

SIZE = 64


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, 'SHARD_BYTES', 12 * 3 * SIZE * SIZE)  # a dozen frames
    open_file.cache_clear()
    return make(tmp_path)


def read(folder):
    return read_table([folder], SIZE, progress=False)[0]


def same(a, b):
    assert data_digest(a) == data_digest(b) and a.image_size == b.image_size == SIZE
    steps = np.random.default_rng(0).permutation(len(a))
    for (rows, frames), (others, pixels) in zip(a.groups(steps, Buffers(1)), b.groups(steps, Buffers(1)), strict=True):
        assert rows.equal(others) and frames.equal(pixels)
    np.testing.assert_array_equal(a.images(steps), b.images(steps))
    np.testing.assert_array_equal(a.frames[5:9], b.frames[5:9])


def test_packed_set_gives_what_the_saved_table_gives_and_shards_are_made_once(tmp_path, saved):
    config = PackConfig((saved,), tmp_path / 'packed', SIZE)
    for index in range(3):
        pack.pack(dataclasses.replace(config, shard=f'{index}/3'))
        assert (config.out / 'table.json').exists() == (index == 2)
    assert len(list(config.out.glob('*.mds'))) > 5
    same(read(saved), read(config.out))
    times = {path: path.stat().st_mtime_ns for path in config.out.glob('*.mds')}
    lost = min(times)
    lost.unlink()  # as if the call had been killed before it
    pack.pack(config)
    assert lost.exists() and all(path.stat().st_mtime_ns == times[path] for path in times if path != lost)
    same(read(saved), read(config.out))


def test_another_set_in_the_same_folder_is_refused(tmp_path, saved):
    config = PackConfig((saved,), tmp_path / 'packed', SIZE)
    pack.pack(config)
    (tmp_path / 'other').mkdir()
    with pytest.raises(DataError, match='begun with other data'):
        pack.pack(dataclasses.replace(config, paths=(make(tmp_path / 'other', seed=1),)))
    with pytest.raises(DataError, match='holds a table'):
        pack.pack(dataclasses.replace(config, out=saved))


def test_shard_that_is_elsewhere_is_fetched_once_and_a_missing_one_is_named(tmp_path, saved):
    folder = tmp_path / 'packed'
    pack.pack(PackConfig((saved,), folder, SIZE))
    store = fsspec.filesystem('memory')
    store.put(f'{folder}/*.mds', '/bucket/set/')
    first, *others = sorted(folder.glob('*.mds'))
    first.unlink()
    with pytest.raises(StoreError, match='names no place to fetch it from'):
        read(folder).frames[0]
    for path in others:
        path.unlink()
    told = json.loads((folder / 'table.json').read_text())
    told['packed']['remote'] = 'memory://bucket/set'
    (folder / 'table.json').write_text(json.dumps(told))
    open_file.cache_clear()
    same(read(saved), read(folder))
    assert sorted(folder.glob('*.mds')) == [first, *others]
    assert not list(folder.glob('*.part')) and not list(folder.glob('*.lock'))


def test_shard_that_is_cut_short_is_refused(tmp_path, saved):
    folder = tmp_path / 'packed'
    pack.pack(PackConfig((saved,), folder, SIZE))
    path = sorted(folder.glob('*.mds'))[0]
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(StoreError, match='cut short'):
        read(folder).frames[:12]
    (folder / 'table.json').unlink()
    with pytest.raises(DataError, match='another size than it must have'):
        pack.pack(PackConfig((saved,), folder, SIZE))


def test_the_streaming_library_reads_every_step(tmp_path, saved):
    streaming = pytest.importorskip('streaming', reason='NOT CHECKED: mosaicml-streaming is not installed')
    folder = tmp_path / 'packed'
    pack.pack(PackConfig((saved,), folder, SIZE))
    table, samples = read(saved), streaming.LocalDataset(local=str(folder))
    assert len(samples) == len(table)
    for step in (0, 11, 12, len(table) - 1):
        sample, episode = samples[step], int(table.episode_of(np.array([step]))[0])
        np.testing.assert_array_equal(sample['frame'], table.frames[step])
        np.testing.assert_array_equal(sample['action'], table.actions[step])
        assert sample['instruction'] == table.instructions[table.instruction[episode]]
        assert (sample['episode'], sample['step'], sample['success']) == (
            episode, step - table.starts[episode], table.success[episode])
