"""The OpenVLA adapter on the real model code with a small random model: needs the extra `openvla` and, in
VGPS_OPENVLA_SOURCE, the folder prismatic/extern/hf of the openvla repository (on the hub the same files lie beside the
weights). Shrunk through the code's own tables; loaded as from the hub, with trust_remote_code.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

SOURCE = os.environ.get('VGPS_OPENVLA_SOURCE', '')
if not SOURCE:
    pytest.skip('set VGPS_OPENVLA_SOURCE to the folder with modeling_prismatic.py', allow_module_level=True)
import torch  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from transformers import AutoModelForVision2Seq, AutoProcessor, PreTrainedTokenizerFast  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402

from vgps_policy_bridge.errors import PolicyError  # noqa: E402
from vgps_policy_bridge.policies.openvla import BLANK, FIRST_ID, OpenVLAPolicy, prepare_image, prompt  # noqa: E402
from vgps_policy_bridge.policy import Observation  # noqa: E402

STATISTICS = {'bridge_orig': {'action': {
    'q01': [-.028727, -.041703, -.026094, -.080921, -.092887, -.207183, 0.0],
    'q99': [.028310, .040855, .040162, .081920, .077929, .203826, 1.0], 'mask': [True] * 6 + [False]}}}
INSTRUCTION = 'Put Carrot on plate'


def tokenizer():
    """Return a tokenizer of words that puts BOS first, as Llama's does; its vocabulary is a download."""
    words = 'In : What action should the robot take to put carrot on plate ? Out'.split()
    made = Tokenizer(models.WordLevel({'<unk>': 0, '<s>': 1} | {w: 2 + i for i, w in enumerate(words)}, '<unk>'))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing('<s> $A', special_tokens=[('<s>', 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token='<s>', unk_token='<unk>', pad_token='<unk>')


@pytest.fixture(scope='module', params=['siglip-vit-so400m', 'dinosiglip-vit-so-224px'])  # v0.1 and 7b
def checkpoint(tmp_path_factory, request):
    backbone, encoders = request.param, 2 if request.param.startswith('dinosiglip') else 1
    folder = tmp_path_factory.mktemp('openvla')
    for name in ('configuration', 'modeling', 'processing'):
        shutil.copy(Path(SOURCE) / f'{name}_prismatic.py', folder)
    with (folder / 'configuration_prismatic.py').open('a') as file:
        file.write(f"\nVISION_BACKBONE_TO_TIMM_ID['{backbone}'] = ['vit_tiny_patch16_224'] * {encoders}\n")

    def code(reference):
        return get_class_from_dynamic_module(reference, str(folder))
    config = code('configuration_prismatic.OpenVLAConfig')(
        norm_stats=STATISTICS, vision_backbone_id=backbone, llm_backbone_id='llama2-7b-pure',
        image_resize_strategy='resize-naive', text_config={
            'vocab_size': 32064, 'hidden_size': 64, 'intermediate_size': 128, 'num_hidden_layers': 2,
            'num_attention_heads': 4, 'num_key_value_heads': 4, 'initializer_range': 0.2})
    torch.manual_seed(0)
    vla = code('modeling_prismatic.OpenVLAForActionPrediction')(config)
    head = vla.language_model.lm_head.weight.data
    head[:FIRST_ID], head[FIRST_ID + 256:] = 0.0, 0.0  # a trained model's most probable token is an action, too
    images = code('processing_prismatic.PrismaticImageProcessor')(
        use_fused_vision_backbone=encoders == 2, image_resize_strategy='resize-naive',
        input_sizes=[(3, 224, 224)] * encoders, interpolations=['bicubic'] * encoders,
        means=[(0.485, 0.456, 0.406), (0.5, 0.5, 0.5)][-encoders:],
        stds=[(0.229, 0.224, 0.225), (0.5, 0.5, 0.5)][-encoders:])
    for kind, auto in ((type(config), 'AutoConfig'), (type(vla), 'AutoModelForVision2Seq'),
                       (type(images), 'AutoImageProcessor')):
        kind.register_for_auto_class(auto)
    processor = code('processing_prismatic.PrismaticProcessor')
    processor.register_for_auto_class('AutoProcessor')
    target = tmp_path_factory.mktemp('checkpoint')
    vla.save_pretrained(target)
    processor(images, tokenizer()).save_pretrained(target)
    return str(target)


def observation():
    return Observation(np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8), 0.0)


def propose(policy, k, temperature):
    policy.temperature = temperature
    policy.reset(INSTRUCTION, 3)
    return policy.propose(observation(), k)


def test_most_probable_candidate_is_the_models_own_prediction(checkpoint):
    mine = propose(OpenVLAPolicy(checkpoint, device='cpu'), 5, 0.0)
    assert mine.counts.tolist() == [5] and mine.actions.shape == (1, 1, 7)
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    vla = AutoModelForVision2Seq.from_pretrained(checkpoint, trust_remote_code=True).eval()
    inputs = processor(prompt(INSTRUCTION, checkpoint), prepare_image(observation().image))
    assert inputs['input_ids'][0, 0] == 1 and BLANK not in inputs['input_ids']
    # Its own function wants the mask as long as the ids that it lengthens by one, hence the blank beforehand.
    ids = torch.cat([inputs['input_ids'], torch.tensor([[BLANK]])], 1)
    own = vla.predict_action(ids, unnorm_key='bridge_orig', do_sample=False, pixel_values=inputs['pixel_values'],
                             attention_mask=torch.ones_like(ids))
    own[6] = np.clip(own[6], 0, 1)
    np.testing.assert_allclose(mine.actions[0, 0], own, atol=1e-6)


def test_candidates_differ_repeat_with_the_seed_and_stay_within_the_statistics(checkpoint):
    policy = OpenVLAPolicy(checkpoint, device='cpu', max_rows=16)
    draws, again = propose(policy, 50, 1.0), propose(policy, 50, 1.0)
    np.testing.assert_array_equal(draws.actions, again.actions)
    assert len(draws) > 40 and draws.counts.sum() == 50 and np.isfinite(draws.log_probabilities).all()
    low, high = (np.array(STATISTICS['bridge_orig']['action'][name]) for name in ('q01', 'q99'))
    assert (draws.actions >= low - 1e-6).all() and (draws.actions <= high + 1e-6).all()
    assert set(draws.stages) == {'prepare', 'sample'}


def test_unknown_statistics_are_named(checkpoint):
    with pytest.raises(PolicyError, match='bridge_orig'):
        OpenVLAPolicy(checkpoint, statistics='no_such', device='cpu')
