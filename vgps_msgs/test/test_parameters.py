"""Dataclass -> ROS parameters, on a real node."""

import os
from dataclasses import dataclass, field

import pytest
import rclpy
from rclpy.parameter import Parameter

from vgps_msgs_py import parameters


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
def make_node(monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + os.getpid() % 200))
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
    ('beta:=11.0', 'beta'), ('beta:=1', 'beta'), ('count:=0', 'count'), ('mode:=worst', 'mode'), ('count:=13', '13'),
])
def test_a_wrong_start_value_is_explained(make_node, argument, word):
    with pytest.raises(parameters.ParameterError, match=word):
        parameters.declare(make_node('-p', argument), Config)


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
