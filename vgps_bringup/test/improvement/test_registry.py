"""The registry of critics: lineage, promotion, rollback, and what a kill leaves behind."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from vgps_bringup.improvement.registry import Lineage, Registry, RegistryError, differences
from vgps_critic import Critic
from vgps_critic.checkpoint import CURRENT, CheckpointError, read

SMALL = dict(num_filters=4, image_size=64, stage_sizes=(1,), hidden_dims=(8,))
GOOD = Lineage(accepted=True, bags=({'name': 'monday', 'sha256': 'a1', 'episodes': 40, 'successes': 20},),
               metrics={'outcome_auc': 0.8}, recipe={'steps': 2000})


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('trained')
    for seed in range(3):
        Critic.untrained(seed, **SMALL).save(root / str(seed))
    return [root / str(seed) for seed in range(3)]


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / 'critics')


def test_the_promoted_critic_is_what_the_folder_of_the_registry_loads_as(registry, folders):
    first, second = (registry.add(folder, GOOD) for folder in folders[:2])
    registry.promote(first.name, 'ada')
    assert read(registry.root)[2] == first.hash == Critic.load(registry.root).hash
    registry.promote(second.name, 'ada')
    assert read(registry.root)[2] == second.hash
    assert registry.rollback('ada', 'it dropped two cups').hash == first.hash == read(registry.root)[2]
    assert [change['action'] for change in registry.history()] == ['promote', 'promote', 'rollback']


def test_rolling_back_twice_goes_two_promotions_back_and_not_to_and_fro(registry, folders):
    entries = [registry.add(folder, GOOD) for folder in folders]
    for entry in entries:
        registry.promote(entry.name, 'ada')
    assert registry.rollback('ada').hash == entries[1].hash
    assert registry.rollback('ada').hash == entries[0].hash
    with pytest.raises(RegistryError, match='no previous critic'):
        registry.rollback('ada')
    assert registry.current().hash == entries[0].hash


def test_what_the_gate_refused_is_promoted_only_with_a_reason_that_is_kept(registry, folders):
    refused = registry.add(folders[0], Lineage(reasons=('ranks outcomes no better than chance',)))
    with pytest.raises(RegistryError, match='ranks outcomes no better than chance'):
        registry.promote(refused.name, 'ada')
    assert registry.current() is None
    registry.promote(refused.name, 'ada', override='for the poster')
    assert registry.history()[-1]['reason'] == 'for the poster'


def test_a_critic_whose_weights_were_changed_on_the_disk_does_not_become_current(registry, folders):
    good, damaged = (registry.add(folder, GOOD) for folder in folders[:2])
    registry.promote(good.name, 'ada')
    weights = damaged.folder / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-4] + b'\0\0\0\1')
    with pytest.raises(CheckpointError):
        registry.promote(damaged.name, 'ada')
    assert registry.current().hash == good.hash


def test_a_registry_without_current_critic_is_refused_by_name(registry, folders):
    registry.add(folders[0], GOOD)
    (registry.root / CURRENT).write_text('{"current": "../../etc"}')
    with pytest.raises(CheckpointError, match='not a critic in this folder'):
        read(registry.root)


@pytest.mark.parametrize('text', ['[' * 100_000, '5', '{"current": 5, "history": []}', '{}', b'\xff'])
def test_a_registry_whose_history_is_damaged_says_so(registry, folders, text):
    registry.add(folders[0], GOOD)
    (registry.root / CURRENT).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RegistryError, match='is damaged'):
        registry.current()


def test_lineage_says_what_changed_between_two_critics(registry, folders):
    first = registry.add(folders[0], GOOD)
    second = registry.add(folders[1], Lineage(
        parent=first.hash, metrics={'outcome_auc': 0.9}, recipe={'steps': 2000},
        bags=(*GOOD.bags, {'name': 'tuesday', 'sha256': 'b2', 'episodes': 60, 'successes': 45})))
    lines = differences(first, second)
    assert any('tuesday: 60 episodes' in line for line in lines)
    assert any('outcome_auc: 0.8 -> 0.9' in line for line in lines)
    assert not any('monday' in line or 'steps' in line for line in lines)


def test_the_same_critic_with_another_outlook_is_not_silently_the_one_that_is_there(registry, folders, tmp_path):
    entry = registry.add(folders[0], GOOD)
    assert registry.add(folders[0], GOOD).folder == entry.folder
    shutil.copytree(folders[0], tmp_path / 'again')
    (tmp_path / 'again' / 'outlook.safetensors').write_bytes(b'calibrated anew')
    with pytest.raises(RegistryError, match='with another outlook'):
        registry.add(tmp_path / 'again', GOOD)


def test_lineage_of_a_newer_version_is_read_without_what_is_unknown(registry, folders):
    entry = registry.add(folders[0], GOOD)
    path = entry.folder / 'lineage.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'mood': 'sunny'}))
    assert registry.entries()[0].lineage.metrics == GOOD.metrics


DYING = """
import os, sys
from vgps_bringup.improvement.registry import Lineage, Registry
from vgps_critic.checkpoint import read

root, new, known = sys.argv[1], sys.argv[2], sys.argv[3:]
store = Registry(root)

def act():
    entry = store.add(new, Lineage(reasons=(f'LABELS: {os.getpid()}',)))  # from the second on: judged again
    store.promote(entry.name, 'ada', 'tried')
    store.rollback('ada')
    store.promote(entry.name, 'ada', 'tried')

def die_before(fatal):
    calls = 0
    def mortal(original):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == fatal:
                os._exit(9)
            return original(*arguments, **options)
        return call
    for name in ('replace', 'fsync', 'open', 'mkdir', 'scandir'):
        setattr(os, name, mortal(getattr(os, name)))

for fatal in range(1, 200):
    child = os.fork()
    if not child:
        die_before(fatal)
        act()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    loaded = read(root)[2]
    assert loaded in known and store.current().hash == loaded, (fatal, loaded)
    assert all(read(entry.folder)[2] == entry.hash for entry in store.entries()), fatal
    if code == 0:
        break
    assert code == 9, (fatal, code)
print(fatal - 1)
"""


def test_dying_before_any_system_call_of_a_promotion_leaves_one_valid_current_critic(registry, folders):
    registry.promote(registry.add(folders[0], GOOD).name, 'ada')
    registry.promote(registry.add(folders[1], GOOD).name, 'ada')
    known = [read(folder)[2] for folder in folders]
    deaths = subprocess.run([sys.executable, '-c', DYING, registry.root, folders[2], *known], check=True,
                            capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}).stdout
    assert 10 <= int(deaths) < 198  # it died many times before it got through
    assert registry.current().hash == known[2]
