"""LeRobot policies in this process (act, diffusion, smolvla, pi0, pi05 ...): one batch of K equal observations.

Noise is drawn per row, so K rows give K different chunks from one call of `predict_action_chunk`; `select_action`
keeps a queue and must not be used for sampling. A policy without noise (act) gives K equal chunks, which are merged.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from vgps_policy_bridge.errors import CandidatesError, MissingExtraError, PolicyError
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds
from vgps_policy_bridge.proposals import merge_duplicates


def repeat_rows(batch: dict, k: int) -> dict:
    """Return a batch of one as a batch of k: tensors along their first axis, lists by repetition."""
    import torch

    def repeat(value):
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            return value.repeat_interleave(k, 0) if value.shape[0] == 1 else value
        if isinstance(value, list) and len(value) == 1:
            return value * k
        return repeat_rows(value, k) if isinstance(value, dict) else value
    return {key: repeat(value) for key, value in batch.items()}


class LeRobotPolicy:
    """A LeRobot checkpoint behind the seam. Its actions must be BridgeData's: metres and radians per step, openness.

    Args:
        checkpoint: hub id or folder.
        image_key: name of the camera in the policy's features.
        state_key: name of the robot state; '' leaves it out.
        device: torch device; '' takes CUDA where there is one.
    """

    def __init__(self, checkpoint: str, image_key: str = 'observation.images.image_0',
                 state_key: str = 'observation.state', device: str = ''):
        try:
            import torch
            from lerobot.configs.policies import PreTrainedConfig
            from lerobot.policies.factory import get_policy_class, make_pre_post_processors
        except ImportError as error:
            raise MissingExtraError('lerobot', 'lerobot', error) from error
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        config = PreTrainedConfig.from_pretrained(checkpoint)
        config.device = device
        if image_key not in config.image_features:
            raise PolicyError(f'lerobot: {checkpoint} has no image {image_key!r}; it has '
                              f'{", ".join(config.image_features)}')
        self._policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config).eval()
        override = {'device_processor': {'device': device}}
        self._before, self._after = make_pre_post_processors(
            config, pretrained_path=checkpoint, preprocessor_overrides=override, postprocessor_overrides=override)
        self._keys, self._identity = (image_key, state_key), f'lerobot {config.type} {checkpoint}'
        self._instruction, self._seeds = '', StepSeeds()

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode."""
        self._instruction, self._seeds = instruction, StepSeeds(seed)
        self._policy.reset()

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k chunks in one batch; fewer rows come back where the policy is deterministic."""
        import torch
        image_key, state_key = self._keys
        seed, start = self._seeds.next(), time.perf_counter()
        image = torch.from_numpy(observation.image.copy()).permute(2, 0, 1).float() / 255.0
        inputs = {image_key: image, 'task': self._instruction}
        if state_key:
            inputs[state_key] = torch.from_numpy(observation.require_state('lerobot').copy())
        batch = repeat_rows(self._before(inputs), k)
        prepared = time.perf_counter()
        # LeRobot's policies draw their noise from torch's global generator.
        torch.manual_seed(seed)
        with torch.inference_mode():
            chunk = self._policy.predict_action_chunk(batch)
            actions = torch.stack([self._after(chunk[:, h]) for h in range(chunk.shape[1])], 1).cpu().float().numpy()
        if actions.shape[0] != k or actions.shape[2] < 7:
            raise CandidatesError(f'lerobot: expected ({k}, H, 7 or more), got {actions.shape}')
        actions = actions[..., :7].copy()
        actions[..., GRIPPER] = np.clip(actions[..., GRIPPER], 0.0, 1.0)
        candidates = Candidates(
            actions, policy=self._identity, seed=seed,
            used=('image', 'instruction') + (('state',) if state_key else ()),
            stages={'prepare': 1e3 * (prepared - start), 'sample': 1e3 * (time.perf_counter() - prepared)})
        merged = merge_duplicates(candidates)
        return merged if len(merged) < k else replace(candidates, counts=None)
