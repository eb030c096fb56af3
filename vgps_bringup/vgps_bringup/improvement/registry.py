"""A folder of critics with their lineage, one of which steers: what each was trained from, who judged it, and why.

    critics/
      current.json          which one steers, and every promotion and rollback so far
      3f2a9c81d04e/         one critic, named by its content hash: checkpoint, outlook and lineage.json

Only files, so git and the Hugging Face hub can hold it. ``critic:=critics`` makes the robot steer with the current one
(`vgps_critic.checkpoint` follows ``current.json``). What the gate refused is here, too, with its reasons: only an
operator's override makes it the current one. A critic appears by one rename when it is complete, and
``current.json`` is replaced in one step: a kill at any instant leaves the old current critic or the new one.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from vgps_critic import checkpoint
from vgps_critic.checkpoint import CURRENT, CheckpointError
from vgps_critic.outlook import FILE
from vgps_critic.whole_files import sync, whole
from vgps_msgs_py.safetensors_header import UntrustedFileError, read_json

LINEAGE = 'lineage.json'
SHORT = 12  # hex digits of a hash that name a folder


class RegistryError(ValueError):
    """The registry cannot do what was asked; the text says why and what to do."""


@dataclass(frozen=True)
class Lineage:
    """Where a critic comes from and what it was found to be worth."""

    parent: str = ''                                # hash of the critic it was trained from, empty: from nothing
    created: str = ''                               # UTC, ISO 8601
    code: str = ''                                  # version of this software
    bags: tuple[dict, ...] = ()                     # name, sha256, episodes, successes of every recording used
    judged_by: tuple[str, ...] = ()                 # who said success or failure
    recipe: dict = field(default_factory=dict)      # settings of the training
    metrics: dict = field(default_factory=dict)     # on held-out episodes
    accepted: bool = False                          # by the gate
    reasons: tuple[str, ...] = ()                   # the gate's, in words
    earlier: tuple[dict, ...] = ()                  # verdicts that this one replaced: created, code, reasons

    @classmethod
    def from_dict(cls, values: dict) -> 'Lineage':
        """Build from JSON; what a newer version added is left out."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        for name in ('bags', 'judged_by', 'reasons', 'earlier'):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


@dataclass(frozen=True)
class Entry:
    """One critic of a registry."""

    hash: str
    folder: Path
    lineage: Lineage

    @property
    def name(self) -> str:
        """Return the short name: the first digits of the hash."""
        return self.hash[:SHORT]


class Registry:
    """The critics in one folder, made when the first is added."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def add(self, critic: Path | str, lineage: Lineage) -> Entry:
        """Copy a complete critic folder in, with its lineage, accepted or not.

        One that is there already is returned as it is if it was accepted; otherwise it gets the new verdict and
        outlook, and the verdict before is kept in ``Lineage.earlier``.

        Raises:
            CheckpointError: it does not load. RegistryError: it is there with another outlook and was accepted or
                promoted, so this outlook stays.

        """
        source = checkpoint.locate(str(critic))
        digest = checkpoint.read(source)[2]
        target = self.root / digest[:SHORT]
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if target.exists():
                self._judge_again(self._entry(target), source, lineage)
                return self._entry(target)
            for leftover in self.root.glob('.adding-*'):
                shutil.rmtree(leftover)
            temporary = self.root / f'.adding-{digest[:SHORT]}'
            shutil.copytree(source, temporary)
            (temporary / LINEAGE).write_text(_text(digest, lineage))
            for path in temporary.iterdir():
                sync(path)
            sync(temporary)
            temporary.replace(target)
            sync(self.root)
        return self._entry(target)

    def entries(self) -> list[Entry]:
        """Return every critic, the oldest first."""
        found = [self._entry(path.parent) for path in self.root.glob(f'[0-9a-f]*/{LINEAGE}')]
        return sorted(found, key=lambda entry: (entry.lineage.created, entry.hash))

    def get(self, name: str) -> Entry:
        """Return the critic whose hash begins with ``name``, or the ``current`` one.

        Raises:
            RegistryError: none or several.

        """
        if name == 'current':
            entry = self.current()
            if entry is None:
                raise RegistryError(f'{self.root}: no critic has been promoted yet')
            return entry
        found = [entry for entry in self.entries() if name and entry.hash.startswith(name)]
        if len(found) != 1:
            known = ', '.join(entry.name for entry in self.entries()) or 'none'
            raise RegistryError(f'{self.root}: {len(found)} critics are called {name!r}; there are: {known}')
        return found[0]

    def current(self) -> Entry | None:
        """Return the critic that steers, None where none was promoted yet."""
        state = self._state()
        return self._entry(self.root / state['current'][:SHORT]) if state['current'] else None

    def history(self) -> list[dict]:
        """Return every promotion and rollback, the oldest first: hash, action, at, by, reason."""
        return self._state()['history']

    def promote(self, name: str, by: str, override: str = '') -> Entry:
        """Make a critic the current one.

        Args:
            name: as in ``get``.
            by: who decided.
            override: why one is promoted that the gate has not accepted; kept in the history.

        Raises:
            RegistryError: not accepted by the gate and no ``override``. CheckpointError: it is damaged.

        """
        entry = self.get(name)
        if not entry.lineage.accepted and not override:
            reasons = '; '.join(entry.lineage.reasons) or 'it was never judged'
            raise RegistryError(f'{entry.name} was not accepted by the gate ({reasons}); '
                                '--override REASON promotes it all the same')
        return self._set(entry, 'promote', by, override)

    def rollback(self, by: str, reason: str = '') -> Entry:
        """Go back to the critic that was current before the last promotion that has not been taken back.

        Raises:
            RegistryError: there is none.

        """
        stack = []
        for change in self.history():
            stack.append(change['hash']) if change['action'] == 'promote' else stack.pop()
        if len(stack) < 2:
            raise RegistryError(f'{self.root}: there is no previous critic to roll back to')
        return self._set(self.get(stack[-2]), 'rollback', by, reason)

    def _judge_again(self, present: Entry, source: Path, lineage: Lineage) -> None:
        before, outlook = present.lineage, _outlook(source)
        same = outlook == _outlook(present.folder)
        promoted = any(change['hash'] == present.hash for change in self.history())
        if not same and (before.accepted or promoted):
            raise RegistryError(f'{present.folder} is this critic already, with another outlook, and was '
                                f'{"accepted" if before.accepted else "promoted"}: move the folder away to add it with '
                                'the new one')
        if before.accepted or (same and _verdict(before) == _verdict(lineage)):
            return
        if not same and outlook:
            with whole(present.folder / FILE) as temporary:
                temporary.write_bytes(outlook)
        elif not same:
            (present.folder / FILE).unlink()
        earlier = {'created': before.created, 'code': before.code, 'reasons': before.reasons}
        with whole(present.folder / LINEAGE) as temporary:  # last: a kill before leaves a critic that is not accepted
            temporary.write_text(_text(present.hash, replace(lineage, earlier=(*before.earlier, earlier))))

    def _set(self, entry: Entry, action: str, by: str, reason: str) -> Entry:
        if checkpoint.read(entry.folder)[2] != entry.hash:  # nothing damaged becomes current
            raise CheckpointError(f'{entry.folder} holds another critic than its lineage says')
        with self._lock():
            state = self._state()
            change = {'hash': entry.hash, 'action': action, 'at': _now(), 'by': by, 'reason': reason}
            state = {'current': entry.name, 'history': [*state['history'], change]}
            with whole(self.root / CURRENT) as temporary:
                temporary.write_text(json.dumps(state, indent=1) + '\n')
        return entry

    def _state(self) -> dict:
        path = self.root / CURRENT
        if not path.exists():
            return {'current': '', 'history': []}
        try:
            state = read_json(path)
            return {'current': state['current'] + '', 'history': [*state['history']]}
        except (UntrustedFileError, KeyError, TypeError) as error:
            raise RegistryError(f'{path} is damaged ({error}): restore it, or remove it and promote again') from error

    def _entry(self, folder: Path) -> Entry:
        try:
            values = json.loads((folder / LINEAGE).read_text())    # its figures may be NaN
            return Entry(values['hash'], folder, Lineage.from_dict(values))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RegistryError(f'{folder / LINEAGE} cannot be read: {error}') from error

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep two commands from changing the folder at once; a killed one leaves no lock behind."""
        with (self.root / '.lock').open('w') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def differences(first: Entry, second: Entry) -> list[str]:
    """Return in lines what changed from one critic to another: data, recipe, metrics."""
    a, b = first.lineage, second.lineage
    lines = [f'{second.name} was trained from {b.parent[:SHORT] or "nothing"}, {first.name} from '
             f'{a.parent[:SHORT] or "nothing"}']
    mine, other = ({bag['sha256']: bag for bag in lineage.bags} for lineage in (a, b))
    lines += [f'+ bag {other[key]["name"]}: {other[key]["episodes"]} episodes' for key in other if key not in mine]
    lines += [f'- bag {mine[key]["name"]}: {mine[key]["episodes"]} episodes' for key in mine if key not in other]
    for title, before, after in (('recipe', a.recipe, b.recipe), ('metric', a.metrics, b.metrics)):
        lines += [f'{title} {key}: {_short(before.get(key))} -> {_short(after.get(key))}'
                  for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    return lines


def _text(digest: str, lineage: Lineage) -> str:
    return json.dumps({'hash': digest, **asdict(replace(lineage, created=lineage.created or _now()))}, indent=1) + '\n'


def _verdict(lineage: Lineage) -> str:
    return json.dumps([lineage.accepted, lineage.reasons, lineage.bags])


def _outlook(folder: Path) -> bytes:
    return (folder / FILE).read_bytes() if (folder / FILE).exists() else b''


def _short(value) -> str:
    return f'{value:.4g}' if isinstance(value, float) else 'none' if value is None else str(value)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='seconds')
