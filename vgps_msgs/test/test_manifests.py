"""Every package manifest of the workspace parses, and every interface field says what it means."""

import pathlib

import pytest

WORKSPACE = pathlib.Path(__file__).resolve().parents[2]
INTERFACES = sorted(p for kind in ('msg', 'srv', 'action') for p in (WORKSPACE / 'vgps_msgs' / kind).iterdir())


@pytest.mark.parametrize('path', sorted(WORKSPACE.glob('vgps_*/package.xml')), ids=lambda p: p.parent.name)
def test_manifest_parses(path):
    catkin_pkg = pytest.importorskip('catkin_pkg.package')
    warnings = []
    package = catkin_pkg.parse_package(str(path), warnings=warnings)
    assert package.name == path.parent.name
    assert not warnings


@pytest.mark.parametrize('path', INTERFACES, ids=lambda p: p.name)
def test_interface_is_listed_for_the_build(path):
    cmake = (WORKSPACE / 'vgps_msgs' / 'CMakeLists.txt').read_text()
    assert f'"{path.parent.name}/{path.name}"' in cmake


@pytest.mark.parametrize('path', INTERFACES, ids=lambda p: p.name)
def test_interface_opens_with_its_purpose(path):
    assert path.read_text().startswith('# ')
