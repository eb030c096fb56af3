"""OpenVLA (transformers): K action token sequences for one prefill of image and prompt.

`vla.generate` refuses more than one row and `predict_action` is greedy, so the language model is driven directly.
"""

from __future__ import annotations

import io
import logging
import time
from dataclasses import replace

import numpy as np

from vgps_policy_bridge.errors import MissingExtraError, PolicyError
from vgps_policy_bridge.policies.checkpoints import choose_statistics, dataset_statistics, normalised, pinned_revision
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds
from vgps_policy_bridge.proposals import merge_duplicates

LOG = logging.getLogger(__name__)
# Its code runs in this process: the commit is part of the name.
OPENVLA_7B = 'openvla/openvla-7b@31f090d05236101ebfc381b61c674dd4746d4ce0'
ACTION_TOKENS = 7
VOCABULARY = 32000  # Llama's; the last 256 ids stand for bins, id 31999 for the first one
FIRST_ID, LAST_ID = VOCABULARY - 256, VOCABULARY - 1
BLANK = 29871  # the model was trained with this id before the first action token
SYSTEM_PROMPT = ('A chat between a curious user and an artificial intelligence assistant. '
                 "The assistant gives helpful, detailed, and polite answers to the user's questions.")


def prompt(instruction: str, checkpoint: str) -> str:
    """Return the text the checkpoint was trained with: v0.1 speaks Vicuna's dialogue, the later one In/Out."""
    question = f'What action should the robot take to {instruction.lower()}?'
    return f'{SYSTEM_PROMPT} USER: {question} ASSISTANT:' if 'v01' in checkpoint else f'In: {question}\nOut:'


def unnormalise(ids: np.ndarray, statistics: dict) -> np.ndarray:
    """Return physical actions (K, 7) float32 of token ids (K, 7).

    The bins are those between 256 uniform edges on -1 .. 1 (255 centres; ids beyond fall on the last). Dimensions
    under the mask go from -1 .. 1 to q01 .. q99; the gripper, usually not under it, is the centre itself; it is clipped
    to 0..1.

    Args:
        ids: 31744 .. 31999.
        statistics: 'q01', 'q99' (7,) of the model's own data set, and 'mask' (7,), without which all were normalised.
    """
    edges = np.linspace(-1.0, 1.0, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    values = centres[np.clip(VOCABULARY - np.asarray(ids) - 1, 0, len(centres) - 1)]
    low, high = np.asarray(statistics['q01']), np.asarray(statistics['q99'])
    actions = np.where(normalised(statistics), 0.5 * (values + 1) * (high - low) + low, values)
    actions[:, GRIPPER] = np.clip(actions[:, GRIPPER], 0.0, 1.0)
    return actions.astype(np.float32)


def prepare_image(image: np.ndarray, size: int = 224):
    """Return a PIL image as the training data were: through JPEG, Lanczos to a square."""
    from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=95)
    return Image.open(buffer).convert('RGB').resize((size, size), Image.Resampling.LANCZOS)


class TokenSampler:
    """Draws action tokens from a vision-language-action model built like OpenVLA.

    Args:
        vla: with vision_backbone, projector and language_model, as in the hub's OpenVLAForActionPrediction.
        max_rows: rows decoded at once.
        top_p: see shared_prefix.restrict.
    """

    def __init__(self, vla, max_rows: int, top_p: float):
        self._vla, self._max_rows, self._top_p = vla, max_rows, top_p

    def prefix(self, ids, pixels):
        """Return the input embeddings (1, L, D): [BOS, image patches, rest of the prompt, blank].

        Args:
            ids: (1, T) token ids of the prompt, BOS first.
            pixels: as the image processor gives them.
        """
        import torch
        if ids[0, -1] != BLANK:
            ids = torch.cat([ids, torch.full((1, 1), BLANK, dtype=ids.dtype, device=ids.device)], 1)
        words = self._vla.language_model.get_input_embeddings()(ids)
        patches = self._vla.projector(self._vla.vision_backbone(pixels)).to(words.dtype)
        return torch.cat([words[:, :1], patches, words[:, 1:]], 1)

    def sample(self, ids, pixels, k: int, temperature: float, seed: int):
        """Return token ids (K, 7) and log-probabilities (K,); decodes fewer rows at once when memory is short."""
        import torch

        from vgps_policy_bridge.policies.shared_prefix import sample_shared_prefix
        with torch.inference_mode():
            prefix = self.prefix(ids, pixels)
        rows = min(self._max_rows, k)
        while True:
            generator = torch.Generator(prefix.device).manual_seed(seed)
            try:
                drawn, log_p = sample_shared_prefix(
                    self._vla.language_model, prefix, k, ACTION_TOKENS, FIRST_ID, LAST_ID,
                    max(temperature, 1e-3), self._top_p, rows, generator)
                return drawn.cpu().numpy(), log_p.cpu().numpy()
            except torch.cuda.OutOfMemoryError:
                if rows == 1:
                    raise
                torch.cuda.empty_cache()
                rows = self._max_rows = max(1, rows // 2)


class OpenVLAPolicy:
    """OpenVLA behind the seam. Needs about 15 GB of GPU memory for the weights.

    Args:
        checkpoint: folder, or `owner/name@COMMIT` on the hub, whose model code runs in this process;
            `openvla/openvla-v01-7b` is the paper's. `v01` in it selects that one's prompt.
        statistics: key of the data set whose statistics un-normalise the actions. '' takes those of the checkpoint's
            own `dataset_statistics.json`, as a fine-tuning writes it, otherwise `bridge_orig`.
        device: torch device; '' takes CUDA where there is one.
        max_rows: candidates decoded at once: 16 fit a 24 GB card.
        top_p: nucleus, (0, 1].
    """

    def __init__(self, checkpoint: str = OPENVLA_7B, statistics: str = '', device: str = '', max_rows: int = 16,
                 top_p: float = 1.0):
        try:
            import timm  # noqa: F401  the hub's model code needs it
            import torch
            from transformers import AutoModelForVision2Seq, AutoProcessor
        except ImportError as error:
            raise MissingExtraError('openvla', 'openvla', error) from error
        if not 0 < top_p <= 1 or max_rows < 1:
            raise PolicyError('openvla: top_p must be in (0, 1] and max_rows >= 1')
        name, revision = pinned_revision(checkpoint, 'it brings model code that runs in this process')
        LOG.warning('running the model code of %s, revision %s', name, revision or 'of this folder')
        self._device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self._dtype = torch.bfloat16 if self._device.startswith('cuda') else torch.float32
        code = {'trust_remote_code': True, 'revision': revision}
        self._processor = AutoProcessor.from_pretrained(name, **code)
        vla = AutoModelForVision2Seq.from_pretrained(
            name, torch_dtype=self._dtype, low_cpu_mem_usage=True, **code).to(self._device).eval()
        key, chosen = choose_statistics(name, statistics, dataset_statistics(name, revision), vla.norm_stats,
                                        usual='bridge_orig', scale=('q01', 'q99'))
        LOG.info('actions un-normalised with the statistics of %s', key)
        self._statistics, self._key = chosen['action'], key
        self._sampler = TokenSampler(vla, max_rows, top_p)
        self._checkpoint, self._identity = name, f'openvla {checkpoint}, statistics {key}'
        self.temperature = 1.0
        self._seeds, self._instruction = StepSeeds(), ''

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode."""
        self._instruction, self._seeds = instruction, StepSeeds(seed)

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k single actions; equal ones are merged with counts, so fewer rows may come back."""
        seed, start = self._seeds.next(), time.perf_counter()
        inputs = self._processor(prompt(self._instruction, self._checkpoint), prepare_image(observation.image))
        ids = inputs['input_ids'].to(self._device)
        pixels = inputs['pixel_values'].to(self._device, dtype=self._dtype)
        prepared = time.perf_counter()
        drawn, log_p = self._sampler.sample(ids, pixels, k, float(self.temperature), seed)
        stages = {'prepare': 1e3 * (prepared - start), 'sample': 1e3 * (time.perf_counter() - prepared)}
        candidates = Candidates(unnormalise(drawn, self._statistics)[:, None], policy=self._identity,
                                log_probabilities=log_p, temperature=float(self.temperature), seed=seed, stages=stages,
                                statistics=self._key)
        return replace(merge_duplicates(candidates), stages=stages)
