"""`vgps-train push`: publish a run's critic and its model card on the Hugging Face hub."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from huggingface_hub import HfApi

from vgps_critic import checkpoint
from vgps_msgs_py import command_line
from vgps_training.run.storage import CRITIC


@dataclass(frozen=True)
class PushConfig:
    """Publish a run's critic and its model card on the Hugging Face hub.

    Example: vgps-train push runs/iql owner/name --dry-run

    Next: vgps-run robot critic:=owner/name
    """

    run: Annotated[Path, tyro.conf.Positional]         # folder of a training run
    repository: Annotated[str, tyro.conf.Positional]   # owner/name on the hub
    private: bool = False                              # make the repository private when it is created
    dry_run: bool = False                              # check everything and list the files, touch no network


def training_section(run: Path) -> str:
    """Return the part of the model card that only the run knows: configuration, last validation, data report."""
    config = json.loads((run / 'config.json').read_text())
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    validations = [line for line in lines if any(key.startswith('validation/') for key in line)]
    text = ['', '## Training', '']
    if validations:
        text += [f'Held-out episodes after {validations[-1]["step"]} updates:', '', '| metric | value |', '|---|---|']
        text += [f'| {k.removeprefix("validation/")} | {v:.4g} |' for k, v in validations[-1].items() if k != 'step']
    if (run / 'data_report.txt').exists():
        text += ['', 'Data:', '', '```', (run / 'data_report.txt').read_text().strip(), '```']
    return '\n'.join([*text, '', '```json', json.dumps(config, indent=2), '```', ''])


def push(config: PushConfig) -> list[str]:
    """Upload the critic with its card and return the file names.

    Raises:
        CheckpointError: the run's critic does not load. ValueError: the repository is not owner/name.

    """
    if config.repository.count('/') != 1:
        raise ValueError(f"'{config.repository}' is not a hub repository of the form owner/name")
    folder = config.run / CRITIC
    _, critic, digest = checkpoint.read(folder)  # verifies the hash: nothing damaged is published
    names = [checkpoint.WEIGHTS, checkpoint.CONFIG, checkpoint.CARD]
    card = (folder / checkpoint.CARD).read_text() + training_section(config.run)
    for name in names:
        size = len(card.encode()) if name == checkpoint.CARD else (folder / name).stat().st_size
        print(f'{name}: {size / 1e6:.2f} MB')
    print(f'{critic.algorithm}, {critic.step} updates, hash {digest[:12]} -> {config.repository}')
    if config.dry_run:
        print('dry run: nothing was uploaded')
        return names
    hub = HfApi()
    hub.create_repo(config.repository, private=config.private, exist_ok=True)
    for name in names[:2]:
        hub.upload_file(path_or_fileobj=folder / name, path_in_repo=name, repo_id=config.repository)
    hub.upload_file(path_or_fileobj=card.encode(), path_in_repo=checkpoint.CARD, repo_id=config.repository)
    print(f'Published: https://huggingface.co/{config.repository}\nNext: vgps-run robot critic:={config.repository}')
    return names


def main(arguments: list[str]) -> None:
    """Run the command line."""
    config = command_line.read(PushConfig, 'vgps-train push', arguments)
    with command_line.refusing('vgps-train push', OSError, ValueError):
        push(config)
