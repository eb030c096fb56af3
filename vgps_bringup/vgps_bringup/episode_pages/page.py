"""Self-contained HTML from the files in ``templates``: styles, images and videos inside, no script, nothing fetched.

Every text is escaped by the template engine: a bag, a stage or a critic may be called anything. Only what
``plots.svg`` draws goes in as it is.
"""

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vgps_bringup.episode_pages.provenance import made

LARGEST_INLINE_VIDEO = 24_000_000  # bytes; a larger one is linked instead


@dataclass(frozen=True)
class Table:
    """Cells: numbers (right-aligned), texts, None (a dash), an ``Outcome`` or a ``Link``; ``strong`` rows are bold."""

    head: tuple[str, ...]
    rows: list[tuple]
    strong: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A coloured word."""

    name: str


@dataclass(frozen=True)
class Link:
    """A reference to a file of the report, by its relative path."""

    target: str
    text: str


def _figure(value) -> str:
    if value is None or value != value:
        return '–'
    return f'{value:,.2f}' if isinstance(value, float) else str(value)


def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / 'templates'), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters['figure'] = _figure
    environment.tests['link'] = lambda value: isinstance(value, Link)
    environment.tests['outcome'] = lambda value: isinstance(value, Outcome)
    return environment


ENVIRONMENT = _environment()


def write(path: Path, template: str, **values) -> None:
    """Render a template, e.g. ``episode``, into a file."""
    values = {'provenance': {}, **values}
    values['provenance'] = {**values['provenance'], **made()}
    # half a surrogate pair, which a damaged text may hold, cannot be written
    path.write_bytes(ENVIRONMENT.get_template(f'{template}.html').render(**values).encode(errors='replace'))


def video(path: Path) -> str:
    """Return the source of a video element; the file itself unless it is very large."""
    if path.stat().st_size > LARGEST_INLINE_VIDEO:
        return quote(path.name)
    return 'data:video/mp4;base64,' + b64encode(path.read_bytes()).decode()


def jpeg(path: Path) -> str:
    """Return the source of an image element."""
    return 'data:image/jpeg;base64,' + b64encode(path.read_bytes()).decode()
