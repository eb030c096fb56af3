import os
from pathlib import Path

import pytest
import torch

RECORDED = Path(__file__).parent / 'recorded'  # small parts of what the authors' code computed

torch.set_num_threads(1)
os.environ.setdefault('OMP_NUM_THREADS', '1')


def shared_folder() -> Path | None:
    """Find `shared/` beside the checkout, the folder that holds colcon.meta."""
    for folder in Path(__file__).resolve().parents:
        if (folder / 'colcon.meta').exists():
            return folder.parent / 'shared'
    return None


def shared(relative: str) -> Path:
    """Return a large reference file, or skip the test and say what is missing."""
    folder = shared_folder()
    if folder is None or not (folder / relative).exists():
        pytest.skip(f'NOT CHECKED: {relative} is not beside the checkout')
    return folder / relative


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep indices and embeddings of tests out of the user's."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.getbasetemp() / 'cache'))
