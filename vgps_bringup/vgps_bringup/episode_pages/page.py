"""One self-contained HTML file: styles, pictures and videos inside, no script, nothing fetched."""

from base64 import b64encode
from html import escape
from pathlib import Path

LARGEST_INLINE_VIDEO = 24_000_000  # bytes; a larger one is linked instead

STYLE = '''
:root { color-scheme: light; --ink: #1d2430; --faint: #667085; --line: #e3e7ee; --orange: #f08c00; --blue: #3b6fb6; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; color: var(--ink); margin: 0;
       background: #f5f7fa; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 25px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0 0 12px; }
h1, h2, h3 { overflow-wrap: anywhere; } h3 { font-size: 14px; margin: 14px 0 4px; color: var(--faint); }
p { margin: 0 0 10px; } .faint { color: var(--faint); } .small { font-size: 13px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 16px 0; }
video, svg, img.wide { width: 100%; height: auto; border-radius: 6px; display: block; } video { background: #181c24; }
div.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; } td.number, th.number { text-align: right; }
td.figures { white-space: nowrap; }
tr.strong td { font-weight: 600; }
.tag { display: inline-block; border-radius: 6px; padding: 2px 10px; font-weight: 700; font-size: 13px; color: #fff;
       background: #667085; vertical-align: 3px; text-transform: uppercase; letter-spacing: .03em; }
.tag.success { background: #2f9e5b; } .tag.failure { background: #d6453d; }
.tag.timeout, .tag.aborted, .tag.cancelled { background: #b97800; }
video.narrow { max-width: 760px; margin: 0 auto; }
.notice { border-left: 4px solid var(--orange); background: #fff7e8; padding: 10px 14px; border-radius: 6px;
          margin: 14px 0 0; }
.cards { display: flex; gap: 12px; flex-wrap: wrap; margin-top: 14px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 10px 16px; flex: 1 1 130px; }
.card b { display: block; font-size: 20px; } .card span { color: var(--faint); font-size: 13px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; }
figure { margin: 0; } figcaption { font-size: 13px; color: var(--faint); padding-top: 4px; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; font-size: 12px; margin: 0; max-height: 260px; overflow: auto; }
'''


def page(title: str, *parts: str) -> str:
    """Return the whole document."""
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<link rel="icon" href="data:,">'  # browsers ask for an icon otherwise
            f'<style>{STYLE}</style></head><body><main>\n' + '\n'.join(parts) + '\n</main></body></html>\n')


def section(title: str, *content: str) -> str:
    """Return a titled box."""
    return f'<section><h2>{escape(title)}</h2>' + '\n'.join(content) + '</section>'


def tag(outcome: str) -> str:
    """Return a coloured word."""
    return f'<span class="tag {escape(outcome)}">{escape(outcome)}</span>'


def cards(facts: dict[str, str]) -> str:
    """Return large figures with small captions: caption -> figure."""
    return '<div class="cards">' + ''.join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(caption)}</span></div>'
        for caption, value in facts.items()) + '</div>'


def table(head: tuple[str, ...], rows: list[tuple], strong: tuple[int, ...] = ()) -> str:
    """Return a table; numbers are right-aligned, text is escaped, ``strong`` rows are bold."""
    def cell(value, kind='td'):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        text = '–' if value is None or value != value else f'{value:,.2f}' if isinstance(value, float) else str(value)
        text = text if text.startswith('<span class="tag') or text.startswith('<a ') else escape(text)
        style = ' class=number' if number else ' class=figures' if '[' in text else ''  # [an interval] stays in a line
        return f'<{kind}{style}>{text}</{kind}>'

    numeric = [bool(rows) and isinstance(rows[0][i], (int, float)) for i in range(len(head))]
    top = ''.join(f'<th{" class=number" if n else ""}>{escape(h)}</th>' for h, n in zip(head, numeric))
    body = ''.join(f'<tr{" class=strong" if i in strong else ""}>' + ''.join(map(cell, row)) + '</tr>'
                   for i, row in enumerate(rows))
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def notice(text: str) -> str:
    """Return a remark that is not to be missed."""
    return f'<div class="notice">{escape(text)}</div>'


def video(path: Path, narrow: bool = False) -> str:
    """Return a video element; the file is inside the page unless it is very large."""
    if path.stat().st_size > LARGEST_INLINE_VIDEO:
        source = escape(path.name)
    else:
        source = 'data:video/mp4;base64,' + b64encode(path.read_bytes()).decode()
    return (f'<video controls autoplay muted loop playsinline preload="metadata"{" class=narrow" if narrow else ""} '
            f'src="{source}"></video>')
