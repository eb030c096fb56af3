"""The ROS wheels' exports name this interpreter's headers, and no other checkout's files change with them."""

import importlib.util
import os
import sysconfig
from pathlib import Path

import numpy
import pytest

SCRIPT = Path(__file__).parents[2] / 'workspace' / 'relocate_wheels.py'
EXPORT = ('  INTERFACE_INCLUDE_DIRECTORIES "${{_IMPORT_PREFIX}}/include/messages;{0}/include/python3.12;'
          '{0}/lib/python3.12/site-packages/numpy/_core/include"\n')


@pytest.fixture(scope='module')
def wheels():
    """Import the script, which is no package."""
    spec = importlib.util.spec_from_file_location('relocate_wheels', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('place', ['/opt/python/cp312-cp312', '/home/somebody/my deleted checkout/.venv'])
def test_headers_are_this_interpreters_wherever_the_file_came_from(wheels, place):
    relocated = wheels.relocate(EXPORT.format(place))
    assert relocated == ('  INTERFACE_INCLUDE_DIRECTORIES "${_IMPORT_PREFIX}/include/messages;'
                         f'{wheels.HEADERS};{numpy.get_include()}"\n')
    assert Path(wheels.HEADERS, 'Python.h').exists() or not Path(sysconfig.get_path('include'), 'Python.h').exists()
    assert wheels.relocate(relocated) == relocated


def test_a_file_that_is_linked_to_the_installers_cache_leaves_the_cache_as_it_is(wheels, tmp_path):
    cached, installed = tmp_path / 'cached.cmake', tmp_path / 'share' / 'messages' / 'cmake' / 'export.cmake'
    cached.write_text(EXPORT.format('/opt/python/cp312-cp312'))
    installed.parent.mkdir(parents=True)
    os.link(cached, installed)
    wheels.relocate_all(tmp_path / 'share')
    assert '/opt/python' in cached.read_text()
    assert '/opt/python' not in installed.read_text()
    assert [p.name for p in installed.parent.iterdir()] == ['export.cmake']
