"""What the numbers of a LeRobot feature are, by the names in its metadata."""
import re

import numpy as np
import pyarrow as pa

from vgps_training.data.episode import DataError
from vgps_training.data.naming import words_of

SLOTS = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper')
_SLOT_WORDS = {
    **{f'{prefix}{axis}': axis for axis in 'xyz' for prefix in ('', 'd', 't', 'delta', 'pos')},
    **{f'{axis}pos': axis for axis in 'xyz'},
    **{f'{prefix}{name}': name for name in ('roll', 'pitch', 'yaw') for prefix in ('', 'd', 'delta')},
    **{f'{prefix}{axis}': name for axis, name in zip('xyz', ('roll', 'pitch', 'yaw')) for prefix in ('r', 'rot')},
    **{word: 'gripper' for word in ('gripper', 'grip', 'openness', 'open', 'opening', 'grasp', 'closedness', 'close',
                                    'closed', 'closing')}}
_FILLER = {'action', 'delta', 'd', 'eef', 'ee', 'end', 'effector', 'tcp', 'hand', 'cmd', 'command', 'world', 'vector',
           'translation', 'trans', 'position', 'pos', 'rotation', 'rot', 'orientation', 'rel', 'relative', 'arm',
           'robot', 'state', 'value', 'val', 'motors', 'axes', 'euler',
           'is', 'width', 'cartesian', 'pose', 'angle', 'absolute', 'abs', 'm', 'meters', 'metres', 'rad', 'radians',
           'linear', 'angular'}
# whose hand it is, where an arm has a name
_WHOSE = {'left', 'right', 'main', 'follower', 'leader', 'single', 'bot', 'panda', 'franka', 'ur', 'xarm', 'widowx',
          'wx', 'viperx', 'kinova', 'sawyer', 'iiwa', 'so', 'koch', 'aloha', 'camera', 'cam', 'image', 'pixel'}
# what a name says of the measure, and the option that converts it
_SECOND = '--translation-unit and --rotation-unit with the seconds of a step'
_MEASURES = {'mm': '--translation-unit 0.001', 'cm': '--translation-unit 0.01', 'deg': '--rotation-unit 0.0174533',
             'degree': '--rotation-unit 0.0174533', 'degrees': '--rotation-unit 0.0174533', 'vel': _SECOND,
             'velocity': _SECOND, 'speed': _SECOND}
# of a gripper: a length, an angle or a speed, whose ends no name tells
_NO_OPENNESS = {*_MEASURES, 'm', 'meters', 'metres', 'meter', 'metre', 'rad', 'radians', 'angle', 'torque', 'effort',
                'linear', 'angular'}
NARROW = 0.2  # [m] no gripper of these arms opens wider: a 'width' below it is metres
_JOINTS = {'joint', 'joints', 'waist', 'shoulder', 'elbow', 'forearm', 'wrist', 'finger', 'qpos', 'j', 'base', 'lift',
           'pan', 'flex'}
# what a feature that does not name its numbers one by one calls them
_UNTOLD = {'action', 'actions', 'a', 'act', 'dim', 'dimension', 'value', 'values', 'eef', 'ee', 'delta', 'pose', 'tcp',
           'end', 'effector', 'relative', 'rel', 'cmd', 'command', 'robot', 'vector'}
_TURNS = {'rot', 'rotation', 'orientation', 'euler', 'angular'}
_ABSOLUTE = {'abs', 'absolute', 'target', 'goal', 'next', 'future', 'desired', 'qw', 'quat', 'quaternion', 'qx',
             'qy', 'qz'}



def names(feature: dict) -> list[str]:
    """Return the names of a feature's numbers in order, [] where it has none: list, nested, dict, indexed or null."""
    def flatten(value) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            if value and all(isinstance(v, int) and not isinstance(v, bool) for v in value.values()):
                return [str(key) for key, _ in sorted(value.items(), key=lambda item: item[1])]
            return [text for part in value.values() for text in flatten(part)]
        if isinstance(value, list):
            return [text for part in value for text in flatten(part)]
        return []
    return flatten(feature.get('names') if isinstance(feature, dict) else None)


def slot(name: str) -> str | None:
    """Return which of SLOTS a name means, None where it means none of them."""
    words = words_of(name)
    known = {*_FILLER, *_MEASURES, *_WHOSE, *_SLOT_WORDS}
    for word in reversed(words):  # 'gripper_x' names the axis of a hand, 'x_gripper' does not exist
        if word in _SLOT_WORDS and not (_JOINTS & set(words)):
            if not known.issuperset(words):  # 'tool_x', 'not_open', 'force_x'
                return None
            meant = _SLOT_WORDS[word]
            return SLOTS[3 + SLOTS.index(meant)] if meant in SLOTS[:3] and _TURNS & set(words) else meant
        if word not in _FILLER and word not in _MEASURES:
            return None
    return None


def action_places(feature: dict, width: int, converted: bool = False) -> tuple[list[int], tuple[str, ...], bool]:
    """Return (places of the seven numbers in an action of `width`, notes, whether the gripper is a closedness).

    `converted` tells that the user named the units, which names of other units may then have.
    Raises DataError, naming them, where the names say that these are no end-effector motions.
    """
    given = names(feature)
    if len(given) == width:
        slots = [slot(name) for name in given]
        listed = ', '.join(given[:16])
        joints = [name for name in given
                  if _JOINTS & set(words_of(name)) or re.fullmatch(r'(.*\.)?(motor|joint|j)_?\d+(\.pos)?', name)]
        if len(joints) >= 3 and not set(SLOTS) <= set(slots):
            raise DataError(f'the action is made of joints ({listed}), not of end-effector motions; record motions, '
                            'or convert a bag of the same arm with `vgps-data convert --actions joint_states`')
        if any(_ABSOLUTE & set(words_of(name)) for name in given):
            raise DataError(f'the action is an absolute pose ({listed}), not an end-effector motion')
        for name in given:
            option = next((_MEASURES[word] for word in words_of(name) if word in _MEASURES), '')
            if option and not converted and slot(name) in SLOTS[:6]:
                raise DataError(f'the action is named {name}, which is not in metres and radians per step ({option} '
                                'converts it)')
            if slot(name) == 'gripper' and {'delta', 'rel', 'relative'} & set(words_of(name)):
                raise DataError(f'the gripper is a change by its name ({name}), not an openness 0..1')
            if slot(name) == 'gripper' and _NO_OPENNESS & set(words_of(name)):
                raise DataError(f'the gripper is named {name}: a length, an angle or a speed, not an openness 0..1; '
                                'divide it by what the open gripper reads')
            if {'camera', 'cam', 'image', 'pixel'} & set(words_of(name)):
                raise DataError(f"the action is named {name}: motions in a camera's axes, not in the base's")
        if set(SLOTS) <= set(slots):
            if len([s for s in slots if s]) > len(SLOTS):
                raise DataError(f'the action holds two arms ({listed}); this project steers one')
            places = [slots.index(name) for name in SLOTS]
            gripper = words_of(given[places[6]])
            note = (f"the gripper is called '{given[places[6]]}': taken for an openness, 1 open",) if (
                'grasp' in gripper) else ()
            return places, note, any(word.startswith('clos') for word in gripper)
        if len([s for s in slots if s]) >= 3:
            missing = ', '.join(name for name in SLOTS if name not in slots)
            raise DataError(f'the action is ({listed}): {missing} is missing or has a name that is not known')
    if any(not set(words_of(name)) <= _UNTOLD for name in given):
        raise DataError(f'the action is named {", ".join(given[:16])}, which does not say x y z roll pitch yaw '
                        'gripper: if that is what they are, write it into meta/info.json (features, action, names)')
    if width != len(SLOTS):
        listed = f' ({", ".join(given[:16])})' if given else ''
        raise DataError(f'the action has {width} numbers{listed}, not the seven of an end-effector motion and '
                        'a gripper')
    return list(range(7)), ('the data do not name their actions: taken as x y z roll pitch yaw gripper by their sizes',
                            ), False


def metres_of_gripper(feature: dict, places: list[int], actions: np.ndarray) -> bool:
    """Tell whether the gripper of actions (T, 7), taken from these places, is a width in metres by name and size."""
    given = names(feature)
    return (max(places) < len(given) and 'width' in words_of(given[places[6]])
            and 0 <= actions[:, 6].min() and actions[:, 6].max() < NARROW)


def state_places(feature: dict, width: int) -> tuple[list[int] | None, list[int]]:
    """Return (places of x y z roll pitch yaw openness or None, places of numbers that grow as the gripper opens)."""
    given = names(feature)
    if len(given) != width:
        return None, []
    slots = [None if _MEASURES.keys() & set(words_of(name)) else slot(name) for name in given]
    closed = {i for i, name in enumerate(given) if any(word.startswith('clos') for word in words_of(name))}
    fingers = [i for i, name in enumerate(given) if i not in closed
               and {'gripper', 'finger', 'openness', 'opening'} & set(words_of(name))]
    places = [slots.index(name) for name in SLOTS] if set(SLOTS) <= set(slots) else None
    return (None if places is None or places[6] in closed else places), fingers


def by_axes(feature: dict, places: list[int]) -> bool:
    """Tell whether the turns at these places are named by axes alone (rx ry rz): angles or a rotation vector?"""
    turns = [words_of(names(feature)[place]) for place in places[3:6]]
    return not any({'roll', 'pitch', 'yaw', 'droll', 'dpitch', 'dyaw', 'euler'} & set(words) for words in turns)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of equally long lists of numbers as (T, n) float32; raises DataError for anything else."""
    rows = len(column)
    try:
        flat, kind = column.combine_chunks(), column.type
        width = 1
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            if flat.null_count:
                raise DataError('holds empty cells')
            width, rest = divmod(len(flat.flatten()), max(rows, 1))
            if rest or any(len(cell) != len(flat[0]) for cell in flat):
                raise DataError('holds lists of different lengths')
            flat, kind = flat.flatten(), kind.value_type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)) or flat.null_count:
            raise DataError(f'holds {kind} or empty cells, not numbers')
        with np.errstate(over='ignore'):  # infinity is refused by name
            return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(rows, width)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'cannot be read as numbers: {error}') from error


def vector(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of one number per row as (T,) float64, NaN where a cell is empty; raises DataError."""
    try:
        values = [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in column.to_pylist()]
        return np.array([np.nan if value is None else float(value) for value in values])
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f'cannot be read as numbers: {error}') from error


def outcome(column: pa.ChunkedArray) -> tuple[bool | None, tuple[str, ...]]:
    """Return (success, notes) of an episode's success column: any True is a success, nothing but null is unjudged."""
    values = vector(column)
    if np.isnan(values).all():
        return None, ()
    if not np.isin(values[~np.isnan(values)], (0, 1)).all():
        raise DataError(f'its success is {values[~np.isin(values, (0, 1)) & ~np.isnan(values)][0]:g}, neither true nor '
                        'false')
    if np.nanmax(values) > 0:
        return True, ()
    return False, ('the success column is False throughout: counted as a failure; many recorders never set it',)
