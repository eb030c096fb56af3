"""Make the CMake exports of the ROS wheels name this interpreter's headers.

The wheels are built in an image whose Python lives in /opt/python; their exported targets keep that path.
Run once after installing the wheels: ``.venv/bin/python relocate_wheels.py``. Safe to repeat.
"""

import os
import pathlib
import re
import sys
import sysconfig

import numpy

PLACE = r'/[^;"\n]*'  # of any interpreter: the image's, or another checkout's that wrote into the installer's cache
HEADERS = sysconfig.get_path('include', vars={'installed_base': sys.base_prefix})


def relocate(text: str) -> str:
    """Replace the folders of numpy's and Python's headers by this interpreter's."""
    text = re.sub(PLACE + r'/lib/python3\.\d+/site-packages/numpy/_core/include', numpy.get_include(), text)
    return re.sub(PLACE + r'/include/python3\.\d+(?![\w.])', HEADERS, text)


def rewrite(path: pathlib.Path, text: str) -> None:
    """Replace a file: in place, one that the installer linked would change in its cache and in other checkouts, too."""
    new = path.with_name(path.name + '.new')
    new.write_text(text)
    os.replace(new, path)


def relocate_all(share: pathlib.Path) -> None:
    """Relocate every package's exports under ``share``."""
    for path in share.glob('*/cmake/*.cmake'):
        before = path.read_text()
        if (after := relocate(before)) != before:
            rewrite(path, after)


if __name__ == '__main__':
    relocate_all(pathlib.Path(sys.prefix, 'share'))
