"""Make doc/gallery.md and its pictures from one recorded demonstration: every page, as a browser shows it.

    make demo && pip install playwright && python vgps_bringup/workspace/gallery.py runs/demo-20260102-030405

Needs a Chromium on the PATH (apt: chromium). Fails where a page asks the network for something, says something on the
console, or is wider than a telephone.
"""

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDE, NARROW, TALLEST = 1300, 400, 2400  # pixels
ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update']
DOC = Path(__file__).resolve().parents[1] / 'doc'
PAGES = {
    'comparison': ('Two conditions, one scene', 'Written by `make demo`.'),
    'episode': ('One episode', 'Written by `make demo` too, or by `vgps-report BAG`.'),
    'overview': ('All episodes of a folder', '`vgps-report FOLDER`.'),
    'rejudged': ('Recordings judged again', '`vgps-evaluate bag FOLDER --critic default --k 1,5,10 --beta 0,1`.'),
}


def make_pages(run: Path, work: Path) -> dict[str, Path]:
    """Write every page of a demonstration and return them by name."""
    bags = sorted(path.parent for path in run.glob('*/metadata.yaml'))
    if len(bags) < 2 or not (run / 'index.html').is_file():
        sys.exit(f'gallery: {run} is not the folder of a demonstration (make demo writes runs/demo-...)')
    for command in (['vgps-report', str(run)],
                    ['vgps-evaluate', 'bag', *map(str, bags), '--critic', 'default', '--k', '1,5,10', '--beta', '0,1',
                     '--output', str(work / 'rejudged'), '--overwrite']):
        subprocess.run(command, check=True)
    return {'comparison': run / 'index.html', 'episode': bags[-1] / 'report/index.html',
            'overview': run / 'episodes.html', 'rejudged': work / 'rejudged/index.html'}


def shoot(pages: dict[str, Path], pictures: Path) -> list[str]:
    """Take a picture of every page, wide and narrow; return what is wrong with them."""
    pictures.mkdir(parents=True, exist_ok=True)
    wrong = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=ARGUMENTS)
        for name, path in pages.items():
            for width in (WIDE, NARROW):
                page = browser.new_page(viewport={'width': width, 'height': 900})
                page.on('console', lambda m, name=name: wrong.append(f'{name} says on the console: {m.text}'))
                page.on('pageerror', lambda error, name=name: wrong.append(f'{name}: {error}'))
                page.on('request', lambda r, name=name: None if r.url.startswith(('data:', 'file:'))
                        else wrong.append(f'{name} asks for {r.url}'))
                page.goto(path.resolve().as_uri())
                page.wait_for_timeout(500)
                if page.evaluate('document.documentElement.scrollWidth > document.documentElement.clientWidth'):
                    wrong.append(f'{name} is wider than {width} pixels')
                _save(page.screenshot(full_page=True), pictures / f'{name}_{width}.jpg')
                page.close()
        browser.close()
    return wrong


def _save(png: bytes, path: Path) -> None:
    image = Image.open(io.BytesIO(png)).convert('RGB')
    image.crop((0, 0, image.width, min(image.height, TALLEST))).save(path, quality=78, optimize=True)


def write_page(run: Path) -> None:
    """Write the page that shows them."""
    lines = ['# Gallery', '', 'Every page that a recorded run gives, as Chromium shows it: 1300 pixels wide, and 400',
             'as on a telephone. The pages hold everything they show, fetch nothing and run no script. Made by',
             '`python vgps_bringup/workspace/gallery.py RUN` from one `make demo`.', '']
    for name, (title, command) in PAGES.items():
        lines += [f'## {title}', '', command, '', f'![{title}, wide](gallery/{name}_{WIDE}.jpg)', '',
                  '<details><summary>400 pixels wide</summary>', '',
                  f'![{title}, narrow](gallery/{name}_{NARROW}.jpg)', '', '</details>', '']
    (DOC / 'gallery.md').write_text('\n'.join(lines).rstrip() + '\n')


def main() -> None:
    """Make all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, help='folder that make demo wrote')
    run = parser.parse_args().run
    wrong = shoot(make_pages(run, run), DOC / 'gallery')
    write_page(run)
    if wrong:
        sys.exit('gallery: ' + '\n  '.join(sorted(set(wrong))))
    print(f'{DOC / "gallery.md"}: {len(PAGES)} pages, nothing fetched, nothing on the console')


if __name__ == '__main__':
    main()
