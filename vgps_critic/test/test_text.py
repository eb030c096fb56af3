"""Instructions become the embedding the critic was trained with, once, or are refused by name."""

import warnings

import numpy as np
import pytest

from vgps_critic import text
from vgps_critic.config import MUSE
from vgps_critic.text import MUSE_NUMPY, InstructionEncoder, UnknownInstructionError, load_instruction_encoder


@pytest.fixture(scope='module')
def muse(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # computed here, not read from the user's
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield text.muse_numpy()


def test_numpy_muse_on_real_instructions_groups_what_means_the_same(muse):
    spoon, also_spoon, german, drawer = (muse.encode(t) for t in (
        'put the spoon on the towel', 'place the spoon on top of the towel', 'lege den Löffel auf das Handtuch',
        'close the top drawer'))
    for embedding in (spoon, drawer):
        assert embedding.shape == (512,) and embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=0.01)
    assert spoon @ also_spoon > 0.8 and spoon @ german > 0.7  # measured 0.89, 0.78
    assert spoon @ drawer < 0.5  # measured 0.33


def test_the_empty_instruction_is_legal_as_in_the_training_data(muse):
    assert np.isfinite(muse.encode('')).all()


def test_each_instruction_is_embedded_once_and_cannot_be_changed_by_its_reader():
    calls = []
    encoder = InstructionEncoder('counting', lambda t: calls.append(t) or np.ones(512))
    first = encoder.encode('go')
    assert encoder.encode('go') is first and calls == ['go']
    with pytest.raises(ValueError, match='read-only'):
        first[0] = 2


def test_an_encoder_whose_weights_have_a_name_keeps_what_it_embedded_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    calls = []

    def encoder(kept_as):
        return InstructionEncoder('counting', lambda t: calls.append(t) or np.full((1, 512), len(t)), kept_as)

    for kept_as in ('weights 1', 'weights 1', 'weights 2', '', ''):
        assert encoder(kept_as).encode_all(['go', 'stay', 'go'])[:, 0].tolist() == [2, 4, 2]
        assert encoder(kept_as).encode('stay')[0] == 4
    assert calls == ['go', 'stay'] * 2 + ['go', 'stay', 'stay'] * 2


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(text, '_CACHE_SIZE', 3)
    encoder = InstructionEncoder('x', lambda t: np.ones(2))
    for i in range(10):
        encoder.encode(str(i))
    assert list(encoder._cache) == ['7', '8', '9']


@pytest.mark.parametrize('embedding', [np.full(512, np.nan), np.ones((2, 512))])
def test_a_broken_embedding_is_refused(embedding):
    with pytest.raises(ValueError, match='embedding'):
        InstructionEncoder('x', lambda t: embedding).encode('go')


def test_what_is_not_text_is_refused(muse):
    with pytest.raises(UnknownInstructionError, match='NoneType'):
        muse.encode(None)


def test_a_table_serves_its_instructions_and_refuses_others_by_name(tmp_path, muse):
    text.save_table(tmp_path / 'table.npz', muse, ['open the drawer', 'putze es', 'open the drawer'])
    encoder = text.table(tmp_path / 'table.npz')
    assert encoder.identity == MUSE_NUMPY
    np.testing.assert_array_equal(encoder.encode('putze es'), muse.encode('putze es'))
    with pytest.raises(UnknownInstructionError, match="'close it' is not among the 2"):
        encoder.encode('close it')


@pytest.mark.parametrize('content', [b'', b'no archive', b'PK\3\4 cut off', b'npy', None])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / 'table.npz'
    if content == b'npy':
        with path.open('wb') as file:
            np.save(file, np.zeros(3))
    else:
        np.savez(path, identity='x') if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match='not a table'):
        text.table(path)


def test_a_pickle_in_a_table_is_not_executed(tmp_path):
    np.savez(tmp_path / 'table.npz', identity='x', instructions=np.array([{}], object), embeddings=np.ones((1, 512)))
    with pytest.raises(ValueError, match='not a table'):
        text.table(tmp_path / 'table.npz')


@pytest.mark.slow
def test_the_twin_is_announced_and_a_stranger_refused(tmp_path, muse):
    with pytest.warns(text.TwinEncoderWarning, match='near-identical'):
        load_instruction_encoder(MUSE)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_instruction_encoder(MUSE_NUMPY)
    with pytest.raises(ValueError, match="trained with instruction encoder 'clip'"):
        load_instruction_encoder('clip')
    text.save_table(tmp_path / 'table.npz', muse, ['go'])
    with pytest.warns(text.TwinEncoderWarning):
        load_instruction_encoder(MUSE, str(tmp_path / 'table.npz'))
    with pytest.raises(ValueError, match='is none of'):
        load_instruction_encoder(MUSE, 'muse')


def test_tensorflow_hub_runs_a_saved_model_with_the_signature_of_muse(tmp_path):
    tf = pytest.importorskip('tensorflow', reason='pip install tensorflow tensorflow-hub tensorflow-text')
    pytest.importorskip('tensorflow_hub')
    pytest.importorskip('tensorflow_text')

    class Letters(tf.Module):
        """Counts bytes, so that the result is known."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            return tf.tile(tf.cast(tf.strings.length(texts), tf.float32)[:, None], [1, 512])

    tf.saved_model.save(Letters(), str(tmp_path / 'model'))
    encoder = text.tensorflow_hub(str(tmp_path / 'model'))
    assert encoder.identity == MUSE
    np.testing.assert_array_equal(encoder.encode('Löffel'), np.full(512, 7, np.float32))  # bytes of UTF-8, unmodified


def test_without_tensorflow_the_exact_encoder_says_what_to_install():
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match='pip install tensorflow tensorflow-hub tensorflow-text'):
            text.tensorflow_hub()
    else:
        pytest.skip('tensorflow is installed')
