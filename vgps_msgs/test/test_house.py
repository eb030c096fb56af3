"""The plan of the house: files and nodes one can read at a sitting, no room that holds everything."""
from collections import Counter
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parents[2]
PACKAGES = ('vgps_msgs/vgps_msgs_py', 'vgps_critic/vgps_critic', 'vgps_policy_bridge/vgps_policy_bridge',
            'vgps_bringup/vgps_bringup', 'training/vgps_training')
LINES = {path: len(path.read_text(encoding='utf-8').splitlines())
         for package in PACKAGES for path in sorted((WORKSPACE / package).rglob('*.py'))}


def test_no_file_is_longer_than_350_lines():
    tests = {path: len(path.read_text(encoding='utf-8').splitlines())
             for package in PACKAGES for path in sorted((WORKSPACE / package).parent.glob('test/**/*.py'))}
    assert not {str(path.relative_to(WORKSPACE)): lines for path, lines in (LINES | tests).items() if lines > 350}


def test_no_node_is_longer_than_250_lines():
    assert not {str(path.relative_to(WORKSPACE)): lines for path, lines in LINES.items()
                if path.name.endswith('_node.py') and lines > 250}


def test_the_largest_room_holds_a_quarter_of_the_code_at_most():
    rooms = Counter()
    for path, lines in LINES.items():
        rooms['/'.join(path.relative_to(WORKSPACE).parts[:-1][:3])] += lines
    (room, largest), = rooms.most_common(1)
    assert largest <= sum(LINES.values()) / 4, f'{room}: {largest} of {sum(LINES.values())} lines'


def test_one_package_reads_recordings():
    """Whoever opens a recording does it through vgps_msgs_py.bags."""
    again = [str(path.relative_to(WORKSPACE)) for path in LINES if path.parent.name != 'bags'
             and any(word in path.read_text(encoding='utf-8') for word in (
                 'from rosbags', 'import rosbags', 'from mcap', 'import mcap', 'AnyReader'))]
    assert not again
