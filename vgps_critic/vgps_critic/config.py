"""What a critic is: sizes, action space, provenance. No torch, so that tools which only copy weights stay small."""

import json
from dataclasses import asdict, dataclass, field, fields

from vgps_critic.action_space import ACTION_DIM, ActionSpace
from vgps_msgs_py import images
from vgps_msgs_py.embeddings import MUSE

MIN_TRAINED_FILTERS = 8


class CheckpointError(ValueError):
    """The checkpoint is missing, damaged or foreign; the message names the file and the key."""


def whole(name: str, value: object, low: int, high: int) -> None:
    """Raise ValueError unless a value is an integer (True is none) within bounds."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f'{name} must be an integer within {low} and {high}, got {str(value)[:80]!r}')


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the critic's network. The defaults are the paper's (25,563,201 parameters)."""

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)  # residual blocks per stage; (3, 4, 6, 3) is ResNet-34
    num_filters: int = 64  # channels of the first stage, a multiple of 4, 8 to train; doubles with every stage
    image_size: int = 256  # pixels, side of the square input, 64..256
    hidden_dims: tuple[int, ...] = (256, 256)  # hidden layers of each ensemble member
    num_members: int = 2  # critics in the ensemble
    language_dim: int = 512  # length of the instruction's embedding
    action_dim: int = ACTION_DIM  # end-effector delta and gripper
    value_range: tuple[float, float] | None = None  # that values cannot leave, e.g. -50 0; paper: no such bounds

    def __post_init__(self):
        # the largest sizes are far beyond any critic and keep a hostile checkpoint from being built
        for name, most, largest in (('stage_sizes', 8, 200), ('hidden_dims', 16, 65536)):
            values = getattr(self, name)
            if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= most:
                raise ValueError(f'network: {name} must be a list of 1 to {most} numbers, got {str(values)[:80]}')
            for value in values:
                whole(f'network: {name}', value, 1, largest)
            object.__setattr__(self, name, tuple(values))
        for name, low, high in (('num_filters', 4, 4096), ('image_size', 64, 256), ('num_members', 1, 1000),
                                ('language_dim', 1, 65536), ('action_dim', ACTION_DIM, ACTION_DIM)):
            whole(f'network: {name}', getattr(self, name), low, high)
        self._check_range()
        if self.num_filters % 4:
            raise ValueError(f'network: num_filters must be a multiple of 4 (4 norm groups), got {self.num_filters}')

    def _check_range(self) -> None:
        if self.value_range is None:
            return
        values = self.value_range
        if not isinstance(values, (list, tuple)) or len(values) != 2 or \
                any(type(v) not in (int, float) for v in values):
            raise ValueError(f'network: value_range must be two numbers, got {str(values)[:80]}')
        low, high = map(float, values)
        if not -1e6 <= low < high <= 1e6:  # NaN fails too
            raise ValueError(f'network: value_range must be a lower and a higher number, got {low:g} and {high:g}')
        object.__setattr__(self, 'value_range', (low, high))

    def check_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raise ValueError where a file's shapes cannot be this network's: asked before anything is built.

        The few shapes that tell all sizes are looked at; `build_network` compares every one.
        """
        blocks, width = sum(self.stage_sizes), self.num_filters * 2 ** (len(self.stage_sizes) - 1)
        telling = {
            'encoder.conv_init.weight': (self.num_filters, 5, 7, 7),
            f'encoder.blocks.{blocks - 1}.conv_1.weight': (width, width, 3, 3),
            f'encoder.films.{blocks - 1}.shift.weight': (width, self.language_dim),
            'weights.0': (self.num_members, width + self.action_dim, self.hidden_dims[0]),
            **{f'biases.{i}': (self.num_members, size) for i, size in enumerate(self.hidden_dims)}}
        for name, shape in telling.items():
            if name not in shapes:
                raise ValueError(f'key {name} is missing')
            if shapes[name] != shape:
                raise ValueError(f'key {name} has shape {shapes[name]}, expected {shape}')

    def check_trainable(self) -> None:
        """Raise ValueError where training would corrupt memory.

        On processors without AVX-512, torch 2.13 writes beyond its memory in the backward pass of a 1x1 convolution of
        stride 2 with 4 input channels in channels-last order ("free(): invalid next size"). Scoring is not concerned.
        """
        if self.num_filters < MIN_TRAINED_FILTERS:
            raise ValueError(f'network: num_filters must be at least {MIN_TRAINED_FILTERS} to train, got '
                             f'{self.num_filters}: with fewer, torch corrupts memory on processors without AVX-512')


@dataclass(frozen=True)
class CriticConfig:
    """What a critic is and where it comes from; travels in its checkpoint."""

    action_space: ActionSpace  # bounds the network's actions were normalised with
    network: NetworkConfig = field(default_factory=NetworkConfig)
    text_encoder: str = MUSE  # identity of the instruction encoder it was trained with
    discount: float = 0.98  # gamma, 0..1 per step
    success_steps: int = 3  # H: last steps of a demonstration that count as success
    algorithm: str = ''  # what trained it: cal-ql, iql, untrained, ...
    data: str = ''  # what it was trained on
    step: int = 0  # updates

    def __post_init__(self):
        if type(self.discount) not in (int, float) or not 0 <= self.discount <= 1:
            raise ValueError(f'discount must be a number within 0 and 1, got {str(self.discount)[:80]!r}')
        whole('success_steps', self.success_steps, 0, 10**6)
        whole('step', self.step, 0, 10**12)
        for name in ('text_encoder', 'algorithm', 'data'):
            if not isinstance(getattr(self, name), str) or len(getattr(self, name)) > 10_000:
                raise ValueError(f'{name} must be a text of at most 10,000 characters')

    @property
    def image_size(self) -> int:
        """Side of the square input, pixels."""
        return self.network.image_size

    def to_dict(self) -> dict:
        """Return a JSON-ready dictionary; what older versions did not know is said only where it is used."""
        values = json.loads(json.dumps(asdict(self)))
        if values['network']['value_range'] is None:  # or the hash of every older checkpoint would change
            del values['network']['value_range']
        return values

    @classmethod
    def from_dict(cls, values: dict, where: str) -> 'CriticConfig':
        """Build from `to_dict()`'s output; raises `CheckpointError` naming the key that is missing or wrong."""
        known = {f.name for f in fields(cls)}
        for key in sorted(known ^ set(values)):
            raise CheckpointError(f'{where}: {"missing" if key in known else "unknown"} key {key!r}')
        parts = {}
        for key, part in (('network', NetworkConfig), ('action_space', ActionSpace)):
            try:
                parts[key] = part(**values[key])
            except (TypeError, ValueError) as e:
                raise CheckpointError(f'{where}: key {key!r}: {e}') from e
        try:
            return cls(**{**values, **parts})
        except ValueError as e:
            raise CheckpointError(f'{where}: {e}') from e


@dataclass(frozen=True)
class CriticNodeConfig:
    """What is fixed when `critic_node` starts; `SteeringConfig` holds what can change while it runs."""

    critic: str = field(default='', metadata={
        'description': "checkpoint: folder, hub id owner/name[@revision], or 'default' (shipped with the package); '' "
                       "or 'untrained': a small network with random weights", 'read_only': True})
    outlook: str = field(default='', metadata={
        'description': "folder of a critic or registry whose outlook is used; '': the critic's own, if it has one",
        'read_only': True})
    instruction_encoder: str = field(default='muse-numpy', metadata={
        'description': 'what embeds the instruction: muse-numpy, tensorflow-hub, or the path of a table of embeddings '
                       '(.npz)', 'read_only': True})
    device: str = field(default='cpu', metadata={
        'description': 'what the critic runs on: cpu, cuda, cuda:0, ...', 'read_only': True})
    runtime: str = field(default='torch', metadata={
        'description': 'runtime of the image encoder: torch; compile (GPU); onnxruntime (fastest on the CPU, an extra '
                       'install)',
        'choices': ('torch', 'compile', 'onnxruntime'), 'read_only': True})
    precision: str = field(default='float32', metadata={
        'description': 'precision of the image encoder: float32, or on a GPU bfloat16 or float16, which are not exact',
        'choices': ('float32', 'bfloat16', 'float16'), 'read_only': True})
    image_transport: str = field(default='auto', metadata=images.TRANSPORT)
    frame_wait_ms: float = field(default=150.0, metadata={
        'description': 'time to wait for a frame whose candidates arrived before it [ms]', 'range': (0.0, 2000.0),
        'read_only': True})
    base_frame: str = field(default='wx250s/base_link', metadata={
        'description': "frame_id of the commands: the arm's base", 'read_only': True})
