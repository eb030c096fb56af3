"""Which statistics make a checkpoint's actions physical, and which revision of its code runs."""

import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from vgps_msgs_py.robot_state import TO_OPENNESS
from vgps_policy_bridge.errors import CandidatesError, PolicyError
from vgps_policy_bridge.policies.checkpoints import choose_statistics, openness, pinned_revision, split_revision
from vgps_policy_bridge.policies.openvla import OpenVLAPolicy, unnormalise
from vgps_policy_bridge.policy import Candidates

COMMIT = '0123456789abcdef0123456789abcdef01234567'


def statistics(size):
    return {'action': {'q01': [-size] * 6 + [0.0], 'q99': [size] * 6 + [1.0], 'mask': [True] * 6 + [False]}}


@pytest.fixture
def openvla(monkeypatch):
    """transformers and timm by stand-ins: what is loaded, and with which statistics in the model's configuration."""
    state = SimpleNamespace(norm_stats={'bridge_orig': statistics(0.005), 'fractal20220817_data': statistics(0.1)},
                            calls=[])

    class Model:
        def __init__(self):
            self.norm_stats = state.norm_stats

        def to(self, *_):
            return self

        def eval(self):
            return self

    def load(name, **options):
        state.calls.append((name, options['revision']))
        return Model()
    transformers = ModuleType('transformers')
    transformers.AutoModelForVision2Seq = transformers.AutoProcessor = SimpleNamespace(from_pretrained=load)
    monkeypatch.setitem(sys.modules, 'timm', ModuleType('timm'))
    monkeypatch.setitem(sys.modules, 'transformers', transformers)
    return state


def step(policy):
    """Return the largest x step that this policy can make [m]."""
    return unnormalise(np.full((1, 7), 31744), policy._statistics)[0, 0]


def folder(tmp_path, content=None):
    path = tmp_path / 'openvla-7b+my_robot'
    path.mkdir()
    if content is not None:
        (path / 'dataset_statistics.json').write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_fine_tuned_checkpoint_uses_the_statistics_of_its_own_data(openvla, tmp_path):
    checkpoint = folder(tmp_path, {'my_robot': statistics(0.05)})
    policy = OpenVLAPolicy(checkpoint)
    assert step(policy) == pytest.approx(0.05, rel=0.01) and 'statistics my_robot' in policy._identity
    assert step(OpenVLAPolicy(checkpoint, statistics='fractal20220817_data')) == pytest.approx(0.1, rel=0.01)


def test_model_that_was_not_fine_tuned_uses_bridge(openvla, tmp_path):
    assert step(OpenVLAPolicy(folder(tmp_path))) == pytest.approx(0.005, rel=0.01)


def test_single_set_in_the_configuration_needs_no_asking(openvla, tmp_path):
    openvla.norm_stats = {'lab': statistics(0.02)}
    assert step(OpenVLAPolicy(folder(tmp_path))) == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize('content, words', [
    ({'a': statistics(0.01), 'b': statistics(0.02)}, r'say which.*: a, b'),
    ('not json', 'is not JSON'), ([1], 'must be a map'), ({'a': {}}, 'must be a map')])
def test_statistics_that_leave_a_choice_or_cannot_be_read_are_refused(openvla, tmp_path, content, words):
    with pytest.raises(PolicyError, match=words):
        OpenVLAPolicy(folder(tmp_path, content))


def test_several_sets_without_bridge_are_asked_for(openvla, tmp_path):
    openvla.norm_stats = {'kuka': statistics(1.0), 'toto': statistics(2.0)}
    with pytest.raises(PolicyError, match=r'say which.*kuka, toto'):
        OpenVLAPolicy(folder(tmp_path))


def test_revision_follows_the_name_and_a_folder_is_taken_as_it_is(tmp_path):
    assert split_revision('owner/name@v1.5') == ('owner/name', 'v1.5')
    assert split_revision('owner/name') == ('owner/name', None)
    odd = tmp_path / 'run@monday'
    odd.mkdir()
    assert split_revision(str(odd)) == (str(odd), None)
    for text in ('@v1', 'owner/name@'):
        with pytest.raises(PolicyError, match='owner/name@revision'):
            split_revision(text)


def test_model_code_of_the_hub_runs_from_a_commit_only(openvla, tmp_path, monkeypatch):
    for checkpoint in ('openvla/openvla-v01-7b', 'openvla/openvla-v01-7b@main'):
        with pytest.raises(PolicyError, match='COMMIT'):
            pinned_revision(checkpoint, 'code runs')
    assert pinned_revision(f'owner/name@{COMMIT}', 'code runs') == ('owner/name', COMMIT)
    monkeypatch.setattr('vgps_policy_bridge.policies.openvla.dataset_statistics', lambda *_: {})
    OpenVLAPolicy(f'owner/name@{COMMIT}')
    assert openvla.calls == [('owner/name', COMMIT)] * 2  # processor and model


@pytest.mark.parametrize('action, units', [
    ([34.0, -20, 15, 3, 80, 2, 1], 'degrees'), ([0.01, 0, 0, 0, 90.0, 0, 0], 'degrees'),
    ([12.0, 3, 4, 0.01, 0, 0, 1], 'millimetres')])
def test_actions_in_other_units_are_no_candidates(action, units):
    with pytest.raises(CandidatesError, match=units):
        Candidates(np.array(action).reshape(1, 1, 7), policy='x')


@pytest.mark.slow
def test_loading_a_small_policy_does_not_import_the_compiler():
    code = ('import sys; from vgps_policy_bridge.policy import load_policy; load_policy("flow"); '
            'load_policy("binned"); sys.exit("torch._dynamo" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0  # it would take several seconds


@pytest.mark.parametrize('changed, word', [
    ({}, None), ({'q01': [0.1] * 7, 'q99': [-0.1] * 7}, 'q01 is above q99 in dimension 0'),
    ({'mean': [0.1] * 7, 'std': [-0.1] * 7}, 'mean and std swapped'), ({'std': [float('nan')] * 7}, 'std holds NaN'),
    ({'mean': [2.0] * 7, 'max': [1.0] * 7}, 'mean is above max'), ({'mean': [0.0] * 6}, 'different lengths'),
    ({'q99': ['a'] * 7}, 'q99 is not a list of numbers'), ({'std': [0.0] * 7, 'mean': [0.0] * 7}, None)])
def test_statistics_that_cannot_be_are_refused_before_they_scale_a_motion(changed, word):
    edited = {'mine': {'action': {**statistics(0.01)['action'], **changed}}}
    if word is None:
        assert choose_statistics('folder', '', edited, {}, '', ('q01', 'q99')) == ('mine', edited['mine'])
        return
    with pytest.raises(PolicyError, match=f"'mine' were damaged or edited: .*{word}"):
        choose_statistics('folder', '', edited, {}, '', ('q01', 'q99'))


@pytest.mark.parametrize('scale, changed, word', [
    (('q01', 'q99'), {'q99': None}, 'q99 missing'), (('mean', 'std'), {}, 'mean and std missing'),
    (('q01', 'q99'), {'q01': [0.0] * 7, 'q99': [0.0] * 7}, 'turn every output into the same motion'),
    (('mean', 'std'), {'mean': [0.01] * 7, 'std': [0.0] * 7}, 'turn every output into the same motion'),
    (('mean', 'std'), {'q01': None, 'q99': None, 'mean': 0.1, 'std': 0.3},
     r'mean has the shape \(\)'),
    (('q01', 'q99'), {'q01': [-0.1] * 16, 'q99': [0.1] * 16}, r'q01 has the shape \(16,\)'),
    (('q01', 'q99'), {'mask': [True] * 6}, r'mask bool \(6,\)'),
    (('q01', 'q99'), {'mask': ['yes'] * 7}, 'true or false'),
    (('q01', 'q99'), {'mask': [True, True, False, True, True, True, False]}, 'mask leaves dimension 2'),
    (('q01', 'q99'), {'q99': [0.9] * 3 + [0.2] * 3 + [1.0]}, 'steps of up to 0.9'),
    (('mean', 'std'), {'mean': [0.0] * 7, 'std': [0.01] * 3 + [9.0] * 3 + [0.5]}, 'turns of up to 18'),
    (('q01', 'q99'), {'mask': [True] * 7, 'q99': [0.05] * 6 + [80.0]}, 'gripper goes from 0 to 80')])
def test_statistics_that_make_no_motions_of_an_arm_are_refused(scale, changed, word):
    given = {'mine': {'action': {**statistics(0.05)['action'], **changed}}}
    with pytest.raises(PolicyError, match=f"'mine' do not give motions of an arm: .*{word}"):
        choose_statistics('folder', '', given, {}, '', scale)


def test_without_a_mask_the_gripper_was_normalised_too():
    highest, given = np.full((1, 7), 31744), {'q01': [-0.1] * 6 + [-1.0], 'q99': [0.1] * 6 + [1.0]}
    assert unnormalise(highest - 1 + 192, given)[0, 6] == pytest.approx(0.0, abs=0.01)  # a quarter of the way
    assert unnormalise(highest, {**given, 'q99': [0.1] * 6 + [0.7]})[0, 6] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize('given, convention, expected', [
    ([-0.2, 0.3, 1.3], 'openness', [0.0, 0.3, 1.0]), ([-1.0, 1.0, -0.5], 'minus-one-open', [1.0, 0.0, 0.75]),
    ([-1.0, 1.0, 0.5], 'minus-one-closed', [0.0, 1.0, 0.75]), ([0.9, 0.1, 0.0], 'closedness', [0.1, 0.9, 1.0]),
    ([-1.0, -0.9, 1.0], 'openness', None), ([80.0, 75.0, 0.0], 'openness', None), ([np.nan] * 3, 'openness', None)])
def test_a_gripper_of_another_convention_is_refused_and_not_clipped_to_its_contrary(given, convention, expected):
    values = TO_OPENNESS[convention](np.array(given))
    if expected is None:
        with pytest.raises(CandidatesError, match='not an openness'):
            openness(values, 'x')
    else:
        assert openness(values, 'x') == pytest.approx(expected)
