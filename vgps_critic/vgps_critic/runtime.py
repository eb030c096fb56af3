"""Ways to run the image encoder: they give the same features, and which is fastest depends on the machine.

The encoder is nearly all of the work of a step, so it alone is replaced; the head stays in torch. Every runtime but
`torch` itself is checked against it when it is made.
"""

import contextlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vgps_critic.network import CriticNetwork

RUNTIMES = ('torch', 'compile', 'onnxruntime')
PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
TOLERANCE = 1e-4  # largest difference to eager float32 that a float32 runtime may have, in Q and in features

Encoder = Callable[[Tensor, Tensor], Tensor]  # images (1, S, S, 3) uint8, language (1, L) -> features (1, D) float32


class RuntimeMismatchError(RuntimeError):
    """A runtime gives other features than eager torch."""


def make_encoder(network: CriticNetwork, runtime: str = 'torch', precision: str = 'float32') -> Encoder:
    """Return a function that encodes one frame.

    Args:
        network: on its device; its weights must not change afterwards.
        runtime: `torch`: eager. `compile`: torch.compile, with CUDA graphs on a GPU; the first frame takes a minute.
            `onnxruntime`: CPU only, the fastest there; needs `pip install vgps-critic[fast]`.
        precision: `float32`, or `bfloat16` / `float16` autocast on a GPU that is faster with it: not exact.

    Raises:
        ValueError: unknown or impossible combination.
        ImportError: onnxruntime is not installed.
        RuntimeMismatchError: the features differ from eager torch by more than `TOLERANCE`.

    """
    if runtime not in RUNTIMES or precision not in PRECISIONS:
        raise ValueError(f'runtime {runtime!r} must be one of {RUNTIMES}, precision {precision!r} of {[*PRECISIONS]}')
    device = next(network.parameters()).device
    if runtime == 'onnxruntime':
        if device.type != 'cpu' or precision != 'float32':
            raise ValueError(f'runtime onnxruntime is for float32 on the cpu, not for {precision} on {device}')
        encoder = _onnxruntime(network)
    else:
        module = network.encoder
        if runtime == 'compile':
            module = torch.compile(module, mode='reduce-overhead' if device.type == 'cuda' else 'default')
        encoder = _torch(module, device, PRECISIONS[precision])
    if runtime != 'torch':
        _verify(network, encoder, device, TOLERANCE if precision == 'float32' else 0.1)
    return encoder


def _torch(module: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> Encoder:
    def encode(images: Tensor, language: Tensor) -> Tensor:
        autocast = contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
        with torch.inference_mode(), autocast:
            # a copy: the next call of a CUDA graph overwrites its output
            return module(images.to(device), language.to(device)).float().clone()
    return encode


def _onnxruntime(network: CriticNetwork) -> Encoder:
    try:
        import onnx  # noqa: F401  torch's exporter needs it
        import onnxruntime
    except ImportError as e:
        raise ImportError('runtime onnxruntime needs: pip install onnxruntime onnx') from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # its threads would go on spinning after the encoder and take the cores from the scoring in torch
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    example = _example(network)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter warns of its own deprecation; its successor takes a minute
        path = Path(folder) / 'encoder.onnx'
        torch.onnx.export(network.encoder, example, path, input_names=['images', 'language'], dynamo=False)
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

    def encode(images: Tensor, language: Tensor) -> Tensor:
        features = session.run(None, {'images': images.numpy(), 'language': language.numpy()})[0]
        return torch.from_numpy(features)
    return encode


def _example(network: CriticNetwork) -> tuple[Tensor, Tensor]:
    """Return a noisy frame (1, S, S, 3) and embedding (1, L), always the same."""
    generator, size = torch.Generator().manual_seed(0), network.config.image_size
    images = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randn(1, network.config.language_dim, generator=generator) / network.config.language_dim**0.5


def _verify(network: CriticNetwork, encoder: Encoder, device: torch.device, tolerance: float) -> None:
    images, language = _example(network)
    with torch.inference_mode():
        expected = network.encoder(images.to(device), language.to(device))
    difference = (encoder(images, language).to(device) - expected).abs().max().item()
    if not difference <= tolerance * max(1.0, expected.abs().max().item()):
        raise RuntimeMismatchError(f'features differ from eager torch by {difference:.3g}, allowed {tolerance:.3g}')
