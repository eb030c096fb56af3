"""What a small policy is made of; stored in its checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from vgps_policy_bridge.errors import PolicyError


@dataclass(frozen=True)
class SmallConfig:
    """Architecture and normalisation of one policy. Raises PolicyError for values that cannot work."""

    kind: str  # 'flow' or 'binned'
    image_size: int = 64  # [pixels] images are shrunk to this square; a multiple of 8, 32 .. 256
    channels: int = 32  # of the first convolution; the others have 1.5 and 2 times as many
    width: int = 256  # units of the context and of the hidden layers
    horizon: int = 4  # H, actions in a chunk; 1 for 'binned'
    bins: int = 128  # per action dimension, 2 .. 256 ('binned')
    integration_steps: int = 10  # Euler steps from noise to action ('flow')
    uses_state: bool = True  # looks at the robot state besides image and instruction
    binary_gripper: bool = True  # the data's gripper is 0 or 1 throughout, so proposals are snapped to that
    state_mean: tuple[float, ...] = (0.0,) * 7  # m, rad, openness
    state_scale: tuple[float, ...] = (1.0,) * 7
    action_mean: tuple[float, ...] = (0.0,) * 7  # m, rad, openness ('flow')
    action_scale: tuple[float, ...] = (1.0,) * 7
    action_low: tuple[float, ...] = (0.0,) * 7  # edge of the first bin ('binned')
    action_high: tuple[float, ...] = (1.0,) * 7  # edge of the last bin
    instructions: tuple[str, ...] = ()  # seen in training, for the record

    def __post_init__(self):
        for field in fields(self):
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        if self.kind not in ('flow', 'binned'):
            raise PolicyError(f"kind must be 'flow' or 'binned', not {self.kind!r}")
        if self.image_size % 8 or not 32 <= self.image_size <= 256:
            raise PolicyError(f'image_size must be a multiple of 8 within 32 .. 256, not {self.image_size}')
        if not 2 <= self.bins <= 256 or self.horizon < 1 or (self.kind == 'binned' and self.horizon != 1):
            raise PolicyError('bins must be 2 .. 256 and horizon >= 1 (1 for a binned policy)')

    def to_dict(self) -> dict:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> SmallConfig:
        """Build from `to_dict`; unknown keys raise PolicyError (a checkpoint of a newer version)."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise PolicyError(f'checkpoint holds unknown settings {sorted(unknown)}: it is newer than this package')
        return cls(**values)
