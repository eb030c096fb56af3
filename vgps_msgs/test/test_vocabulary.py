"""One vocabulary: the constants of the .msg files, by name and number, defined nowhere else."""
import re
from pathlib import Path

import pytest

from vgps_msgs_py import vocabulary
from vgps_msgs_py.vocabulary import (
    FAILURE_MODES,
    HEALTHY,
    PASSING,
    ArmState,
    CommandKind,
    ControllerReason,
    Outcome,
    SteeringReason,
    TaskFailure,
    Verdict,
)

PACKAGE = Path(__file__).resolve().parents[1]
# message -> field -> the enumeration that spells its constants
FIELDS = {'Episode': {'outcome': Outcome}, 'EndEffectorCommand': {'kind': CommandKind},
          'SteeringDecision': {'verdict': Verdict, 'reason': SteeringReason},
          'ControllerState': {'state': ArmState, 'reason': ControllerReason}, 'TaskState': {'failure': TaskFailure}}


def constants(message):
    """Return field -> its constants, which follow it in the file."""
    found, field = {}, None
    for line in (PACKAGE / 'msg' / f'{message}.msg').read_text().splitlines():
        if constant := re.match(r'uint8 ([A-Z_0-9]+)\s*=\s*(\d+)', line):
            found.setdefault(field, {})[constant[1]] = int(constant[2])
        elif declared := re.match(r'[\w/\[\]]+ (\w+)', line):
            field = declared[1]
    return found


@pytest.mark.parametrize('message', sorted(path.stem for path in (PACKAGE / 'msg').glob('*.msg')))
def test_every_constant_of_a_message_is_in_the_vocabulary(message):
    assert constants(message) == {field: {member.name: member.value for member in kind}
                                  for field, kind in FIELDS.get(message, {}).items()}


def test_every_failure_and_reason_has_its_place():
    assert set(FAILURE_MODES) == set(TaskFailure)
    assert not HEALTHY & PASSING


def test_a_number_of_a_newer_peer_stays_a_number():
    assert vocabulary.words(SteeringReason, SteeringReason.FRAME_MISSING) == 'frame missing'
    assert vocabulary.name(SteeringReason, 200) == 'SteeringReason_200'


def test_nobody_spells_the_vocabulary_again():
    """Enumerations of these names, and lists of their words, stand in one file of the workspace."""
    kinds = [{member.name for member in kind if '_' in member.name} for fields in FIELDS.values()
             for kind in fields.values()]
    for path in sorted(PACKAGE.parent.rglob('*.py')):
        parts = path.relative_to(PACKAGE.parent).parts
        if path.name == 'vocabulary.py' or {'test', 'build', 'install', '.venv'} & set(parts):
            continue
        text = path.read_text(encoding='utf-8')
        spelt = set(re.findall(r'^ +([A-Z][A-Z_]+) = \d+$', text, re.MULTILINE))
        spelt |= {phrase.upper().replace(' ', '_') for phrase in re.findall(r"'([a-z]+(?: [a-z]+)+)'", text)}
        again = [names & spelt for names in kinds if len(names & spelt) > len(names) / 2]  # fewer are a sentence
        assert not again, f'{path}: {again} belongs to vgps_msgs_py/vocabulary.py'
