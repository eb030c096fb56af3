"""Find the data sets under a path, whatever their format, and read them one episode after the other."""
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vgps_training.data import bags, lerobot, rlds
from vgps_training.data.episode import PLAIN, DataError, Episode, Malformed, Reading

OTHERS = ('.hdf5', '.h5', '.zarr', '.npz', '.npy', '.pkl', '.pickle', '.parquet', '.arrow', '.mp4', '.bag')
LOOKED_AT = 10_000  # files of a folder


def read_episodes(path: str | Path, split: str = 'train', reading: Reading = PLAIN,
                  wrist: str | None = None) -> Iterator[Episode | Malformed]:
    """Yield every episode under a path: an RLDS version folder, a LeRobot data set, a bag, or a folder of such.

    Of bags, `wrist` names a second camera whose pictures go along; '' takes the one that the bag names, if any.

    Raises FileNotFoundError where there is none, DataError for a data set that cannot be used at all.
    """
    path = Path(path).expanduser()
    readers = list(_readers(path, split, reading, wrist))
    if not readers:
        if path.suffix == '.bag' or (path.is_dir() and any(path.glob('*.bag'))):
            raise DataError(f'{path} holds ROS 1 bags: rosbags-convert --src X.bag --dst X makes rosbag2 of one')
        kinds = Counter(f.suffix for f in islice(path.rglob('*'), LOOKED_AT) if f.suffix in OTHERS)
        others = '; files of other formats, which have to be converted first: ' + ', '.join(
            f'{count} {kind}' for kind, count in kinds.items())
        raise FileNotFoundError(f'{path}: no RLDS folder (dataset_info.json), LeRobot data set (meta/info.json) or '
                                f'rosbag2 recording (metadata.yaml) here or below{others if kinds else ""}')
    for reader in readers:
        yield from reader


def _readers(path: Path, split: str, reading: Reading,
             wrist: str | None) -> Iterator[Iterator[Episode | Malformed]]:
    if rlds.is_rlds(path):
        yield rlds.read(path, split, reading)
    elif lerobot.is_lerobot(path):
        yield lerobot.read(path, reading)
    elif bags.is_bag(path):
        yield bags.read(path, reading, wrist)
    elif path.is_dir():
        rlds.one_version(path)
        for child in folders_in(path):
            yield from _readers(child, split, reading, wrist)


def folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder, links to others among them; not those that lead back up."""
    home = path.resolve()
    return [child for child in sorted(path.iterdir()) if child.is_dir() and not (
        child.is_symlink() and home.is_relative_to(child.resolve()))]
