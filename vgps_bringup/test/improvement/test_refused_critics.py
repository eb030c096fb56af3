"""A critic that the gate refused is reached by an operator's override alone, and displaces no accepted one."""

import json
import shutil
import sys

import pytest

from vgps_bringup.commands import critics, improve
from vgps_bringup.improvement.gate import Verdict
from vgps_bringup.improvement.pipeline import Outcome
from vgps_bringup.improvement.registry import LINEAGE, Lineage, Registry, RegistryError
from vgps_critic import Critic
from vgps_critic.checkpoint import CheckpointError, read
from vgps_critic.outlook import FILE

FLAT, LABELS = 'FLAT: candidates differ by 0.01', 'LABELS: AUC 0.60 [0.50, 0.70]'
MONDAY, TUESDAY = (({'name': name, 'sha256': name, 'episodes': 40, 'successes': 20},) for name in ('mon', 'tue'))
REFUSED, ACCEPTED = Lineage(bags=MONDAY, reasons=(FLAT,)), Lineage(bags=TUESDAY, accepted=True)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp('trained')
    for seed in range(2):
        Critic.untrained(seed, num_filters=4, image_size=64, stage_sizes=(1,), hidden_dims=(8,)).save(root / str(seed))
        (root / str(seed) / FILE).write_bytes(b'of monday')
    return [root / str(seed) for seed in range(2)]


@pytest.fixture
def candidate(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / 'candidate')


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / 'critics')


def other_outlook(folder):
    (folder / FILE).write_bytes(b'of tuesday')
    return folder


def files(entry):
    return {path.name: path.read_bytes() for path in entry.folder.iterdir()}


def test_the_same_refusal_again_changes_nothing(registry, candidate):
    before = files(registry.add(candidate, REFUSED))
    assert files(registry.add(candidate, REFUSED)) == before
    assert len(registry.entries()) == 1


def test_a_refused_critic_judged_by_other_recordings_has_the_new_verdict_and_keeps_the_old_one(registry, candidate):
    first = registry.add(candidate, REFUSED)
    again = registry.add(other_outlook(candidate), Lineage(bags=TUESDAY, reasons=(LABELS,)))
    assert again.hash == first.hash and again.lineage.reasons == (LABELS,) and again.lineage.bags == TUESDAY
    assert (again.folder / FILE).read_bytes() == b'of tuesday'
    assert again.lineage.earlier == ({'created': first.lineage.created, 'code': '', 'reasons': [FLAT]},)
    (candidate / FILE).unlink()
    third = registry.add(candidate, REFUSED)
    assert not (third.folder / FILE).exists() and [e['reasons'] for e in third.lineage.earlier] == [[FLAT], [LABELS]]


def test_a_refused_critic_that_passes_later_is_accepted_and_says_that_it_was_refused(registry, candidate):
    registry.add(candidate, REFUSED)
    entry = registry.add(other_outlook(candidate), ACCEPTED)
    assert entry.lineage.accepted and entry.lineage.reasons == ()
    assert (entry.folder / FILE).read_bytes() == b'of tuesday' and entry.lineage.earlier[0]['reasons'] == [FLAT]
    assert registry.promote(entry.name, 'ada').hash == read(registry.root)[2]


def test_an_accepted_critic_is_not_overwritten_by_a_refusal(registry, candidate):
    entry = registry.add(candidate, ACCEPTED)
    before = files(entry)
    assert registry.add(candidate, REFUSED).lineage.accepted
    with pytest.raises(RegistryError, match='another outlook, and was accepted'):
        registry.add(other_outlook(candidate), REFUSED)
    assert files(entry) == before
    registry.promote(entry.name, 'ada')


def test_a_refused_critic_that_was_promoted_keeps_the_outlook_it_steers_with(registry, candidate):
    entry = registry.add(candidate, REFUSED)
    registry.promote(entry.name, 'ada', override='tried it')
    before = files(entry)
    for verdict in (REFUSED, ACCEPTED):
        with pytest.raises(RegistryError, match='another outlook, and was promoted'):
            registry.add(other_outlook(shutil.copytree(candidate, candidate.with_name(f'again-{verdict.accepted}'))),
                         verdict)
    assert files(entry) == before
    again = registry.add(candidate, ACCEPTED)  # the same outlook: nothing but the verdict changes
    assert again.lineage.accepted and {**files(again), LINEAGE: b''} == {**before, LINEAGE: b''}
    assert registry.current() == again


def test_nothing_is_current_where_all_were_refused(registry, candidate):
    registry.add(candidate, REFUSED)
    assert registry.current() is None
    with pytest.raises(CheckpointError):
        read(registry.root)


def test_a_registry_of_an_earlier_version_is_read_and_judged_again(registry, candidate):
    path = registry.add(candidate, REFUSED).folder / LINEAGE
    values = json.loads(path.read_text())
    del values['earlier']
    path.write_text(json.dumps(values))
    assert registry.entries()[0].lineage.earlier == ()
    assert registry.add(candidate, ACCEPTED).lineage.earlier[0]['reasons'] == [FLAT]


@pytest.fixture
def call(registry, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['vgps-critics', '--registry', str(registry.root), *words])
        critics.main()
        return capsys.readouterr().out
    return run


def test_the_list_names_the_reasons_and_the_way_to_promote(registry, trained, call):
    refused = registry.add(trained[0], Lineage(reasons=(FLAT, LABELS)))
    assert 'refused: FLAT, LABELS' in call('list') and 'promote NAME --override' in call('list')
    with pytest.raises(SystemExit, match='--override'):
        call('promote', refused.name)
    assert registry.current() is None
    assert 'steers from the next start' in call('promote', refused.name, '--override', 'tried it')
    assert registry.history()[-1]['reason'] == 'tried it' and 'tried it' in call('show', refused.name)
    accepted = registry.add(trained[1], ACCEPTED)
    assert '--override' not in call('list')
    assert 'refused' not in call('promote', accepted.name)
    assert f'{refused.name} is refused: FLAT, LABELS' in call('rollback')
    assert registry.current() == refused
    call('promote', accepted.name)
    with pytest.raises(SystemExit, match='--override'):
        call('promote', refused.name)  # each promotion wants its own reason


@pytest.fixture
def improved(registry, tmp_path, monkeypatch, capsys):
    def run(critic, *reasons):
        outcome = Outcome(Verdict(list(reasons)), tmp_path, critic, None if critic is None else Lineage(
            accepted=not reasons, reasons=reasons))
        monkeypatch.setattr(improve, 'improve', lambda *_, **__: outcome)
        try:
            code = improve.run_once(improve.Improve((tmp_path,)), registry)
        finally:
            told = capsys.readouterr().out
        page = (tmp_path / 'index.html').read_text()
        return code, told, page
    return run


def test_a_refusal_is_in_the_registry_and_the_report_says_how_to_override_it(registry, candidate, improved, call):
    for _ in range(2):  # a run that is repeated says the same
        code, told, page = improved(candidate, FLAT)
        entry, = registry.entries()
        assert code == improve.REFUSED and f'REFUSED {FLAT}' in told and 'ACCEPTED' not in told
        assert entry.lineage.reasons == (FLAT,) and registry.current() is None
        command = f'vgps-critics --registry {registry.root} promote {entry.name} --override'
        assert command in told and command in page and 'Judged before' not in told
    code, told, page = improved(candidate)
    assert code == 0 and f'ACCEPTED {entry.name}' in told and '--override' not in told + page
    assert FLAT in told and f'REFUSED {FLAT}' not in told, 'what it was refused for before'
    code, told, page = improved(candidate, LABELS)
    assert code == improve.REFUSED and f'{entry.name} is in the registry as accepted' in told
    assert registry.get(entry.name).lineage.accepted


def test_a_refusal_that_cannot_be_added_says_where_the_candidate_is(registry, candidate, improved):
    improved(candidate)
    before, = registry.entries()
    code, told, page = improved(other_outlook(candidate), FLAT)
    assert code == improve.REFUSED and f'REFUSED {FLAT}' in told
    assert 'another outlook' in told and str(candidate) in told and str(candidate) in page
    assert registry.entries() == [before]
    with pytest.raises(RegistryError, match='another outlook'):
        improved(candidate)


def test_recordings_that_nothing_was_trained_on_leave_nothing_to_promote(registry, improved):
    code, told, page = improved(None, 'TOO_FEW_EPISODES: 3')
    assert code == improve.REFUSED and 'none to promote' in told and 'none to promote' in page
    assert registry.entries() == []
