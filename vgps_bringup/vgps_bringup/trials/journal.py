"""An append-only record of finished trials that survives kill -9, power loss and a second start.

One JSON object per line, forced to the disk before the next trial starts. What has no line has not happened.
"""

import fcntl
import json
import os
from pathlib import Path

from vgps_critic.whole_files import sync


class JournalError(RuntimeError):
    """The journal cannot be used; the text says why and what to do."""


class Journal:
    """Opens or creates a journal and holds its lock while it is open.

    Raises:
        JournalError: another process writes to it, it belongs to another study, or it is damaged inside.

    """

    def __init__(self, path: Path | str, study: dict):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open('a+b')
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(f'{self.path} is in use by another process: wait for it or stop it') from error
        self._drop_torn_line()
        lines = read_lines(self.path)
        if not lines:
            self._append({'event': 'study', **study})
            lines = [{'event': 'study', **study}]
            sync(self.path.parent)
        began = {key: value for key, value in lines[0].items() if key != 'event'}
        wanted = json.loads(json.dumps(study))  # tuples become lists, as in the file
        # what an older journal does not say counts as the same
        changed = sorted(key for key in {*began, *wanted} if began.get(key, wanted.get(key)) != wanted.get(key))
        if changed:
            raise JournalError(f'{self.path} belongs to another study ({", ".join(changed)} differ): choose another '
                               '--output, or repeat the first call to resume')
        self.results = {line['trial']: line for line in lines[1:]}

    def record(self, trial: str, result: dict) -> None:
        """Append the result of a trial; it is on the disk when this returns.

        Raises:
            JournalError: the trial has a result already.

        """
        if trial in self.results:
            raise JournalError(f'trial {trial} has been recorded already')
        line = {'event': 'finished', 'trial': trial, **result}
        self._append(line)
        self.results[trial] = line

    def _append(self, line: dict) -> None:
        self._file.write(json.dumps(line).encode() + b'\n')
        self._file.flush()
        os.fsync(self._file.fileno())

    def _drop_torn_line(self) -> None:
        """Cut off what a kill left behind the last complete line."""
        self._file.seek(0)
        data = self._file.read()
        end = data.rfind(b'\n') + 1
        if end < len(data):
            self._file.truncate(end)
            os.fsync(self._file.fileno())
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def __enter__(self) -> 'Journal':
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_lines(path: Path) -> list[dict]:
    """Return the complete lines of a journal.

    Raises:
        JournalError: a line is not JSON.

    """
    lines = []
    for number, text in enumerate(path.read_bytes().split(b'\n')[:-1], 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise JournalError(f'{path}, line {number} is damaged: restore it or remove the line') from error
    return lines
