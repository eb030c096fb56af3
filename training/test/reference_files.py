"""What the authors' code computed: small parts beside the tests, large ones where a checkout has them."""

from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / 'recorded'


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
