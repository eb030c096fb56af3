"""The table of a step's time adds up, and the encoder counts only where the policy was faster."""

import pytest

from vgps_bringup.benchmarks import stages

MILLISECOND = 1_000_000
TAKEN = 1_000_000_000  # ns, the frame's stamp


def write_marks(folder, encoded):
    """Write one step of 60 ms, the encoder ready `encoded` ms after the frame, and a frame that led to nothing."""
    marks = {'simulation_node': [('publish image_raw', 5)],
             'policy_node': [('receive image_raw', 7), ('begin sample', 8), ('end sample', 28),
                             ('publish candidates', 29)],
             'critic_node': [('end encode', encoded), ('receive candidates', 31), ('begin score', 43),
                             ('end score', 45), ('publish command', 47)],
             'widowx_node': [('receive command', 50), ('begin guards', 51), ('end guards', 55),
                             ('publish joint_command', 60)]}
    for node, lines in marks.items():
        text = [f'{what} {TAKEN} {TAKEN + when * MILLISECOND}\n' for what, when in lines]
        (folder / node).write_text(''.join(text))
    with (folder / 'simulation_node').open('a') as file:
        file.write(f'publish image_raw {2 * TAKEN} {2 * TAKEN + MILLISECOND}\n')


@pytest.mark.parametrize('encoded, rest, ros', [(20, 0.0, 29.0), (41, 10.0, 19.0)])
def test_stages_add_up_to_the_whole(tmp_path, encoded, rest, ros):
    write_marks(tmp_path, encoded)
    rows, steps = stages.table(tmp_path)
    p50 = {name: value for name, _, value, _ in rows}
    assert steps == 1
    assert p50['rest of the encoder'] == pytest.approx(rest)
    assert p50['models in all'] == pytest.approx(20 + rest + 2)
    assert p50['camera in all'] == pytest.approx(5)
    assert p50['ROS in all'] == pytest.approx(ros)
    assert sum(p50[f'{whose} in all'] for whose in ('camera', 'models', 'arm', 'ROS')) == pytest.approx(60)
    assert p50['frame taken → joint command'] == pytest.approx(60)


def test_a_run_without_a_whole_step_is_refused(tmp_path):
    (tmp_path / 'policy_node').write_text(f'receive image_raw {TAKEN} {TAKEN}\n')
    with pytest.raises(ValueError, match='no step'):
        stages.table(tmp_path)
