"""Make the CMake exports of the ROS wheels name this interpreter's headers.

The wheels are built in an image whose Python lives in /opt/python; their exported targets keep that path.
Run once after installing the wheels: ``.venv/bin/python relocate_wheels.py``. Safe to repeat.
"""

import pathlib
import re
import sys
import sysconfig

import numpy

BUILD_PYTHON = r'/opt/python/cp3\d+-cp3\d+'
HEADERS = sysconfig.get_path('include', vars={'installed_base': sys.base_prefix})


def relocate(text: str) -> str:
    """Replace the build image's numpy and Python include folders."""
    text = re.sub(BUILD_PYTHON + r'/lib/python3\.\d+/site-packages/numpy/_core/include', numpy.get_include(), text)
    return re.sub(BUILD_PYTHON + r'/include/python3\.\d+', HEADERS, text)


if __name__ == '__main__':
    for path in pathlib.Path(sys.prefix, 'share').glob('*/cmake/*.cmake'):
        before = path.read_text()
        if (after := relocate(before)) != before:
            path.write_text(after)
