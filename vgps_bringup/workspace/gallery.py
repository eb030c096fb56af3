"""Make doc/gallery.md and its images: every page that the commands write, as a browser shows it."""

import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from tyro.conf import Positional

from vgps_msgs_py import command_line

WIDE, NARROW, TALLEST = 1300, 400, 2400  # pixels
LARGEST = 150_000  # bytes of a picture
ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update']
DOC = Path(__file__).resolve().parents[1] / 'doc'
PAGES = {
    'comparison': ('Two conditions, one scene', 'Written by `make demo`.'),
    'episode': ('One episode', 'Written by `make demo`, and by `vgps-report BAG`.'),
    'overview': ('All episodes of a folder', '`vgps-report FOLDER`.'),
    'rejudged': ('Recordings scored again', '`vgps-evaluate bag FOLDER --critic default --k 1,5,10 --beta 0,1`.'),
    'trials': ('Trials', '`vgps-evaluate trials --critic default`.'),
    'improvement': ('A critic from a robot\'s own episodes', '`vgps-improve BAGS --heads keep`: an outlook for the '
                    'shipped critic, calibrated on 120 simulated trials.'),
    'training': ('Values during training', 'Written by `vgps-train` at each validation: here, a critic for one SIMPLER '
                 'task after 6000 updates on 120 episodes.'),
}


@dataclass
class Gallery:
    """Make doc/gallery.md and its images. A page whose folder is not given keeps its images.

    Example: python vgps_bringup/workspace/gallery.py runs/demo-20260102-030405 --trials trials

    Needs pip install playwright, and a Chromium on the PATH (apt: chromium). Exit status 2 where a page
    fetches something from the network, logs something on the console, or is wider than a phone.
    """

    run: Positional[Path | None] = None
    """folder that make demo wrote"""
    trials: Path | None = None
    """folder that vgps-evaluate trials wrote"""
    improvement: Path | None = None
    """folder with the report that vgps-improve wrote"""
    training: Path | None = None
    """folder of a run of vgps-train"""


def make_pages(run: Path) -> dict[str, Path]:
    """Write every page of a demonstration and return them by name."""
    bags = sorted(path.parent for path in run.glob('*/metadata.yaml'))
    if len(bags) < 2 or not (run / 'index.html').is_file():
        raise ValueError(f'{run} is not the folder of a demonstration (make demo writes runs/demo-...)')
    for command in (['vgps-report', str(run)],
                    ['vgps-evaluate', 'bag', *map(str, bags), '--critic', 'default', '--k', '1,5,10', '--beta', '0,1',
                     '--output', str(run / 'rejudged'), '--overwrite']):
        subprocess.run(command, check=True)
    return {'comparison': run / 'index.html', 'episode': bags[-1] / 'report/index.html',
            'overview': run / 'episodes.html', 'rejudged': run / 'rejudged/index.html'}


def shoot(pages: dict[str, Path], pictures: Path) -> list[str]:
    """Take a picture of every page, wide and narrow, and print it; return what is wrong with them."""
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
                _save(Image.open(io.BytesIO(page.screenshot(full_page=True))), pictures / f'{name}_{width}.jpg')
                if width == WIDE:
                    page.pdf(path=path.with_suffix('.pdf'), format='A4')
                    print(f'{name}, printed: {path.with_suffix(".pdf")}')
                page.close()
        browser.close()
    return wrong


def _save(image: Image.Image, path: Path) -> None:
    image = image.convert('RGB').crop((0, 0, image.width, min(image.height, TALLEST)))
    for quality in range(78, 10, -4):
        image.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST:
            break


def write_page() -> None:
    """Write the page that shows them."""
    lines = ['# Gallery', '', 'Every page that the commands write, as Chromium shows it 1300 pixels wide, and 400 as',
             'on a phone. The pages are self-contained: they fetch nothing and run no script. Made from one',
             '`make demo` and the folders given, by `python vgps_bringup/workspace/gallery.py RUN`.', '']
    for name, (title, command) in PAGES.items():
        if not (DOC / 'gallery' / f'{name}_{WIDE}.jpg').exists():
            continue
        lines += [f'## {title}', '', command, '', f'![{title}, wide](gallery/{name}_{WIDE}.jpg)', '']
        if (DOC / 'gallery' / f'{name}_{NARROW}.jpg').exists():
            lines += ['<details><summary>400 pixels wide</summary>', '',
                      f'![{title}, narrow](gallery/{name}_{NARROW}.jpg)', '', '</details>', '']
    (DOC / 'gallery.md').write_text('\n'.join(lines).rstrip() + '\n')


def main() -> None:
    """Make all of it."""
    options = command_line.read(Gallery, 'gallery')
    with command_line.refusing('gallery', OSError, ValueError, subprocess.CalledProcessError):
        pages = make_pages(options.run) if options.run else {}
        pages |= {name: folder / 'index.html' for name, folder in (
            ('trials', options.trials), ('improvement', options.improvement)) if folder}
        wrong = shoot(pages, DOC / 'gallery')
        if options.training:
            _save(Image.open(max(options.training.glob('values_*.png'))), DOC / 'gallery' / f'training_{WIDE}.jpg')
        write_page()
        if wrong:
            raise ValueError('; '.join(sorted(set(wrong))))
    print(f'{DOC / "gallery.md"}: {len(pages)} pages, nothing fetched, nothing on the console')


if __name__ == '__main__':
    main()
