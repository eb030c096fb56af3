"""What the fuzzer found, by system and phase."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Findings:
    """What one phase did."""

    thrown: int = 0
    taken: int = 0                  # steps that the controller took
    commands: int = 0               # joint commands seen
    outside: int = 0                # not finite, outside the joint limits or above the joint step
    uncalled: int = 0               # motions where no episode runs and the operator called for none
    errors: int = 0                 # callbacks that raised something new
    deaths: list[str] = field(default_factory=list)
    recovered: float | None = None  # s until a normal step or episode worked again

    @property
    def clean(self):
        """Whether the phase shows what it must."""
        return not (self.outside or self.uncalled or self.errors or self.deaths or self.recovered is None)


def table(found):
    """Return the findings as Markdown."""
    head = ('system', 'phase', 'messages', 'steps taken', 'joint commands', 'outside limits or step',
            'motions uncalled for', 'errors in callbacks', 'deaths', 'works again after')
    rows = [head, ['---'] * len(head)]
    for (name, phase), f in found.items():
        again = 'NEVER' if f.recovered is None else f'{f.recovered:.1f} s'
        deaths = ', '.join(f'{count} × {who}' for who, count in Counter(f.deaths).items()) or '0'
        rows.append((name, phase, f.thrown, f.taken, f.commands, f.outside, f.uncalled, f.errors, deaths, again))
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in row) + ' |' for row in rows)
