"""ROS parameters from frozen dataclasses: the same source feeds the command line, the YAML and rqt.

A field's metadata gives ``description`` (with unit), ``range`` (low, high), ``choices`` and ``read_only``::

    @dataclass(frozen=True)
    class Config:
        beta: float = field(default=0.0, metadata={'description': 'selection temperature', 'range': (0.0, 10.0)})

Ranges become sliders in rqt_reconfigure, which ignores the *reason* of a rejected change: it is logged here. A value
outside its range is not, for rclpy refuses it before it asks.
"""

import dataclasses
from array import array
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar, cast

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

Config = TypeVar('Config')    # a frozen dataclass
Field: TypeAlias = 'dataclasses.Field[Any]'
TYPES = {bool: Parameter.Type.BOOL, int: Parameter.Type.INTEGER, float: Parameter.Type.DOUBLE,
         str: Parameter.Type.STRING, list: None, tuple: None}


class ParameterError(ValueError):
    """A parameter was given a value that cannot be used; the text says which, why and what to do."""


def descriptor(field: Field) -> ParameterDescriptor:
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


def _default(field: Field) -> Any:
    value = field.default_factory() if callable(field.default_factory) else field.default
    return list(value) if isinstance(value, tuple) else value


def _complaint(field: Field, value: Any) -> str:
    """Say what is wrong with a value, or nothing."""
    choices, bounds = field.metadata.get('choices'), field.metadata.get('range')
    if choices and value not in choices:
        return f"{field.name} is '{value}', must be one of {', '.join(map(str, choices))}"
    if bounds and not bounds[0] <= value <= bounds[1]:
        return f'{field.name} is {value}, must be within {bounds[0]} and {bounds[1]}'
    return ''


def _floats(field: Field) -> bool:
    default = _default(field)
    return isinstance(default, float) or (isinstance(default, list) and bool(default)
                                          and all(isinstance(x, float) for x in default))


def _as_declared(field: Field, value: Any) -> Any:
    """Return whole numbers as the floats that the field holds: YAML and the command line write 1 for 1.0."""
    if not _floats(field):
        return value
    if isinstance(value, (list, tuple, array)):
        whole = len(value) and all(isinstance(x, int) and not isinstance(x, bool) for x in value)
        return [float(x) for x in value] if whole else value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _declare_one(node: Node, field: Field, described: ParameterDescriptor) -> Any:
    """Declare one field and return the value it starts with."""
    try:
        return node.declare_parameter(field.name, _default(field), described).value
    except InvalidParameterTypeException:
        if not _floats(field):
            raise
    # What was given is only told to a declaration that takes any type.
    given = node.declare_parameter(field.name, descriptor=ParameterDescriptor(dynamic_typing=True)).value
    node.undeclare_parameter(field.name)
    value = _as_declared(field, given)
    return node.declare_parameter(field.name, value, described, ignore_override=True).value \
        if _fits(field, value) else node.declare_parameter(field.name, _default(field), described).value


def _fits(field: Field, value: Any) -> bool:
    return Parameter.Type.from_parameter_value(value) is Parameter.Type.from_parameter_value(_default(field))


def declare(node: Node, config_class: type[Config], live: Callable[[Config], None] | None = None,
            check: Callable[[Config], object] = lambda config: None) -> Config:
    """Declare every field as a parameter of ``node`` and return the configuration it was started with.

    A change is refused where ``check`` or the dataclass itself raises a ``ValueError``. Once *every* parameter of the
    change is accepted, other classes' and ROS' own too, ``live`` is called with the whole new configuration: a change
    that is refused changes nothing. ``live`` must not refuse. Where it is absent, every parameter is read-only.

    Raises:
        ParameterError: a value given at start has the wrong type or lies outside its range.

    """
    fields = [f for f in dataclasses.fields(cast(Any, config_class)) if not f.metadata.get('internal')]
    values = {}
    for field in fields:
        described = descriptor(field)
        if live is None:
            described.read_only = True
        try:
            value = _declare_one(node, field, described)
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
        _Live(node, config, {field.name: field for field in fields}, live, check)
    return config


class _Live(Generic[Config]):
    """Checks and applies changes of parameters; keeps the present configuration."""

    def __init__(self, node: Node, config: Config, fields: dict[str, Field], apply: Callable[[Config], None],
                 check: Callable[[Config], object]):
        self.node, self.config, self.fields, self.apply, self.check = node, config, fields, apply, check
        node.add_on_set_parameters_callback(self.on_change)
        if hasattr(node, 'add_post_set_parameters_callback'):
            node.add_pre_set_parameters_callback(self.on_asked)
            node.add_post_set_parameters_callback(self.on_changed)
        else:  # Humble takes no whole numbers for others and tells nobody what was set: look after the event
            self.wake = node.create_guard_condition(self.apply_what_is_set)

    def on_asked(self, parameters: list[Parameter]) -> list[Parameter]:
        """Replace whole numbers by floats where the parameter is one, before ROS looks at the types."""
        return [Parameter(p.name, value=_as_declared(self.fields[p.name], p.value)) if p.name in self.fields
                and p.type_ in (Parameter.Type.INTEGER, Parameter.Type.INTEGER_ARRAY) else p for p in parameters]

    def with_changes(self, parameters: list[Parameter]) -> tuple[dict[str, Any], Config]:
        """Return (changes, configuration with them); ValueError where they cannot be."""
        mine = [p for p in parameters if p.name in self.fields]
        if removed := [p.name for p in mine if p.type_ is Parameter.Type.NOT_SET]:
            raise ValueError(f'{removed[0]} cannot be removed')
        changes = {p.name: tuple(p.value) if isinstance(self.fields[p.name].default, tuple) else p.value
                   for p in mine}
        if complaints := [c for n, v in changes.items() if (c := _complaint(self.fields[n], v))]:
            raise ValueError(complaints[0])
        return changes, dataclasses.replace(cast(Any, self.config), **changes)

    def on_change(self, parameters: list[Parameter]) -> SetParametersResult:
        """Accept or refuse a change; nothing takes effect yet, somebody else may refuse it."""
        try:
            changes, config = self.with_changes(parameters)
            if changes:
                self.check(config)
        except ValueError as error:  # rqt_reconfigure does not show it
            self.node.get_logger().warning(f'parameter change rejected: {error}')
            return SetParametersResult(successful=False, reason=str(error))
        if changes and hasattr(self, 'wake'):
            self.wake.trigger()
        return SetParametersResult(successful=True)

    def on_changed(self, parameters: list[Parameter]) -> None:
        """Put into effect what was accepted."""
        changes, config = self.with_changes(parameters)
        if changes:
            self.config = config
            self.node.get_logger().info('now ' + ', '.join(f'{n} = {v}' for n, v in changes.items()))
            self.apply(config)

    def apply_what_is_set(self) -> None:
        """Put into effect whatever the parameters hold now."""
        present = [self.node.get_parameter(name) for name in self.fields]
        self.on_changed([p for p in present if self.with_changes([p])[1] != self.config])
