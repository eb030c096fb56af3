"""ROS parameters from frozen dataclasses: the same source feeds the command line, the YAML and rqt.

A field's metadata gives ``description`` (with unit), ``range`` (low, high), ``choices`` and ``read_only``::

    @dataclass(frozen=True)
    class Config:
        beta: float = field(default=0.0, metadata={'description': 'selection temperature', 'range': (0.0, 10.0)})

Ranges become sliders in rqt_reconfigure, which ignores the *reason* of a rejected change: it is logged here. A value
outside its range is not, for rclpy refuses it before it asks.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter

Config = TypeVar('Config')
TYPES = {bool: Parameter.Type.BOOL, int: Parameter.Type.INTEGER, float: Parameter.Type.DOUBLE,
         str: Parameter.Type.STRING, list: None, tuple: None}


class ParameterError(ValueError):
    """A parameter was given a value that cannot be used; the text says which, why and what to do."""


def descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    """Return what rqt and ``ros2 param describe`` show for one field."""
    text = field.metadata.get('description', '')
    choices = field.metadata.get('choices')
    result = ParameterDescriptor(description=text, read_only=field.metadata.get('read_only', False))
    if choices:
        result.additional_constraints = 'one of ' + ', '.join(map(str, choices))
        result.description = f'{text} ({result.additional_constraints})'  # all that rqt shows
    bounds = field.metadata.get('range')
    if bounds is not None:
        low, high = bounds
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            result.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        else:
            result.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return result


def _default(field: dataclasses.Field):
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    return list(value) if isinstance(value, tuple) else value


def _complaint(field: dataclasses.Field, value) -> str:
    """Say what is wrong with a value, or nothing."""
    choices, bounds = field.metadata.get('choices'), field.metadata.get('range')
    if choices and value not in choices:
        return f"{field.name} is '{value}', must be one of {', '.join(map(str, choices))}"
    if bounds and not bounds[0] <= value <= bounds[1]:
        return f'{field.name} is {value}, must be within {bounds[0]} and {bounds[1]}'
    return ''


def declare(node, config_class: type[Config], live: Callable[[Config], None] | None = None) -> Config:
    """Declare every field as a parameter of ``node`` and return the configuration it was started with.

    ``live`` is called with the whole new configuration after each accepted change; where it is absent, every
    parameter is read-only. A ``ValueError`` raised by ``live`` or by the dataclass itself rejects the change.

    Raises:
        ParameterError: a value given at start has the wrong type or lies outside its range.

    """
    fields = [f for f in dataclasses.fields(config_class) if not f.metadata.get('internal')]
    values = {}
    for field in fields:
        described = descriptor(field)
        if live is None:
            described.read_only = True
        try:
            value = node.declare_parameter(field.name, _default(field), described).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            kind = type(_default(field)).__name__
            limits = f' within {field.metadata["range"]}' if 'range' in field.metadata else ''
            raise ParameterError(f"parameter '{field.name}' of {node.get_name()} must be a {kind}{limits} "
                                 f'({field.metadata.get("description", "")}): {error}') from error
        if complaint := _complaint(field, value):
            raise ParameterError(f'{node.get_name()}: {complaint}')
        values[field.name] = tuple(value) if isinstance(field.default, tuple) else value
    try:
        config = config_class(**values)
    except ValueError as error:
        raise ParameterError(f'{node.get_name()}: {error}') from error
    if live is not None:
        _Live(node, config, {field.name: field for field in fields}, live)
    return config


class _Live:
    """Checks and applies changes of parameters; keeps the present configuration."""

    def __init__(self, node, config, fields, apply):
        self.node, self.config, self.fields, self.apply = node, config, fields, apply
        node.add_on_set_parameters_callback(self.on_change)

    def on_change(self, parameters) -> SetParametersResult:
        changes = {p.name: tuple(p.value) if isinstance(self.fields[p.name].default, tuple) else p.value
                   for p in parameters if p.name in self.fields}
        reason = next(filter(None, (_complaint(self.fields[n], v) for n, v in changes.items())), '')
        if not reason and changes:
            try:
                config = dataclasses.replace(self.config, **changes)
                self.apply(config)
                self.config = config
                self.node.get_logger().info('now ' + ', '.join(f'{n} = {v}' for n, v in changes.items()))
            except ValueError as error:
                reason = str(error)
        if reason:  # rqt_reconfigure does not show it
            self.node.get_logger().warning(f'parameter change rejected: {reason}')
        return SetParametersResult(successful=not reason, reason=reason)
