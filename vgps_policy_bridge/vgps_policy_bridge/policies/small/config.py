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
        # the largest sizes are far beyond any small policy and keep a hostile checkpoint from being built
        for name, low, high in (('image_size', 32, 256), ('channels', 1, 1024), ('width', 1, 8192),
                                ('horizon', 1, 1000), ('bins', 2, 256), ('integration_steps', 1, 1000)):
            if type(getattr(self, name)) is not int or not low <= getattr(self, name) <= high:
                raise PolicyError(f'{name} must be an integer within {low} and {high}, '
                                  f'not {str(getattr(self, name))[:80]!r}')
        for name in ('uses_state', 'binary_gripper'):
            if not isinstance(getattr(self, name), bool):
                raise PolicyError(f'{name} must be true or false, not {str(getattr(self, name))[:80]!r}')
        for name in ('state_mean', 'state_scale', 'action_mean', 'action_scale', 'action_low', 'action_high'):
            values = getattr(self, name)
            if not isinstance(values, (list, tuple)) or len(values) != 7 or not all(
                    isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e6 for x in values):
                raise PolicyError(f'{name} must be 7 finite numbers, not {str(values)[:80]}')
            object.__setattr__(self, name, tuple(values))
        if not isinstance(self.instructions, (list, tuple)) or not all(isinstance(x, str) for x in self.instructions):
            raise PolicyError('instructions must be a list of texts')
        object.__setattr__(self, 'instructions', tuple(self.instructions))
        if self.kind not in ('flow', 'binned'):
            raise PolicyError(f"kind must be 'flow' or 'binned', not {str(self.kind)[:80]!r}")
        if self.image_size % 8:
            raise PolicyError(f'image_size must be a multiple of 8 within 32 .. 256, not {self.image_size}')
        if self.kind == 'binned' and self.horizon != 1:
            raise PolicyError(f'a binned policy has horizon 1, not {self.horizon}')

    def to_dict(self) -> dict:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> SmallConfig:
        """Build from `to_dict`; unknown keys raise PolicyError (a checkpoint of a newer version)."""
        if not isinstance(values, dict):
            raise PolicyError('the checkpoint holds no table of settings')
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise PolicyError(f'checkpoint holds unknown settings {sorted(unknown)}: it is newer than this package')
        if 'kind' not in values:
            raise PolicyError("the checkpoint's settings lack 'kind'")
        return cls(**values)
