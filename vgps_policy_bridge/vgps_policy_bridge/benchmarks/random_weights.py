"""Models of the published classes with random weights: they cost what the real ones cost and need no download.

For tests and for `vgps-benchmark-policy`. What they propose means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

PREFIX = 286  # tokens: BOS, 256 image patches, a typical prompt
OCTO_STATISTICS = {'bridge_dataset': {'action': {
    'mean': np.array([.001, .002, .003, .01, .02, .03, .6]), 'std': np.array([.01, .02, .03, .1, .2, .3, .5]),
    'mask': np.array([True] * 6 + [False])}}}


def llama(layers: int = 4, width: int = 256, max_rows: int = 64) -> Callable[[int], object]:
    """Return run(k) that draws k sequences of 7 action tokens from a Llama after a prefix of 286 (OpenVLA's class)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from vgps_policy_bridge.policies.openvla import ACTION_TOKENS, FIRST_ID, LAST_ID
    from vgps_policy_bridge.policies.shared_prefix import sample_shared_prefix
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=32064, hidden_size=width, intermediate_size=width * 11008 // 4096, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8)).eval()
    prefix = torch.randn(1, PREFIX, width) * 0.02

    def run(k: int):
        return sample_shared_prefix(model, prefix, k, ACTION_TOKENS, FIRST_ID, LAST_ID, max_rows=max_rows)
    return run


class LengthOfText:
    """Stands for Octo's tokenizer, whose vocabulary is a download; the model below does not read instructions."""

    def encode(self, strings: list[str]) -> np.ndarray:
        """Return (N, 1) float32."""
        return np.array([[float(len(text))] for text in strings], np.float32)


def write_octo(folder: Path, layers: int = 12, width: int = 384, heads: int = 6, head_width: int = 256) -> None:
    """Write a checkpoint that OctoPolicy loads. The defaults are Octo-small's sizes, without wrist camera and T5."""
    from octo.model.components.action_heads import DiffusionActionHead
    from octo.model.components.tokenizers import ImageTokenizer
    from octo.model.components.vit_encoders import SmallStem16
    from octo.model.octo_model import OctoModel
    from octo.utils.spec import ModuleSpec
    keys = {'obs_stack_keys': ['image_primary'], 'task_stack_keys': ['image_primary']}
    config = {
        'model': {
            'observation_tokenizers': {'primary': ModuleSpec.create(
                ImageTokenizer, encoder=ModuleSpec.create(SmallStem16, use_film=False), **keys)},
            'task_tokenizers': {}, 'repeat_task_tokens': True, 'use_correct_attention': True,
            'heads': {'action': ModuleSpec.create(DiffusionActionHead, readout_key='readout_action', action_horizon=4,
                                                  action_dim=7, hidden_dim=head_width)},
            'readouts': {'action': 1}, 'token_embedding_size': width, 'max_horizon': 10,
            'transformer_kwargs': {'num_layers': layers, 'mlp_dim': 4 * width, 'num_attention_heads': heads,
                                   'dropout_rate': 0.0, 'attention_dropout_rate': 0.0,
                                   'add_position_embedding': False}},
        'text_processor': ModuleSpec.create(LengthOfText)}
    image = np.zeros((1, 2, 256, 256, 3), np.uint8)
    batch = {'observation': {'image_primary': image, 'timestep_pad_mask': np.ones((1, 2), bool),
                             'pad_mask_dict': {'image_primary': np.ones((1, 2), bool)}},
             'task': {'image_primary': image[:, 0], 'language_instruction': np.zeros((1, 1), np.float32),
                      'pad_mask_dict': {'image_primary': np.ones(1, bool), 'language_instruction': np.ones(1, bool)}},
             'action': np.zeros((1, 2, 4, 7), np.float32)}
    model = OctoModel.from_config(config, batch, LengthOfText(), dataset_statistics=OCTO_STATISTICS)
    model.save_pretrained(0, str(folder))


def write_rt1x(rt1: ModuleType, folder: Path, instruction: str) -> dict[str, str]:
    """Write checkpoint and embedding of one instruction; return RT1XPolicy's options for them, but for `source`.

    Args:
        rt1: the module of the model code; it decides the size.
        folder: to write to.
        instruction: gets a random embedding.
    """
    import jax
    from flax.training import checkpoints

    from vgps_policy_bridge.policies.rt1x import ACTION_TOKENS, EMBEDDING, FRAMES, IMAGE_SIZE, MODEL
    inputs = {'image': np.zeros((1, FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32),
              'natural_language_embedding': np.zeros((1, FRAMES, EMBEDDING), np.float32)}
    key = jax.random.PRNGKey(0)
    # Only the shapes: running the model's own initialisation compiles it a second time.
    shapes = jax.eval_shape(lambda: rt1.RT1(**MODEL).init(
        {'params': key, 'random': key}, inputs, act=None, act_tokens=np.zeros((1, FRAMES, ACTION_TOKENS)),
        train=False))
    rng = np.random.default_rng(0)

    def fill(path, shape):
        if path[-1].key in ('scale', 'var'):
            return np.ones(shape.shape, np.float32)
        fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 100
        return rng.normal(0, fan_in ** -0.5, shape.shape).astype(np.float32)
    variables = jax.tree_util.tree_map_with_path(fill, {name: shapes[name] for name in ('params', 'batch_stats')})
    folder = Path(folder).absolute()
    checkpoints.save_checkpoint(str(folder / 'checkpoint'), variables, 0)
    embedding = rng.normal(0, 0.05, (1, EMBEDDING)).astype(np.float32)
    np.savez(folder / 'embeddings.npz', instructions=np.array([instruction]), embeddings=embedding)
    return {'checkpoint': str(folder / 'checkpoint'), 'embeddings': str(folder / 'embeddings.npz')}
