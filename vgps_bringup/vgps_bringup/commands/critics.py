"""List critics with their origin, see which one steers, promote another one or roll back.

vgps-critics list                          # in ./critics; --registry FOLDER for another
vgps-critics promote 3f2a9c81d04e
vgps-run robot critic:=critics             # the current one steers
vgps-critics which runs/EPISODE            # which critic chose in this recording?
"""

import argparse
import getpass
import json
import sys
from pathlib import Path

from vgps_bringup.improvement.registry import Entry, Registry, RegistryError, differences
from vgps_critic import checkpoint
from vgps_critic.checkpoint import CheckpointError


def list_critics(registry: Registry, _options) -> None:
    """Print one line per critic."""
    current = registry.current()
    for entry in registry.entries():
        lineage = entry.lineage
        episodes = sum(bag['episodes'] for bag in lineage.bags)
        print(f'{"*" if current and entry.hash == current.hash else " "} {entry.name}  {lineage.created[:16]}  from '
              f'{lineage.parent[:12] or "nothing":12}  {episodes:5d} episodes  '
              f'{"accepted" if lineage.accepted else "refused" if lineage.reasons else "not judged"}')


def show(registry: Registry, options) -> None:
    """Print everything that is known of one critic."""
    entry = registry.get(options.critic)
    print(f'critic {entry.hash}\nfolder {entry.folder}')
    print(json.dumps({name: value for name, value in vars(entry.lineage).items()}, indent=1))
    for change in registry.history():
        if change['hash'] == entry.hash:
            print(f'{change["action"]} at {change["at"]} by {change["by"]}: {change["reason"] or "no reason given"}')


def diff(registry: Registry, options) -> None:
    """Print what changed from one critic to another."""
    for line in differences(registry.get(options.first), registry.get(options.second)):
        print(line)


def promote(registry: Registry, options) -> None:
    """Let a critic steer."""
    _say(registry.promote(options.critic, options.by, options.override), 'steers from the next start of critic_node on')


def rollback(registry: Registry, options) -> None:
    """Let the one before steer again."""
    _say(registry.rollback(options.by, options.reason), 'steers again from the next start of critic_node on')


def which(registry: Registry, options) -> None:
    """Print which critics chose in recordings."""
    from vgps_msgs_py.bags.reader import Bag
    known = {entry.hash: entry for entry in registry.entries()}
    for path in options.bags:
        hashes = {step.decision.critic_hash for episode in Bag(path).episodes for step in episode.steps
                  if step.decision is not None}
        for digest in sorted(hashes):
            name = known[digest].name if digest in known else f'{digest[:12]}, not in this registry'
            print(f'{path}: {name if digest else "none, the plain policy"}')


def push(registry: Registry, options) -> None:
    """Publish one critic with its card, lineage and outlook on the Hugging Face hub."""
    entry = registry.get(options.critic)
    checkpoint.read(entry.folder)  # verifies the hash: nothing damaged is published
    for path in sorted(entry.folder.iterdir()):
        print(f'{path.name}: {path.stat().st_size / 1e6:.2f} MB')
    if options.dry_run:
        print('dry run: nothing was uploaded')
        return
    from huggingface_hub import HfApi
    hub = HfApi()
    hub.create_repo(options.repository, private=options.private, exist_ok=True)
    hub.upload_folder(folder_path=entry.folder, repo_id=options.repository)


def _say(entry: Entry, words: str) -> None:
    print(f'{entry.name} {words}')


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog='vgps-critics', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--registry', type=Path, default=Path('critics'), help='folder of critics')
    commands = parser.add_subparsers(dest='command', required=True)

    def command(function, text: str, *names: str) -> argparse.ArgumentParser:
        added = commands.add_parser(function.__name__.removesuffix('_critics'), help=text)
        for name in names:
            added.add_argument(name, help="first digits of its hash, or 'current'")
        added.set_defaults(run=function)
        return added

    command(list_critics, 'every critic; * is the current one')
    command(show, 'lineage, metrics, promotions', 'critic')
    command(diff, 'what changed from one critic to another', 'first', 'second')
    command(promote, 'let a critic steer', 'critic')
    command(rollback, 'let the one before steer again')
    for added in (commands.choices['promote'], commands.choices['rollback']):
        added.add_argument('--by', default=getpass.getuser(), help='who decides')
    commands.choices['promote'].add_argument('--override', default='', metavar='REASON',
                                             help='promote what the gate has not accepted, and why')
    commands.choices['rollback'].add_argument('--reason', default='', help='why, for the history')
    command(which, 'which critic chose in recordings').add_argument('bags', nargs='+', type=Path)
    published = command(push, 'publish on the Hugging Face hub', 'critic')
    published.add_argument('repository', help='owner/name')
    published.add_argument('--private', action='store_true', help='make the repository private when it is created')
    published.add_argument('--dry-run', action='store_true', help='list the files, touch no network')
    options = parser.parse_args()
    try:
        options.run(Registry(options.registry), options)
    except (RegistryError, CheckpointError, OSError, ValueError) as error:
        sys.exit(f'vgps-critics {options.command}: {error}')


if __name__ == '__main__':
    main()
