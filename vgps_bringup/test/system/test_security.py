"""The policy file allows what the real nodes do, and nothing of it is a wildcard."""

import os
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from vgps_bringup.system import supervisor
from vgps_bringup.system.description import SYSTEMS, Process, enclave

POLICIES = Path(__file__).resolve().parents[2] / 'security' / 'policies.xml'
ACTION = ('/_action/cancel_goal', '/_action/get_result', '/_action/send_goal', '/_action/feedback', '/_action/status')


def permissions():
    """Return enclave -> {(kind, direction): resolved names}."""
    result = {}
    for place in ElementTree.parse(POLICIES).getroot().iter('enclave'):
        profile = place.find('profiles/profile')
        space, name = profile.get('ns'), profile.get('node')
        allowed = result[place.get('path')] = {}
        for group in profile:
            (direction, word), = group.attrib.items()
            assert word == 'ALLOW' and place.get('path') == f'{space}/{name}'
            allowed[group.tag, direction] = {
                text if text.startswith('/') else f'{space}/{name}/{text[2:]}' if text.startswith('~/')
                else f'{space}/{text}' for text in (item.text for item in group)}
    return result


def test_every_node_of_every_system_has_an_enclave_and_no_rule_is_a_wildcard():
    known = permissions()
    for name, system in SYSTEMS.items():
        arguments = system.resolve({'bag': '/b'} if name == 'replay' else {})
        for process in system.build(arguments):
            if isinstance(process, Process):
                assert enclave(process, arguments['namespace']) in known
    assert '*' not in ''.join(n for groups in known.values() for names in groups.values() for n in names)


def test_only_the_critic_may_command_and_only_the_policy_may_announce():
    said = {path: {name for (kind, way), names in groups.items() if way == 'publish' for name in names}
            for path, groups in permissions().items()}
    for topic, speaker in (('command', 'critic_node'), ('candidates', 'policy_node'), ('episode', 'policy_node'),
                           ('image_raw', 'simulation_node')):
        assert [path for path, names in said.items() if f'/vgps/{topic}' in names] == [f'/vgps/{speaker}']


def test_only_the_operators_client_may_leave_a_stop_and_every_node_may_say_that_it_erred():
    allowed = permissions()
    for service in ('home', 'reset'):
        called = f'/vgps/widowx_node/{service}'
        assert [path for path, groups in allowed.items() if called in groups.get(('services', 'request'), ())] == [
            '/vgps/episode_client']
    assert all('/diagnostics' in groups['topics', 'publish'] for path, groups in allowed.items()
               if not path.endswith('episode_client'))


@pytest.mark.ros
@pytest.mark.skipif(not os.environ.get('AMENT_PREFIX_PATH'), reason='the workspace is not sourced')
def test_nodes_in_an_episode_do_nothing_that_their_policy_does_not_allow(tmp_path):
    pytest.importorskip('rclpy')
    from vgps_bringup.system.episode_client import EpisodeClient
    known, seen, feedback = permissions(), {}, []
    with supervisor.Runner('simulation', {'output': str(tmp_path), 'k': '2', 'max_steps': '3'}, log=lambda line: None) \
            as running, EpisodeClient('vgps') as client:
        client.wait_until_ready(180.0, running.why_not_ready)

        def look(message):
            feedback.append(message)
            for name, space in client.node.get_node_names_and_namespaces():
                if space == '/vgps':
                    for way, kind in (('publisher', 'publish'), ('subscriber', 'subscribe'), ('service', 'reply'),
                                      ('client', 'request')):
                        used = getattr(client.node, f'get_{way}_names_and_types_by_node')(name, space)
                        seen.setdefault((name, kind), set()).update(topic for topic, _ in used)
        limit = time.monotonic() + 120.0
        while not feedback and time.monotonic() < limit:  # a starved machine may disturb the reset
            client.run(task='put_eggplant_in_basket', on_feedback=look)
    assert feedback and {name for name, _ in seen} >= {part.name for part in running.parts}
    for (name, kind), used in seen.items():
        allowed = {topic for (_, way), names in known[f'/vgps/{name}'].items() if way == kind for topic in names}
        actions = {action for (tag, _), names in known[f'/vgps/{name}'].items() if tag == 'actions' for action in names}
        allowed |= {action + suffix for action in actions for suffix in ACTION}
        assert used <= allowed, (name, kind, used - allowed)
