"""What all commands share: a dataclass or a function defines the options, and every failure is one sentence.

    options = command_line.read(Collect, 'vgps-collect')
    with command_line.refusing('vgps-collect', ValueError, OSError):
        collect(options)

Needs tyro, which the packages that have commands require.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

Options = TypeVar('Options')
WRONG = 2  # exit status of a call that cannot be done


def read(kind: type[Options] | Callable[..., Options], command: str, words: Sequence[str] | None = None,
         description: str | None = None) -> Options:
    """Return what was typed, as `kind`; a wrong word, or --help, ends the program.

    Args:
        kind: dataclass whose fields are the options, or a function that is called with them.
        command: its name.
        words: what was typed; None: what this program was called with.
        description: first lines of --help; None: the docstring of `kind`.

    """
    import tyro
    for stream in (sys.stdout, sys.stderr):    # a terminal that has no letter for a name or a dash must not end us
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    result: Options = tyro.cli(kind, prog=command, args=words, description=description,
                               config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes))
    return result


def refuse(command: str, reason: Any) -> NoReturn:
    """End the program with one sentence and exit status 2."""
    text = f'{command}: {reason}'
    print(text, file=sys.stderr)
    end = SystemExit(text)
    end.code = WRONG
    raise end


@contextlib.contextmanager
def refusing(command: str, *kinds: type[Exception], stopped: str = 'stopped') -> Iterator[None]:
    """End the program with one sentence where its body raises one of these, and with `stopped` at Ctrl-C."""
    try:
        yield
    except kinds as error:
        refuse(command, error)
    except KeyboardInterrupt:
        print(f'\n{command}: {stopped}', file=sys.stderr)
        sys.exit(130)
