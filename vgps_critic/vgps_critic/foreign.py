"""Say what a file or folder is if it is not a critic of this project, and what converts it. Nothing is opened.

People point at what they have: the authors' checkpoints, what orbax writes, a policy. "config.json is missing" is true
and helps nobody.
"""

from collections.abc import Iterator
from pathlib import Path

MOST = 1000  # entries of a folder that are looked at: a data set may be pointed at by mistake

# Restores whatever tree orbax wrote and writes it as the one msgpack file that `vgps-import-reference` reads.
UNPACK = ('python -c "import sys, pathlib, orbax.checkpoint as o, flax.serialization as f; pathlib.Path(sys.argv[2])'
          '.write_bytes(f.to_bytes(o.PyTreeCheckpointer().restore(sys.argv[1])))"')


def describe(path: Path) -> str:
    """Return what `path` is, as the rest of a sentence that begins with it, or '' where nothing is known of it."""
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        return ''
    names = {entry.name for entry in _inside(path)}
    if {'saved_model.pb', 'saved_model.pbtxt'} & names:
        return 'is a TensorFlow SavedModel, as RT-1-X is published: a policy, not a critic'
    if 'dataset_statistics.json' in names:
        return ('is a policy (Octo or OpenVLA: it has dataset_statistics.json), not a critic: use it with '
                'policy:=octo-checkpoint or policy:=openvla')
    if 'config.json' in names and {'train_config.json', 'policy_preprocessor.json'} & names:
        return 'is a LeRobot policy, not a critic: use it with policy:=lerobot'
    if {'model.safetensors.index.json', 'pytorch_model.bin', 'generation_config.json'} & names:
        return 'is a model in the transformers format, not a critic'
    if store := orbax(path):
        return store
    if 'checkpoint' in names and (path / 'checkpoint').is_file():
        return f"is a checkpoint of the authors' JAX code: `vgps-import-reference {path} OUT` converts it"
    steps = sorted(name for name in names if name.startswith('checkpoint_'))
    if steps:
        return (f"holds checkpoints of the authors' JAX code ({', '.join(steps[:5])}): `vgps-import-reference "
                f'{path / steps[-1]} OUT` converts one')
    if 'critic' in names and (path / 'critic/config.json').is_file():
        return f'is a training run: give {path / "critic"}'
    return ''


def orbax(path: Path) -> str:
    """Return which of orbax's formats a folder's arrays are in and what makes a critic of it, or ''."""
    for folder in (path, *(entry for entry in _inside(path) if entry.is_dir())):
        for store in (folder, folder / 'default', folder / 'state'):  # of a manager: STEP/default, STEP/state
            names = {entry.name for entry in _inside(store)}
            if 'manifest.ocdbt' in names or any(name.startswith('ocdbt.process_') for name in names):
                kind = 'OCDBT'
            elif any((store / name / '.zarray').is_file() for name in names):
                kind = 'Zarr'
            else:
                continue
            return (f"holds arrays in orbax's {kind} format ({store}), which cannot be read here. With orbax and flax "
                    f'installed, `{UNPACK} {store.absolute()} checkpoint` converts it into one file; then '
                    '`vgps-import-reference checkpoint OUT`')
    return ''


def _file(path: Path) -> str:
    if path.suffix == '.safetensors':
        return f'is one file of a checkpoint: give the folder that holds it ({path.parent})'
    if path.suffix in ('.pt', '.pth', '.ckpt', '.bin', '.pkl', '.pickle'):
        return ('is a pickle of PyTorch, which may run code and is not opened: give the folder that vgps-train wrote, '
                'e.g. runs/iql/critic')
    if path.name.startswith('checkpoint') or path.suffix == '.msgpack':
        return f"is a checkpoint of the authors' JAX code: `vgps-import-reference {path} OUT` converts it"
    return 'is a file: give the folder that vgps-train wrote, e.g. runs/iql/critic'


def _inside(folder: Path) -> Iterator[Path]:
    try:
        for number, entry in enumerate(folder.iterdir()):
            if number == MOST:
                return
            yield entry
    except OSError:  # not a folder, or not ours to read
        return
