import os

import pytest
import torch
import torch._dynamo  # an optimiser would, and triton with it: late, after a thousand other tests, that import crashed

torch.set_num_threads(1)
os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep indices and embeddings of tests out of the user's."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.getbasetemp() / 'cache'))
