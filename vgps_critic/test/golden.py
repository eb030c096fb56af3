"""Find numbers made by running the reference implementation."""

from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / 'data'


def golden_path(name: str) -> Path:
    """Return a golden file: from the folder beside the checkout, else the copy in test/data, else skip the test."""
    for parent in Path(__file__).resolve().parents:
        if (parent / 'colcon.meta').exists():
            beside = parent.parent / 'shared' / 'golden' / name
            if beside.exists():
                return beside
    if (DATA / name).exists():
        return DATA / name
    pytest.skip(f'golden file {name} is neither beside the checkout (shared/golden) nor in test/data')


def golden(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a golden .npz."""
    with np.load(golden_path(name), allow_pickle=False) as archive:
        return dict(archive)
