"""Faster encoders give the same values, or they are not used."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from vgps_critic import Critic, runtime

torch.set_num_threads(1)
SMALL = dict(num_filters=8, image_size=64)


def scores(critic):
    generator = np.random.default_rng(0)
    image, language = generator.integers(0, 256, (64, 64, 3), np.uint8), np.full(512, 0.04, np.float32)
    return critic.score(critic.encode(image, language), generator.uniform(-0.05, 0.05, (20, 7)))


@pytest.mark.slow
def test_onnxruntime_scores_as_torch():
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    eager, fast = (scores(Critic.untrained(options=dict(runtime=name), **SMALL)) for name in ('torch', 'onnxruntime'))
    assert np.abs(fast - eager).max() <= 1e-4
    assert np.ptp(eager) > 1e-3


def test_bfloat16_is_near_and_not_equal():
    eager, fast = (scores(Critic.untrained(options=dict(precision=name), **SMALL)) for name in ('float32', 'bfloat16'))
    assert 0 < np.abs(fast - eager).max() <= 0.1


def test_a_runtime_that_disagrees_is_refused(monkeypatch):
    monkeypatch.setattr(runtime, '_onnxruntime', lambda network: (
        lambda images, language: network.encoder(images, language) + 1e-3))
    with pytest.raises(runtime.RuntimeMismatchError, match='differ from eager torch by'):
        Critic.untrained(options=dict(runtime='onnxruntime'), **SMALL)


@pytest.mark.parametrize('options', [dict(runtime='tensorrt'), dict(precision='int8'),
                                     dict(runtime='onnxruntime', precision='float16')])
def test_impossible_choices_are_refused(options):
    with pytest.raises(ValueError, match='runtime'):
        Critic.untrained(options=options, **SMALL)


@pytest.mark.slow
def test_a_step_costs_the_same_for_one_and_for_a_hundred_candidates():
    critic = Critic.untrained()  # the published width
    image, language = np.zeros((256, 256, 3), np.uint8), np.zeros(512, np.float32)

    def cpu_time(function, *args):
        """Fastest of five, in processor time: other load on the machine does not count."""
        times = []
        for _ in range(5):
            start = time.process_time()
            function(*args)
            times.append(time.process_time() - start)
        return min(times)

    encode = cpu_time(critic.encode, image, language)
    encoded = critic.encode(image, language)
    score = {k: cpu_time(critic.score, encoded, np.zeros((k, 7), np.float32)) for k in (1, 100, 1000)}
    assert (encode + score[100]) / (encode + score[1]) <= 1.10  # measured 1.004
    assert (encode + score[1000]) / (encode + score[1]) <= 1.25  # measured 1.05


@pytest.mark.slow
def test_loading_a_critic_does_not_import_the_compiler():
    code = ('import sys; from vgps_critic import Critic; Critic.load("default"); '
            'sys.exit("torch._dynamo" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0  # it would take several seconds
