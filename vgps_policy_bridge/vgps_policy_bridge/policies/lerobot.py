"""LeRobot policies in this process (act, diffusion, smolvla, pi0, pi05): one batch of K equal observations.

Noise is drawn per row, so K rows give K different chunks from one call of `predict_action_chunk`; `select_action`
keeps a queue of actions and must not be used for sampling. A policy without noise (act) gives K equal chunks, which
are merged into one that is counted.
"""

from __future__ import annotations

import logging
import time
from collections import deque

import numpy as np

from vgps_policy_bridge.errors import CandidatesError, MissingExtraError, PolicyError
from vgps_policy_bridge.policies.checkpoints import openness, physical_action_width, split_revision
from vgps_policy_bridge.policy import GRIPPER, Candidates, Observation, StepSeeds

LOG = logging.getLogger(__name__)
ROUNDING = 1e-5  # [m, rad, openness] far below what an arm can do, far above float32's error


def _register_plugins() -> None:
    """Let LeRobot find policy types of other installed packages; versions before 0.6 cannot or need not."""
    try:
        from lerobot.utils.import_utils import register_third_party_plugins
    except ImportError:
        return
    register_third_party_plugins()


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
        checkpoint: folder, or hub id, with a revision as `owner/name@revision`.
        image_key: name of the camera in the policy's features.
        wrist_image_key: likewise the wrist camera's; '' where it has none.
        state_key: name of the robot state; '' leaves it out.
        device: torch device; '' takes CUDA where there is one.
    """

    def __init__(self, checkpoint: str, image_key: str = 'observation.images.image_0',
                 state_key: str = 'observation.state', device: str = '', wrist_image_key: str = ''):
        try:
            import torch
            from lerobot.configs.policies import PreTrainedConfig
            from lerobot.policies.factory import get_policy_class, make_pre_post_processors
        except ImportError as error:
            raise MissingExtraError('lerobot', 'lerobot', error) from error
        _register_plugins()
        name, revision = split_revision(checkpoint)
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        config = PreTrainedConfig.from_pretrained(name, revision=revision)
        config.device = device
        cameras = [key for key in (image_key, wrist_image_key) if key]
        for key in cameras:
            if key not in config.image_features:
                raise PolicyError(f'lerobot: {checkpoint} has no image {key!r}; it has '
                                  f'{", ".join(config.image_features)}')
        lacking = ', '.join(key for key in config.image_features if key not in cameras)
        if lacking and not hasattr(config, 'empty_cameras'):  # these were trained to do without some
            raise PolicyError(f'lerobot: {checkpoint} also uses {lacking}; if that is the wrist camera, give '
                              'wrist_topic and the policy option wrist_image_key')
        action = config.output_features.get('action')
        physical_action_width(f'lerobot {checkpoint}', action.shape[0] if action else 0)
        try:
            kind = get_policy_class(config.type)
            self._policy = kind.from_pretrained(name, config=config, revision=revision).eval()
        except ImportError as error:  # diffusion and smolvla need packages that only an extra of lerobot installs
            raise PolicyError(f'lerobot: policy type {config.type!r} needs more than lerobot itself: {error}. pip '
                              f"install 'lerobot[{config.type}]' into the policy server's environment") from error
        if untrained := getattr(config, 'drop_n_last_frames', 0):  # lerobot executes whole chunks, this suite does not
            LOG.warning('lerobot: %s was trained without the last %d frames of its episodes, and here every step takes '
                        'the first action of a new chunk: what was done in those frames, such as letting go, it never '
                        'does. Train with --policy.drop_n_last_frames=0', checkpoint, untrained)
        self._features = config.image_features
        # The diffusion policy looks at several frames, from a queue that only its select_action fills.
        self._history = deque(maxlen=config.n_obs_steps) if config.type == 'diffusion' else None
        override = {'device_processor': {'device': device}}
        self._before, self._after = make_pre_post_processors(
            config, pretrained_path=name, revision=revision, preprocessor_overrides=override,
            postprocessor_overrides=override)
        self._cameras, self._state_key = cameras, state_key
        self._identity = f'lerobot {config.type} {checkpoint}' + (f', without {lacking}' if lacking else '')
        self._instruction, self._seeds = '', StepSeeds()

    def reset(self, instruction: str, seed: int = 0) -> None:
        """Begin an episode."""
        self._instruction, self._seeds = instruction, StepSeeds(seed)
        self._policy.reset()
        if self._history is not None:
            self._history.clear()

    def propose(self, observation: Observation, k: int) -> Candidates:
        """Draw k chunks in one batch; fewer rows come back where the policy is deterministic."""
        import torch
        seed, start, inputs = self._seeds.next(), time.perf_counter(), {'task': self._instruction}
        pictures = [observation.image, *([observation.require_wrist('lerobot')] if len(self._cameras) > 1 else [])]
        for key, picture in zip(self._cameras, pictures):
            image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255.0
            size = tuple(self._features[key].shape[1:])  # bilinear, as LeRobot's own robot client resizes
            inputs[key] = torch.nn.functional.interpolate(image[None], size=size, mode='bilinear',
                                                          align_corners=False)[0]
        if self._state_key:
            inputs[self._state_key] = torch.from_numpy(observation.require_state('lerobot').copy())
        batch = {key: value for key, value in self._before(inputs).items() if key.startswith('observation') or
                 key == 'task'}  # the pipeline adds an action of None, which the queue of frames would take for one
        if self._history is not None:
            batch['observation.images'] = torch.stack([batch[name] for name in self._features], dim=-4)
            self._history.append(batch)
            self._fill_queue(k)
        batch = repeat_rows(batch, k)
        prepared = time.perf_counter()
        # LeRobot's policies draw their noise from torch's global generator.
        torch.manual_seed(seed)
        with torch.inference_mode():
            chunk = self._policy.predict_action_chunk(batch)
            actions = torch.stack([self._after(chunk[:, h]) for h in range(chunk.shape[1])], 1).cpu().float().numpy()
        if actions.shape[0] != k or actions.shape[2] != 7:
            raise CandidatesError(f'lerobot: expected ({k}, H, 7), got {actions.shape}')
        actions = actions.copy()
        actions[..., GRIPPER] = openness(actions[..., GRIPPER], 'lerobot')
        # Rows of one batch differ by rounding even where no noise was drawn.
        equal = k > 1 and np.ptp(actions, 0).max() < ROUNDING
        return Candidates(
            actions[:1] if equal else actions, policy=self._identity, counts=[k] if equal else None, seed=seed,
            used=('image', 'instruction') + ('state',) * bool(self._state_key) +
            ('wrist_image',) * (len(self._cameras) > 1),
            stages={'prepare': 1e3 * (prepared - start), 'sample': 1e3 * (time.perf_counter() - prepared)})

    def _fill_queue(self, k: int) -> None:
        """Put k rows of each remembered frame where the policy looks for them; k may have changed since."""
        from lerobot.policies.utils import populate_queues
        self._policy.reset()
        for past in self._history:  # the first one fills the whole queue
            populate_queues(self._policy._queues, repeat_rows(past, k))
