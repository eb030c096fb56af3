"""Wrong calls of every command: one sentence that names cause and remedy, exit status not 0, nothing written."""

import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MAINS = {
    'vgps-demo': 'vgps_bringup.commands.demo:main', 'vgps-run': 'vgps_bringup.commands.run:main',
    'vgps-episode': 'vgps_bringup.commands.episode:main', 'vgps-report': 'vgps_bringup.commands.report:main',
    'vgps-evaluate': 'vgps_bringup.commands.evaluate:main', 'vgps-collect': 'vgps_bringup.simulation.collect:main',
    'vgps-collect-simpler': 'vgps_bringup.trials.simpler.collect:main',
    'vgps-critics': 'vgps_bringup.commands.critics:main', 'vgps-improve': 'vgps_bringup.commands.improve:main',
    'vgps-improvement-experiment': 'vgps_bringup.commands.improvement_experiment:main',
    'vgps-import-reference': 'vgps_critic.import_reference:main', 'vgps-train': 'vgps_training.run.train:main',
    'vgps-policy-server': 'vgps_policy_bridge.server.server:main',
    'vgps-pretrain': 'vgps_training.run.pretrain:main', 'vgps-data': 'vgps_training.data.inspect_data:main',
    'vgps-train-policy': 'vgps_training.policies.train:main',
    'vgps-param': 'vgps_bringup.commands.without_ros2:parameter_main',
    'vgps-arm': 'vgps_bringup.commands.without_ros2:arm_main',
    'vgps-topic': 'vgps_bringup.commands.without_ros2:topic_main',
    'vgps-serve': 'vgps_bringup.commands.serve:main', 'vgps-study': 'vgps_bringup.reproduction.stages:main',
}
BAG = 'evaluate bag episode --critic'
# call, relative to a folder that holds what `place` makes -> words of the answer: the cause, then the remedy
CALLS = {
    'demo --task put_carrot_on_plat': ('put_carrot_on_plat', 'did you mean put_carrot_on_plate?'),
    'demo --task juggle': ("'juggle'", 'there are'),
    'demo --k 0': ('--k must be 1 .. 1000', 'not 0'),
    'demo --k -3': ('--k must be 1 .. 1000', 'not -3'),
    'demo --k ten': ('ten', 'int'),
    'demo --beta -1': ('--beta must be a number of at least 0', 'not -1'),
    'demo --beta nan': ('--beta must be a number of at least 0', 'not nan'),
    'demo --seed -1': ('--seed must be at least 0', 'not -1'),
    'demo --max-steps 0': ('--max-steps must be at least 1', 'not 0'),
    'demo --policy flwo': ("'flwo'", 'did you mean flow?'),
    'demo --critic runs/iql': ('runs/iql is a training run', 'give runs/iql/critic'),
    'demo --critic runs/iqr/critic': ('there is no critic', "'default'"),
    'demo --critic runs/iqq': ('there is no critic runs/iqq', 'did you mean runs/iql?'),
    'demo --critic nothing': ('there is no critic nothing', "'default'"),
    'demo --critic file.txt': ('file.txt is a file', 'folder'),
    'demo --namespace 7up': ("'7up' is not a ROS namespace", 'e.g. vgps'),
    'demo --output file.txt': ('file.txt is a file', '--output'),
    'demo --sed 3': ('--sed', '--seed'),
    'run simulatoin': ('simulatoin', 'simulation'),
    'run simulation k=5': ("'k=5'", 'name:=value'),
    'run simulation k:=0': ('--k must be 1 .. 1000', 'not 0'),
    'run simulation k:=many': ('k:=many must be a whole number', 'k:=10'),
    'run simulation beta:=-0.5': ('--beta', 'at least 0'),
    'run simulation tsk:=x': ("no argument 'tsk'", 'known:'),
    'run simulation task:=put_spoon': ("'put_spoon'", 'did you mean put_spoon_on_cloth?'),
    'run simulation selection:=best': ('selection:=best', 'value, first, random'),
    'run simulation max_steps:=0': ('max_steps must be at least 1', 'not 0'),
    'run simulation critic:=runs/iql': ('runs/iql is a training run', 'give runs/iql/critic'),
    'run replay': ('replay needs bag:=', 'recorded episode'),
    'episode': ('say what to do', '--task'),
    'episode --task put_egplant_in_basket': ('put_egplant_in_basket', 'did you mean put_eggplant_in_basket?'),
    'episode --task put_carrot_on_plate --episodes 0': ('--episodes must be 1', 'not 0'),
    'episode --task put_carrot_on_plate --max-steps -5': ('--max-steps must be at least 0', 'not -5'),
    'report nowhere': ('there is no bag nowhere', 'metadata.yaml'),
    'report episod': ('there is no bag episod', 'did you mean episode?'),
    'report reported': ('exists already', '--overwrite'),
    'report empty': ('empty holds no bag', 'metadata.yaml'),
    f'{BAG} default --k 0': ('--k must be 1', 'not 0'),
    f'{BAG} default --beta -1': ('--beta', 'at least 0'),
    f'{BAG} runs/iql': ('runs/iql is a training run', 'give runs/iql/critic'),
    f'{BAG} default --policy flwo': ("'flwo'", 'did you mean flow?'),
    f'{BAG} default --output reported/report': ('exists already', '--overwrite'),
    'evaluate bag empty --critic default': ('empty holds no bag', 'metadata.yaml'),
    'evaluate trials --trials 0': ('--trials must be', 'not 0'),
    'evaluate trials --conditions steered': ('--critic CHECKPOINT', 'needs'),
    'evaluate overhead --repetitions 0': ('--repetitions', 'not 0'),
    'collect --output new --tasks juggle': ('juggle', 'known are'),
    'collect-simpler --output new --tasks put_carrot_on_plate': ('put_carrot_on_plate', 'widowx_carrot_on_plate'),
    'collect --output new --episodes 0': ('episodes', 'at least 1'),
    'critics promote 3f': ("0 critics are called '3f'", 'there are: none'),
    'critics which nowhere': ('there is no bag nowhere', 'metadata.yaml'),
    'improve': ('give recordings', 'runs'),
    'improve nowhere': ('there is no bag nowhere', 'metadata.yaml'),
    'improve runs --folds 1': ('--folds must be 2', 'not 1'),
    'improve runs --heads none': ('none', 'continue'),
    'improvement-experiment --rounds many': ('many', 'int'),
    'improvement-experiment --heads frehs': ('frehs', 'fresh'),
    'import-reference empty new': ("empty: holds no file 'checkpoint'", 'give checkpoint_<step>'),
    'import-reference file.txt new --action-space google': ('google', 'bridge'),
    'policy-server flow --host 0.0.0.0': ('can be reached from other machines', '--allow-remote'),
    'policy-server flow --episodes 9': ('--episodes must be 1 .. 8', 'not 9'),
    'train iqll': ('iqll', 'iql'),
    'train iql --preset tiny': ('tiny', 'small'),
    'train push nowhere owner/name': ('nowhere', 'vgps-train push'),
    'pretrain --data nowhere --out new': ('nowhere', 'vgps-pretrain'),
    'data inspekt': ("no command 'inspekt'", 'vgps-data inspect'),
    'train-policy': ('no data: give --data', 'vgps-train-policy'),
    'param get critic_node beta --namespace nobody_here': ('/nobody_here/critic_node', 'not in sight'),
    'param set critic_node': ('value', 'VALUE'),
    'arm stpo': ('stpo', 'stop'),
    'arm stop --namespace nobody_here': ('/nobody_here/widowx_node', 'not in sight'),
    'serve --policy flwo': ("'flwo'", 'did you mean flow?'),
    'serve --selection best': ('best', 'value'),
    'serve --host 0.0.0.0': ('can be reached from other machines', 'SSH tunnel'),
    'study --cores 0': ('--cores must be at least 1', 'not 0'),
    'topic rate': ('say which topic', 'image_raw'),
    'topic rate image_raw --seconds 0': ('--seconds must be', 'not 0'),
    'topic rate image_raw --namespace nobody_here': ('nobody publishes /nobody_here/image_raw', 'vgps-topic list'),
}


def place(folder: Path) -> None:
    """Make what the calls speak of: a folder of a training run, a bag, one with a report, an empty folder, a file."""
    for path in ('runs/iql/critic/config.json', 'episode/metadata.yaml', 'reported/metadata.yaml',
                 'reported/report/index.html', 'file.txt'):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text('{}')
    (folder / 'empty').mkdir()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b'' for p in folder.rglob('*')}


@pytest.mark.parametrize('call', CALLS)
def test_a_wrong_call_names_cause_and_remedy_and_writes_nothing(call, tmp_path, monkeypatch, capsys):
    place(tmp_path)
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    command, *words = call.split()
    module, function = MAINS[f'vgps-{command}'].split(':')
    monkeypatch.setattr(sys, 'argv', [f'vgps-{command}', *words])
    with pytest.raises(SystemExit) as ended:
        getattr(importlib.import_module(module), function)()
    said = capsys.readouterr()
    text = said.err + said.out + (ended.value.code if isinstance(ended.value.code, str) else '')
    assert ended.value.code not in (0, None)
    assert 'Traceback' not in text
    plain = ' '.join(text.replace('│', ' ').split())
    for wanted in CALLS[call]:
        assert wanted in plain, plain
    assert contents(tmp_path) == before, 'something was written or spoilt'


def test_there_are_at_least_forty_and_every_command_is_among_them():
    assert len(CALLS) >= 40 and {f'vgps-{call.split()[0]}' for call in CALLS} == set(MAINS)


@pytest.mark.parametrize('command', MAINS)
def test_help_gives_an_example_and_no_path_of_this_installation(command, monkeypatch, capsys):
    module, function = MAINS[command].split(':')
    monkeypatch.setattr(sys, 'argv', [command, '--help'])
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as ended:
        assert ended.code in (0, None)
    text = capsys.readouterr().out
    assert command in text
    assert str(Path(__file__).parents[3]) not in text and '``' not in text
