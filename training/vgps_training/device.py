"""Which device a run trains on."""
import torch


def choose(name: str) -> torch.device:
    """Return the device called 'auto' (a GPU where torch sees one), 'cpu', 'cuda' or 'cuda:N'.

    Raises ValueError for another name, and where torch sees no such GPU.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {name!r}")
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs '
                         '(nvidia-smi lists those of the machine; a CPU build of torch sees none)')
    return device
