"""Message definitions as text, so that bags explain themselves and are read without ROS.

Definitions come from the ``.msg`` files of the installed packages (comments included: Foxglove shows them and
turns constants into enum names) and from the standard set of ``rosbags``. Type hashes (RIHS01) are computed.

A bag is somebody else's file: what a message says that cannot be is named here too.
"""

import contextlib
import os
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from vgps_msgs_py.vocabulary import Outcome, SteeringReason, TaskFailure

SEPARATOR = '=' * 80
ADDED = '# Fields below were added later'  # in a .msg file: what stands above is what older recordings hold
# The oldest ROS we support; the standard messages used here are the same in every later one.
BASE_STORE = Stores.ROS2_HUMBLE
COMPARED = {'command': 'action', 'decision': 'action', 'candidates': 'actions'}  # part of a step -> what must agree


class UnknownTypeError(LookupError):
    """No definition of a message type is installed; the text says which and where was looked."""


def _share_folders() -> list[Path]:
    """Return the ``share`` folders that may hold packages: of the sourced workspaces, and beside ``vgps_msgs_py``."""
    folders = [Path(prefix) / 'share' for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if prefix]
    try:
        import vgps_msgs_py
        # a plain Python without a sourced workspace still finds our own messages
        parents = Path(vgps_msgs_py.__file__).resolve().parents
        folders += [parent / 'share' for parent in parents]
        folders += [parent.parent for parent in parents if parent.name == 'vgps_msgs']
    except ImportError:
        pass
    return folders


@cache
def _definition_text(type_name: str) -> str | None:
    """Return the text of one ``.msg`` file, or None when it is not installed."""
    package, kind, name = type_name.split('/')
    if kind != 'msg':
        return None  # nothing else is installed under that name: a damaged one
    for share in _share_folders():
        path = share / package / 'msg' / f'{name}.msg'
        if path.is_file():
            return path.read_text(encoding='utf-8')
    return None


@cache
def _parse(type_name: str, text: str, encoding: str) -> dict[str, Any]:
    """Return parsed definitions by name; cached, for every bag repeats them and parsing takes longer than reading."""
    return dict(get_types_from_idl(text) if encoding == 'ros2idl' else get_types_from_msg(text, type_name))


class MessageTypes:
    """Definitions, hashes and deserialisation of the message types of one bag or one recording."""

    def __init__(self) -> None:
        self.store = get_typestore(BASE_STORE)
        self._texts: dict[str, tuple[str, str]] = {}

    def register(self, type_name: str, text: str, encoding: str = 'ros2msg') -> None:
        """Learn a type from the definition stored in a bag (encoding ``ros2msg`` or ``ros2idl``).

        The bag's word counts, not the installed package's: the bytes were written with it. Standard types stay.
        """
        types = _parse(type_name, text, encoding)
        self.store.register({name: value for name, value in types.items() if name not in self.store.fielddefs})

    def require(self, type_name: str) -> None:
        """Make a type known, from the installed packages when the bag does not define it.

        Raises:
            UnknownTypeError: it is not installed either.

        """
        if type_name in self.store.fielddefs:
            return
        text = _definition_text(type_name)
        if text is None:
            raise UnknownTypeError(f"no definition of message type '{type_name}': build and source the package "
                                   f"'{type_name.split('/')[0]}' (looked for its .msg file in AMENT_PREFIX_PATH)")
        types = _parse(type_name, text, 'ros2msg')
        self.store.register(types)
        for dependency in _dependencies(types[type_name]):
            self.require(dependency)

    def definition(self, type_name: str) -> tuple[str, str]:
        """Return ``(definition with its dependencies in ros2msg format, RIHS01 type hash)``.

        Raises:
            UnknownTypeError: the type is not installed.

        """
        if type_name not in self._texts:
            self.require(type_name)
            names, parts = [type_name], list[str]()
            for name in names:
                names += [other for other in _dependencies(self.store.fielddefs[name]) if other not in names]
                text = _definition_text(name)
                if text is None:  # the definition with its dependencies; the first part is the type alone
                    text = self.store.generate_msgdef(name, ros_version=2)[0].split(SEPARATOR)[0]
                package, _, short = name.split('/')
                heading = f'{SEPARATOR}\nMSG: {package}/{short}\n' if parts else ''
                parts.append(heading + text.rstrip())
            self._texts[type_name] = ('\n'.join(parts) + '\n', self.store.hash_rihs01(type_name))
        return self._texts[type_name]

    def deserialize(self, data: bytes, type_name: str) -> Any:
        """Return the message as an object with ROS's field names; arrays are numpy arrays.

        Raises:
            UnknownTypeError: no definition.
            ValueError: the bytes are not such a message.

        """
        self.require(type_name)
        try:
            return self.store.deserialize_cdr(data, type_name)
        except Exception as error:  # generated code on bytes of any origin: there is no list of what it raises
            older = self._older(type_name)
            if older is not None:
                with contextlib.suppress(Exception):
                    return older.deserialize_cdr(data, type_name)
            raise ValueError(f'{len(data)} bytes are not a {type_name}: {error}') from error

    def _older(self, type_name: str) -> Any:
        """Return a store that knows a type without the fields added later, None where none were.

        A recording that holds no definitions (sqlite3, Humble) may be older than the installed package.
        """
        text = _definition_text(type_name)
        if text is None or ADDED not in text:
            return None
        store = get_typestore(BASE_STORE)
        known = {name: value for name, value in self.store.fielddefs.items() if name not in store.fielddefs}
        store.register({**known, **_parse(type_name, text.split(ADDED)[0], 'ros2msg')})
        return store

    def serialize(self, message: Any, type_name: str) -> bytes:
        """Return the CDR bytes of a message object of this store."""
        self.require(type_name)
        return bytes(self.store.serialize_cdr(message, type_name))

    def message_class(self, type_name: str) -> Any:
        """Return the class whose instances ``serialize`` takes."""
        self.require(type_name)
        return self.store.types[type_name]


def _dependencies(definition: Any) -> list[str]:
    """Return the message types a parsed definition refers to, in the order of its fields."""
    found: list[str] = []
    for _name, (_kind, argument) in definition[1]:
        while isinstance(argument, tuple) and not isinstance(argument[0], str):
            argument = argument[0][1]  # an array: its element's description
        if isinstance(argument, str) and '/' in argument and argument not in found:
            found.append(argument)
    return found


def differ(part: str, one: Any, other: Any) -> bool:
    """Tell whether two messages for the same part of the same step would move the arm differently."""
    field = COMPARED.get(part)
    held = any(getattr(message, 'kind', 0) != 0 for message in (one, other))
    if field is None or held:  # a hold may follow an action
        return False
    return not np.array_equal(getattr(one, field), getattr(other, field), equal_nan=True)


def contradiction(type_name: str, message: Any) -> str:
    """Say what in a message cannot be, or nothing."""
    if type_name == 'vgps_msgs/msg/Episode':
        return _unknown('outcome', message.outcome, Outcome)
    if type_name == 'vgps_msgs/msg/TaskState':
        return _unknown('failure', message.failure, TaskFailure)
    if type_name == 'vgps_msgs/msg/ActionCandidates':
        expected = message.num_candidates * max(message.horizon, 1) * 7
        if len(message.actions) != expected:
            return f'{len(message.actions)} numbers are not {message.num_candidates} x {message.horizon} actions'
    if type_name == 'vgps_msgs/msg/SteeringDecision':
        k, values = message.num_candidates, len(message.q_values)
        if values not in (0, k * message.num_members):
            return f'{values} values do not fit {k} candidates and {message.num_members} members'
        if not -1 <= message.chosen < max(k, 1):
            return f'candidate {message.chosen} of {k} was chosen'
        if len(message.stages) != len(message.stage_milliseconds):
            return f'{len(message.stages)} stages took {len(message.stage_milliseconds)} times'
        return _unknown('reason', message.reason, SteeringReason)
    return ''


def _unknown(what: str, code: int, kind: type[IntEnum]) -> str:
    return '' if code in kind._value2member_map_ else f'{what} {code} is unknown to this version'
