"""Dataclass -> ROS parameters, on a real node."""

from dataclasses import dataclass, field

import pytest

pytest.importorskip('rclpy')
import rclpy
from rclpy.parameter import Parameter

from vgps_msgs_py import parameters

pytestmark = pytest.mark.ros


@dataclass(frozen=True)
class Config:
    """Stand-in configuration."""

    beta: float = field(default=0.5, metadata={'description': 'temperature', 'range': (0.0, 10.0)})
    count: int = field(default=10, metadata={'description': 'K', 'range': (1, 1000)})
    mode: str = field(default='value', metadata={'description': 'mode', 'choices': ('value', 'first')})
    model: str = field(default='', metadata={'description': 'path', 'read_only': True})
    box: tuple = field(default=(0.0, 1.0), metadata={'description': 'limits [m]'})

    def __post_init__(self):
        if self.count == 13:
            raise ValueError('count must not be 13')


@pytest.fixture
def make_node():
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(*arguments):
        nodes.append(rclpy.create_node('parameters', context=context, cli_args=['--ros-args', *arguments]))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_start_values_come_from_the_command_line(make_node):
    config = parameters.declare(make_node('-p', 'beta:=2.0', '-p', 'box:=[1.0, 2.0]'), Config)
    assert config == Config(beta=2.0, box=(1.0, 2.0))


@pytest.mark.parametrize('argument, word', [
    ('beta:=11.0', 'beta'), ('beta:=11', 'beta'), ('beta:=high', 'beta'), ('count:=2.5', 'count'),
    ('count:=0', 'count'), ('mode:=worst', 'mode'), ('count:=13', '13'),
])
def test_a_wrong_start_value_is_explained(make_node, argument, word):
    with pytest.raises(parameters.ParameterError, match=word):
        parameters.declare(make_node('-p', argument), Config)


@pytest.mark.parametrize('arguments, expected', [
    (('-p', 'beta:=2'), Config(beta=2.0)), (('-p', 'box:=[1, 2]'), Config(box=(1.0, 2.0)))])
def test_whole_numbers_are_taken_where_a_number_is_asked_for_at_the_start(make_node, arguments, expected):
    node = make_node(*arguments)
    config = parameters.declare(node, Config, live=lambda config: None)
    assert config == expected and isinstance(config.beta, float)
    assert node.get_parameter('beta').type_ is Parameter.Type.DOUBLE
    assert node.describe_parameter('beta').description == 'temperature'
    assert not node.set_parameters([Parameter('beta', value=11)])[0].successful


def test_whole_numbers_are_taken_where_a_number_is_asked_for_while_it_runs(make_node):
    seen, node = [], make_node()
    parameters.declare(node, Config, live=seen.append)
    for change in ([Parameter('beta', value=1)], [Parameter('box', value=[3, 4])]):
        assert node.set_parameters_atomically(change).successful
    assert seen[-1] == Config(beta=1.0, box=(3.0, 4.0)) and isinstance(seen[-1].beta, float)
    for change in (Parameter('beta', value=11), Parameter('beta', value=True), Parameter('count', value=2.0),
                   Parameter('beta', Parameter.Type.NOT_SET)):
        assert not node.set_parameters_atomically([change]).successful, change.value
    assert len(seen) == 2 and node.get_parameter('beta').value == 1.0


@dataclass(frozen=True)
class Other:
    """A second configuration of the same node."""

    speed: float = field(default=1.0, metadata={'description': 'speed', 'range': (0.0, 2.0)})


@pytest.mark.parametrize('refused', [
    Parameter('mode', value='worst'), Parameter('count', value=13), Parameter('count', value=1001),
    Parameter('model', value='x'), Parameter('speed', value=9.0), Parameter('speed', value=0.25),
    Parameter('use_sim_time', value='x'), Parameter('mode', Parameter.Type.NOT_SET)])
@pytest.mark.parametrize('first', [True, False])
def test_a_change_that_is_refused_changes_nothing_whoever_refuses_it(make_node, refused, first):
    def check(config):
        if config.speed == 0.25:
            raise ValueError('too slow to arrive')

    node, seen = make_node(), []
    for kind in ((Config, Other) if first else (Other, Config)):
        parameters.declare(node, kind, seen.append, check if kind is Other else lambda config: None)
    good = [Parameter('beta', value=3.0), Parameter('speed', value=1.5), Parameter('count', value=20)]
    good = [p for p in good if p.name != refused.name]
    for change in ([*good, refused], [refused, *good]):
        assert not node.set_parameters_atomically(change).successful
    assert seen == []
    assert (node.get_parameter('beta').value, node.get_parameter('count').value) == (0.5, 10)
    assert node.set_parameters_atomically(good).successful
    assert any(isinstance(config, Config) and config.beta == 3.0 for config in seen)


def test_accepted_changes_reach_the_node_and_rejected_ones_do_not(make_node):
    seen = []
    node = make_node()
    parameters.declare(node, Config, live=seen.append)

    def change(name, value):
        return node.set_parameters([Parameter(name, value=value)])[0]

    assert change('beta', 1.0).successful
    assert seen == [Config(beta=1.0)]
    for name, value in [('mode', 'worst'), ('count', 13), ('count', 1001), ('model', 'x')]:
        assert not change(name, value).successful, name
    assert change('box', [2.0, 3.0]).successful
    assert seen[1:] == [Config(beta=1.0, box=(2.0, 3.0))]


def test_ranges_become_sliders(make_node):
    node = make_node()
    parameters.declare(node, Config, live=lambda config: None)
    described = node.describe_parameter('beta')
    assert (described.floating_point_range[0].from_value, described.floating_point_range[0].to_value) == (0.0, 10.0)
    assert described.description == 'temperature'
    assert node.describe_parameter('count').integer_range[0].to_value == 1000
    assert node.describe_parameter('model').read_only
    assert node.describe_parameter('mode').description == 'mode (one of value, first)'
