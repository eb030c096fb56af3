"""Mutated data of every format: nothing but named errors. More of them: `python test/fuzz_readers.py`."""
import fuzz_readers
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('reader', list(fuzz_readers.READERS))
def test_mutated_data_raise_nothing_but_named_errors(reader, tmp_path):
    found, _ = fuzz_readers.fuzz(reader, 25, seed=7)
    assert not [result for result in found if result.startswith('!!')], found
    assert sum(found.values()) == 25
