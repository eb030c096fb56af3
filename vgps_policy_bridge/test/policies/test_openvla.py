"""OpenVLA's sampling on a small random Llama, the class its language model has; tokens and images by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs torch')
transformers = pytest.importorskip('transformers', reason='needs pip install transformers')
from distributions import p_value  # noqa: E402

from vgps_policy_bridge.benchmarks import random_weights  # noqa: E402
from vgps_policy_bridge.benchmarks.policies import measure  # noqa: E402
from vgps_policy_bridge.errors import MissingExtraError  # noqa: E402
from vgps_policy_bridge.policies.openvla import (  # noqa: E402
    BLANK,
    FIRST_ID,
    LAST_ID,
    TokenSampler,
    prepare_image,
    prompt,
    unnormalise,
)
from vgps_policy_bridge.policies.shared_prefix import restrict, sample_shared_prefix  # noqa: E402
from vgps_policy_bridge.policy import load_policy  # noqa: E402

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
BRIDGE = {'q01': [-.028727, -.041703, -.026094, -.080921, -.092887, -.207183, 0],
          'q99': [.028310, .040855, .040162, .081920, .077929, .203826, 1], 'mask': [True] * 6 + [False]}


@pytest.fixture(scope='module')
def llama():
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=32064, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, initializer_range=0.2)).eval()
    return model, torch.randn(1, 40, 64)


def full_forward(model, prefix, ids, first, last, temperature, top_p=1.0):
    """Log-probability of each sequence without any cache: one whole forward pass per sequence."""
    totals = []
    with torch.inference_mode():
        for row in ids:
            inputs = torch.cat([prefix, model.get_input_embeddings()(row[None, :-1])], 1)
            logits = model(inputs_embeds=inputs, use_cache=False).logits[0, prefix.shape[1] - 1:]
            log_p = restrict(logits, first, last, temperature, top_p)
            totals.append(log_p.gather(1, (row - first)[:, None]).sum())
    return torch.stack(totals)


@pytest.mark.parametrize('temperature, top_p, max_rows', [(1.0, 1.0, 50), (0.7, 1.0, 16), (1.5, 0.9, 7)])
def test_shared_prefix_has_the_probabilities_of_full_forwards(llama, temperature, top_p, max_rows):
    model, prefix = llama
    ids, log_p = sample_shared_prefix(model, prefix, 50, 7, FIRST_ID, LAST_ID, temperature, top_p, max_rows,
                                      torch.Generator().manual_seed(1))
    expected = full_forward(model, prefix, ids, FIRST_ID, LAST_ID, temperature, top_p)
    assert ids.shape == (50, 7) and ids.min() >= FIRST_ID and ids.max() <= LAST_ID
    assert (log_p - expected).abs().max() < 1e-4
    assert len(torch.unique(ids, dim=0)) > 25


def test_tokens_are_distributed_as_the_model_says(llama):
    model, prefix = llama
    first, last, draws = 100, 104, 4000  # five ids, pairs of tokens: 25 cells
    ids, _ = sample_shared_prefix(model, prefix, draws, 2, first, last, 1.0, 1.0, 2000,
                                  torch.Generator().manual_seed(2))
    pairs = torch.cartesian_prod(*[torch.arange(first, last + 1)] * 2)
    expected = full_forward(model, prefix, pairs, first, last, 1.0).exp().numpy() * draws
    observed = np.bincount(((ids[:, 0] - first) * 5 + ids[:, 1] - first).numpy(), minlength=25)
    assert expected.sum() == pytest.approx(draws, rel=1e-4)
    assert p_value(observed, expected) > 1e-3
    # The test can fail: a uniform draw does not pass it.
    assert p_value(np.random.default_rng(0).multinomial(draws, [1 / 25] * 25), expected) < 1e-6


def test_nucleus_keeps_the_most_probable_and_drops_the_tail():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    np.testing.assert_allclose(restrict(logits, 0, 3, 1.0, 0.7).exp()[0], [0.625, 0.375, 0, 0], atol=1e-6)
    np.testing.assert_allclose(restrict(logits, 0, 3, 1.0, 0.01).exp()[0], [1, 0, 0, 0], atol=1e-6)


def test_fifty_candidates_cost_at_most_six_times_one():
    run = random_weights.llama(layers=2, width=128)
    # On a busy machine a single measurement may be disturbed: the best of three counts.
    ratios = []
    for _ in range(3):
        medians = measure(run, [1, 50], 3)
        ratios.append(medians[50] / medians[1])
    assert min(ratios) <= 6.0, ratios


@pytest.fixture
def vla(llama):
    model, _ = llama
    torch.manual_seed(3)
    return SimpleNamespace(language_model=model, projector=torch.nn.Linear(12, 64),
                           vision_backbone=lambda pixels: pixels.flatten(2).transpose(1, 2))


def test_prefix_is_bos_then_patches_then_prompt_then_blank(vla):
    ids, pixels = torch.tensor([[1, 5, 6]]), torch.randn(1, 12, 4, 4)
    prefix = TokenSampler(vla, 16, 1.0).prefix(ids, pixels)
    embed = vla.language_model.get_input_embeddings()
    assert prefix.shape == (1, 1 + 16 + 2 + 1, 64)
    torch.testing.assert_close(prefix[0, 0], embed(torch.tensor(1)))
    torch.testing.assert_close(prefix[0, 17:], embed(torch.tensor([5, 6, BLANK])))
    torch.testing.assert_close(prefix[:, 1:17], vla.projector(vla.vision_backbone(pixels)))
    again = TokenSampler(vla, 16, 1.0).prefix(torch.tensor([[1, 5, 6, BLANK]]), pixels)
    torch.testing.assert_close(again, prefix)


def test_sampler_repeats_with_its_seed_and_becomes_greedy_at_temperature_0(vla):
    ids, pixels = torch.tensor([[1, 5, 6]]), torch.randn(1, 12, 4, 4)
    sampler = TokenSampler(vla, 16, 1.0)
    first, second = (sampler.sample(ids, pixels, 20, 1.0, 5)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first, axis=0)) > 10
    assert len(np.unique(sampler.sample(ids, pixels, 20, 0.0, 5)[0], axis=0)) == 1


def test_memory_shortage_halves_the_rows(vla, monkeypatch):
    from vgps_policy_bridge.policies import shared_prefix
    tried, real = [], shared_prefix.sample_shared_prefix

    def short(*arguments):
        tried.append(arguments[8])
        if arguments[8] > 4:
            raise torch.cuda.OutOfMemoryError
        return real(*arguments)
    monkeypatch.setattr(shared_prefix, 'sample_shared_prefix', short)
    sampler = TokenSampler(vla, 16, 1.0)
    drawn, _ = sampler.sample(torch.tensor([[1, 5]]), torch.randn(1, 12, 4, 4), 20, 1.0, 5)
    assert drawn.shape == (20, 7) and tried == [16, 8, 4]


def test_bins_and_bridge_statistics_by_hand():
    # id 31999 is bin 0 with centre -1 + 1/255, id 31872 is bin 127 with centre 0, id 31744 falls on the last bin.
    ids = np.array([[31999] * 7, [31872] * 7, [31745] * 7, [31744] * 7])
    actions = unnormalise(ids, BRIDGE)
    width = 2 / 255
    low = BRIDGE['q01'][0] + (BRIDGE['q99'][0] - BRIDGE['q01'][0]) * (width / 2) / 2
    assert actions[0, 0] == pytest.approx(low, abs=1e-7)
    assert actions[1, 0] == pytest.approx((BRIDGE['q01'][0] + BRIDGE['q99'][0]) / 2, abs=1e-7)
    np.testing.assert_array_equal(actions[2], actions[3])
    # The gripper is the centre itself: below 0 is clipped, the top is 1 - 1/255.
    np.testing.assert_allclose(actions[:, 6], [0.0, 0.0, 1 - 1 / 255, 1 - 1 / 255], atol=1e-7)


def test_prompts_of_both_versions():
    assert prompt('Put Carrot on plate', 'openvla/openvla-7b') == \
        'In: What action should the robot take to put carrot on plate?\nOut:'
    old = prompt('Put carrot', 'openvla/openvla-v01-7b')
    assert old.startswith('A chat between') and old.endswith('USER: What action should the robot take to put carrot? '
                                                            'ASSISTANT:')


def test_image_is_squashed_to_224():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 320:] = 200
    small = np.asarray(prepare_image(image))
    assert small.shape == (224, 224, 3) and small[:, :100].max() < 10 and abs(int(small[100, 200, 0]) - 200) < 4


def test_missing_packages_are_named_with_the_command():
    try:
        import timm  # noqa: F401
        pytest.skip('timm is installed: nothing is missing')
    except ImportError:
        pass
    with pytest.raises(MissingExtraError, match=r"vgps-policy-bridge\[openvla\]"):
        load_policy('openvla')
