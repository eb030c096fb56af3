"""An encoder embeds an instruction once on this machine; no cache, however damaged, gives another vector."""

import sqlite3

import numpy as np
import pytest

from vgps_msgs_py import embeddings


class Counting:
    """Embeds a text as its length and counts what it was asked."""

    def __init__(self, value=1.0):
        self.value, self.asked = value, []

    def __call__(self, text):
        self.asked.append(text)
        return np.array([len(text), self.value], np.float32)


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'vgps' / 'embeddings.sqlite'


def test_a_text_is_embedded_once_per_encoder_and_only_the_very_text():
    one, other = Counting(1), Counting(2)
    assert embeddings.remembered('one', ['a', 'bb', 'a'], one).tolist() == [[1, 1], [2, 1], [1, 1]]
    assert embeddings.remembered('one', ['bb', 'A', ''], one).tolist() == [[2, 1], [1, 1], [0, 1]]
    assert embeddings.remembered('other', ['a'], other).tolist() == [[1, 2]]
    assert one.asked == ['a', 'bb', 'A', ''] and other.asked == ['a']


@pytest.mark.parametrize('damage', [
    lambda path: _change(path, "update embeddings set vector = x'00000000'"),
    lambda path: _change(path, "update embeddings set vector = 'text'"),
    lambda path: _change(path, 'update embeddings set digest = (select max(digest) from embeddings)'),
    lambda path: _change(path, 'delete from embeddings'),
    lambda path: path.write_bytes(b'no database, but as long as the head of one would be' * 4),
    lambda path: path.write_bytes(path.read_bytes()[:5000] + b'\xff' * 3000),
    lambda path: path.write_bytes(b'')])
def test_what_is_damaged_is_made_again(file, damage):
    texts = ['pick it up', 'put it down']
    wanted = embeddings.remembered('one', texts, Counting()).tolist()
    damage(file)
    for _ in range(2):  # the second puts it into a file that is whole again
        assert embeddings.remembered('one', texts, Counting()).tolist() == wanted
    again = Counting()
    assert embeddings.remembered('one', texts, again).tolist() == wanted and again.asked == []


def _change(path, statement):
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


def test_a_row_that_was_moved_to_another_text_does_not_count(file):
    embeddings.remembered('one', ['long text', 'no'], Counting())
    with sqlite3.connect(file) as database:
        (digest, vector), = database.execute('select digest, vector from embeddings limit 1').fetchall()
        database.execute('update embeddings set digest = ?, vector = ?', (digest, vector))
    database.close()
    assert embeddings.remembered('one', ['long text', 'no'], Counting()).tolist() == [[9, 1], [2, 1]]


def test_without_a_place_to_keep_them_embeddings_are_computed(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    encoder = Counting()
    for _ in range(2):
        assert embeddings.remembered('one', ['a'], encoder).tolist() == [[1, 1]]
    assert encoder.asked == ['a', 'a']


def test_a_locked_file_delays_nothing_for_long(file, monkeypatch):
    monkeypatch.setattr(embeddings, 'PATIENCE', 0.01)
    embeddings.remembered('one', ['a'], Counting())
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute('begin exclusive')
        assert embeddings.remembered('one', ['a'], Counting()).tolist() == [[1, 1]]
    other.close()


def test_an_error_of_the_encoder_is_raised_and_nothing_is_kept():
    def fails(text):
        raise ValueError('not known')
    with pytest.raises(ValueError, match='not known'):
        embeddings.remembered('one', ['a'], fails)
    assert embeddings.remembered('one', ['a'], Counting()).tolist() == [[1, 1]]


def test_another_version_of_the_encoder_computes_anew(monkeypatch):
    asked = []
    monkeypatch.setattr(embeddings, 'compute_muse', lambda text: asked.append(text) or np.zeros(512, np.float32))
    for version in ('1', '1', '2'):
        monkeypatch.setattr(embeddings.metadata, 'version', lambda name, version=version: version)
        assert embeddings.muse('go').shape == (512,)
    assert asked == ['go', 'go']
