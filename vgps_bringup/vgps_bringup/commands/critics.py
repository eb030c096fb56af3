"""``vgps-critics``: what is in a registry of critics, which of them steers, and which one steered."""

import getpass
import json
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from vgps_bringup.commands import checks
from vgps_bringup.improvement.registry import Entry, Registry, RegistryError, differences
from vgps_critic import checkpoint
from vgps_critic.checkpoint import CheckpointError
from vgps_msgs_py import command_line


def _verdict(entry: Entry) -> str:
    """Return the gate's verdict with the names of its reasons."""
    names = ', '.join(reason.partition(':')[0] for reason in entry.lineage.reasons)
    return 'accepted' if entry.lineage.accepted else f'refused: {names}' if names else 'not judged'


@dataclass
class List:
    """Print every critic with its origin and the gate's verdict, one per line; * marks the current one.

    Example: vgps-critics list
    """

    def _run(self, registry: Registry) -> None:
        current, entries = registry.current(), registry.entries()
        for entry in entries:
            lineage = entry.lineage
            print(f'{"*" if current and entry.hash == current.hash else " "} {entry.name}  {lineage.created[:16]}  '
                  f'from {lineage.parent[:12] or "nothing":12}  {sum(bag["episodes"] for bag in lineage.bags):5d} '
                  f'episodes  {_verdict(entry)}')
        override = '' if any(entry.lineage.accepted for entry in entries) else " --override 'WHY'"
        print(f'Next: vgps-critics --registry {registry.root} promote NAME{override}' if entries else
              f'{registry.root} holds no critic. Next: vgps-improve runs/ --registry {registry.root}')


@dataclass
class Show:
    """Print all that is known about one critic: lineage, metrics, promotions. Example: vgps-critics show current"""

    critic: Positional[str]
    """first digits of its hash, or current"""

    def _run(self, registry: Registry) -> None:
        entry = registry.get(self.critic)
        print(f'critic {entry.hash}\nfolder {entry.folder}')
        print(json.dumps({name: value for name, value in vars(entry.lineage).items()}, indent=1))
        for change in registry.history():
            if change['hash'] == entry.hash:
                print(f'{change["action"]} at {change["at"]} by {change["by"]}: '
                      f'{change["reason"] or "no reason given"}')


@dataclass
class Diff:
    """Print the differences between two critics: data, recipe, metrics. Example: vgps-critics diff 3f2a current"""

    first: Positional[str]
    """first digits of its hash, or current"""
    second: Positional[str]
    """first digits of its hash, or current"""

    def _run(self, registry: Registry) -> None:
        print('\n'.join(differences(registry.get(self.first), registry.get(self.second))))


@dataclass
class Promote:
    """Make a critic the current one, which steers from the next start of critic_node on.

    Example: vgps-critics promote 3f2a9c81d04e

    One that the gate refused: vgps-critics promote 3f2a9c81d04e --override 'the current one does not know this camera'
    """

    critic: Positional[str]
    """first digits of its hash"""
    by: str = field(default_factory=getpass.getuser)
    """who decides, for the history"""
    override: str = ''
    """why to promote a critic that the gate has not accepted, for the history; by default it is not promoted"""

    def _run(self, registry: Registry) -> None:
        entry = registry.promote(self.critic, self.by, self.override)
        print(f'{entry.name} steers from the next start of critic_node on\nNext: vgps-run robot '
              f'critic:={registry.root}')


@dataclass
class Rollback:
    """Make the previous critic the current one again, from the next start of critic_node on."""

    by: str = field(default_factory=getpass.getuser)
    """who decides, for the history"""
    reason: str = ''
    """why, for the history"""

    def _run(self, registry: Registry) -> None:
        entry = registry.rollback(self.by, self.reason)
        if not entry.lineage.accepted:
            print(f'note: {entry.name} is {_verdict(entry)}; it had been promoted with --override')
        print(f'{entry.name} steers again from the next start of critic_node on\n'
              f'Next: vgps-run robot critic:={registry.root}')


@dataclass
class Which:
    """Print which critic steered in recordings. Example: vgps-critics which runs/*"""

    bags: Positional[tuple[Path, ...]]
    """rosbag2 folders or files (MCAP, sqlite3)"""

    def _run(self, registry: Registry) -> None:
        from vgps_msgs_py.bags.reader import Bag
        checks.recording(*self.bags)
        known = {entry.hash: entry for entry in registry.entries()}
        for path in self.bags:
            hashes = {step.decision.critic_hash for episode in Bag(path).episodes for step in episode.steps
                      if step.decision is not None}
            for digest in sorted(hashes):
                name = known[digest].name if digest in known else f'{digest[:12]}, not in this registry'
                print(f'{path}: {name if digest else "none, the plain policy"}')


@dataclass
class Push:
    """Publish a critic with its card, lineage and outlook on the Hugging Face hub."""

    critic: Positional[str]
    """first digits of its hash, or current"""
    repository: Positional[str]
    """owner/name on the hub"""
    private: bool = False
    """make the repository private when it is created"""
    dry_run: bool = False
    """list the files without using the network"""

    def _run(self, registry: Registry) -> None:
        entry = registry.get(self.critic)
        checkpoint.read(entry.folder)  # verifies the hash: nothing damaged is published
        for path in sorted(entry.folder.iterdir()):
            print(f'{path.name}: {path.stat().st_size / 1e6:.2f} MB')
        if self.dry_run:
            print('dry run: nothing was uploaded')
            return
        from huggingface_hub import HfApi
        hub = HfApi()
        hub.create_repo(self.repository, private=self.private, exist_ok=True)
        hub.upload_folder(folder_path=entry.folder, repo_id=self.repository)
        print(f'Published: https://huggingface.co/{self.repository}\nNext: vgps-run robot critic:={self.repository}')


@dataclass
class Critics:
    """List critics with their origin, see which one steers, promote another one or roll back.

    Example: vgps-critics --registry critics promote 3f2a9c81d04e

    Before: vgps-improve fills the registry. Next: vgps-run robot critic:=critics, where the current one steers.
    """

    command: List | Show | Diff | Promote | Rollback | Which | Push
    registry: Path = Path('critics')
    """folder of critics; comes before the command"""


def main() -> None:
    """Run the command line."""
    options = command_line.read(Critics, 'vgps-critics')
    with command_line.refusing('vgps-critics', RegistryError, CheckpointError, OSError, ValueError):
        options.command._run(Registry(options.registry))


if __name__ == '__main__':
    main()
