"""Where the installer keeps what it loaded."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'workspace' / 'install.sh'


def cache(home):
    """Return the folder that an installation by this user, with this home, would keep downloads in."""
    code = f'. {SCRIPT}; python_of() {{ :; }}; venv={home} log=/dev/null; prepare_installer; echo "$UV_CACHE_DIR"'
    return subprocess.run(['bash', '-euc', code], check=True, text=True, stdout=subprocess.PIPE,
                          env={'PATH': os.environ['PATH'], 'HOME': str(home), 'TMPDIR': str(home)}).stdout.strip()


def test_downloads_are_kept_for_the_next_checkout(tmp_path):
    assert cache(tmp_path) == str(tmp_path / '.cache' / 'uv')
    assert cache(tmp_path) == str(tmp_path / '.cache' / 'uv')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
@pytest.mark.parametrize('place', ['.cache/uv', '.cache/uv/sdists-v11/.git'])
def test_downloads_are_kept_elsewhere_where_this_user_may_not_write_into_the_cache(tmp_path, place):
    file = tmp_path / '.cache' / 'uv' / 'sdists-v11' / '.git'
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / place).chmod(0o555)
    try:
        assert cache(tmp_path) == str(tmp_path / f'vgps-uv-{os.getuid()}')
    finally:
        (tmp_path / place).chmod(0o755)
