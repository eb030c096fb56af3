"""The critic as the rest of the project sees it: encode a frame once, score any number of candidates."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vgps_critic import checkpoint
from vgps_critic.action_space import ACTION_DIM, ActionSpace
from vgps_critic.config import CheckpointError, CriticConfig, NetworkConfig
from vgps_critic.network import CriticNetwork, build_network
from vgps_critic.runtime import make_encoder
from vgps_critic.text import MUSE_NUMPY, InstructionEncoder, check_embedding, load_instruction_encoder
from vgps_msgs_py.lanczos import resize


@dataclass(frozen=True)
class EncodedObservation:
    """One frame and one instruction after the encoder; scoring needs nothing else."""

    features: torch.Tensor  # (1, D) float32
    milliseconds: dict[str, float]  # per stage: embed, resize, encode
    distance: float = math.nan  # of the features from the critic's data, see `outlook`; NaN without one
    familiarity: float = math.nan  # of the instruction, likewise


class Critic:
    """A value function ready to score: `encode` once per frame, then `score` K candidates in one small pass.

    Attributes:
        config: what it is and where it comes from (`CriticConfig`).
        action_space: physical bounds, `.low` and `.high`.
        hash: SHA-256 of weights and configuration, hex.
        encoder: images (1, S, S, 3) uint8, language (1, L) -> features (1, D), by the chosen runtime.

    """

    def __init__(self, network: CriticNetwork, config: CriticConfig, *, digest: str | None = None,
                 instructions: InstructionEncoder | str = 'muse-numpy', device: str = 'cpu',
                 runtime: str = 'torch', precision: str = 'float32'):
        self.config = config
        self.action_space = config.action_space
        self.hash = digest or checkpoint.content_hash(checkpoint.state_arrays(network), config)
        self.device = torch.device(device)
        # channels-last weights spare a reordering in every convolution: same numbers, about 0.7 x the time on CPU
        self.network = network.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
        self.encoder = make_encoder(self.network, runtime, precision)
        self._instructions = instructions

    @classmethod
    def load(cls, path_or_hub_id: str | Path, *, revision: str | None = None, **options) -> 'Critic':
        """Load a checkpoint and warm it up.

        Args:
            path_or_hub_id: a folder, `owner/name` or `owner/name@revision` on the Hugging Face hub (cached copies serve
                offline), or `default`.
            revision: branch, tag or commit on the hub.
            options: `instructions`, an encoder or a source as in `load_instruction_encoder`, made when first used;
                `device`, torch's; `runtime` and `precision` as in `runtime.make_encoder`.

        Raises:
            CheckpointError: anything missing, damaged or foreign.

        """
        state, config, digest = checkpoint.read(path_or_hub_id, revision)
        network = build_network(config.network, state, f'{path_or_hub_id}/{checkpoint.WEIGHTS}')
        critic = cls(network, config, digest=digest, **options)
        if not np.isfinite(critic.warm_up()).all():
            raise CheckpointError(f'{path_or_hub_id}: the values of a black image are not finite: the weights are too '
                                  'large to compute with')
        return critic

    @classmethod
    def untrained(cls, seed: int = 0, *, action_space: ActionSpace | None = None, options: dict | None = None,
                  **width) -> 'Critic':
        """Return a critic with random weights, for benchmarks and tests; `width` goes to `NetworkConfig`.

        `options` are those of `load`.

        FiLM gets small random weights too (the reference starts it at zero), so that the instruction matters.
        """
        network_config = NetworkConfig(**width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = CriticNetwork(network_config)
            for name, parameter in network.named_parameters():
                if '.films.' in name:
                    torch.nn.init.normal_(parameter, std=0.05)
        config = CriticConfig(action_space or ActionSpace.named('bridge'), network_config, text_encoder=MUSE_NUMPY,
                              algorithm='untrained')
        critic = cls(network, config, **(options or {}))
        critic.warm_up()
        return critic

    @property
    def instructions(self) -> InstructionEncoder:
        """The instruction encoder named by the checkpoint, made at first use."""
        if isinstance(self._instructions, str):
            self._instructions = load_instruction_encoder(self.config.text_encoder, self._instructions)
        return self._instructions

    def warm_up(self) -> np.ndarray:
        """Run encoder and head once, so that the first frame of an episode is as fast as the rest; return its value."""
        size = self.config.image_size
        language = np.zeros(self.config.network.language_dim, np.float32)
        encoded = self.encode(np.zeros((size, size, 3), np.uint8), language)
        return self.score(encoded, np.zeros((1, ACTION_DIM), np.float32))

    def encode(self, image: np.ndarray, instruction: str | np.ndarray) -> EncodedObservation:
        """Encode one frame.

        Args:
            image: (H, W, 3) uint8 RGB, any size.
            instruction: unmodified UTF-8 text, or its embedding (512,) float32.

        Raises:
            ValueError: wrong image or embedding.
            UnknownInstructionError: the instruction encoder cannot embed the text.

        """
        start = time.perf_counter()
        language = self.instructions.encode(instruction) if isinstance(instruction, str) else instruction
        language = check_embedding(language, self.config.network.language_dim)
        embedded = time.perf_counter()
        image = resize(image, self.config.image_size)
        resized = time.perf_counter()
        # copies, because torch refuses read-only arrays
        features = self.encoder(torch.from_numpy(np.array(image[None])), torch.from_numpy(np.array(language[None])))
        stages = {'embed': embedded - start, 'resize': resized - embedded, 'encode': time.perf_counter() - resized}
        return EncodedObservation(features, {name: 1e3 * seconds for name, seconds in stages.items()})

    @torch.inference_mode()
    def score(self, encoded: EncodedObservation, actions: np.ndarray) -> np.ndarray:
        """Return Q-values (E, K) float32 of K physical actions (K, 7); NaN features give NaN, they are not hidden.

        Raises:
            ValueError: wrong shape, no action, NaN or inf in an action (names the first).

        """
        actions = np.asarray(actions, np.float32)
        if actions.ndim != 2 or actions.shape[1] != ACTION_DIM or not len(actions):
            raise ValueError(f'actions have shape {actions.shape}, expected (K, {ACTION_DIM}) with K >= 1')
        bad = np.argwhere(~np.isfinite(actions))
        if len(bad):
            raise ValueError(f'action {bad[0][0]} is not finite: {actions[bad[0][0]]}')
        normalized = torch.from_numpy(self.action_space.normalize(actions)).to(self.device)
        q_values = self.network.q_values(encoded.features, normalized[None])  # (E, 1, K)
        return q_values[:, 0].float().cpu().numpy()

    def save(self, folder: str | Path) -> str:
        """Write the checkpoint into a folder and return its content hash."""
        return checkpoint.save(folder, self.network, self.config)
