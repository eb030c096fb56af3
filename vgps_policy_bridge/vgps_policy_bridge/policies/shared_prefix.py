"""K samples from a decoder for one prefill: the prompt is processed once, and its key-value cache serves K rows.

The policy's image and prompt are the same for all K candidates; only the few action tokens differ. So the model reads
the prefix once, the K first tokens are drawn from that one distribution, and the remaining tokens are decoded for K
rows at a time on the expanded cache.
"""

from __future__ import annotations

import copy
import inspect

import torch


def restrict(logits: torch.Tensor, first: int, last: int, temperature: float, top_p: float) -> torch.Tensor:
    """Return log-probabilities (B, last - first + 1) over the allowed ids.

    Args:
        logits: (B, vocabulary).
        first: first allowed id.
        last: last allowed id, included.
        temperature: > 0.
        top_p: in (0, 1]; the least probable ids beyond this mass get -inf, the most probable one always stays.
    """
    log_p = (logits[:, first:last + 1].float() / temperature).log_softmax(-1)
    if top_p < 1.0:
        ordered, order = log_p.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()  # mass of the more probable ones
        removed = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        log_p = log_p.masked_fill(removed, -torch.inf).log_softmax(-1)
    return log_p


@torch.inference_mode()
def sample_shared_prefix(language_model, prefix: torch.Tensor, k: int, length: int, first: int, last: int,
                         temperature: float = 1.0, top_p: float = 1.0, max_rows: int = 16,
                         generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw K token sequences after one prefill.

    Args:
        language_model: a causal model of `transformers` (any version since 4.40).
        prefix: (1, L, D) input embeddings of image and prompt.
        k: number of sequences.
        length: tokens per sequence.
        first: first id that may be drawn.
        last: last id that may be drawn, included.
        temperature: > 0; for the most probable sequence use a small one.
        top_p: see `restrict`.
        max_rows: rows decoded at once; the cache of a 7B model takes about 143 MiB per row at 286 tokens.
        generator: on the model's device.

    Returns:
        ids (K, length) int64 and their log-probabilities (K,) under the distribution they were drawn from.
    """
    name = _cache_name(language_model)
    output = language_model(inputs_embeds=prefix, use_cache=True)
    log_p = restrict(output.logits[:, -1], first, last, temperature, top_p)
    ids, totals = [], []
    for start in range(0, k, max_rows):
        rows = min(max_rows, k - start)
        cache = _expand(getattr(output, name), rows)
        row_log_p, total, tokens = log_p.expand(rows, -1), torch.zeros(rows, device=prefix.device), []
        for position in range(length):
            drawn = torch.multinomial(row_log_p.exp(), 1, generator=generator)
            total = total + row_log_p.gather(1, drawn)[:, 0]
            tokens.append(drawn + first)
            if position == length - 1:
                break
            step = language_model(input_ids=tokens[-1], use_cache=True, **{name: cache})
            cache = getattr(step, name)
            row_log_p = restrict(step.logits[:, -1], first, last, temperature, top_p)
        ids.append(torch.cat(tokens, 1))
        totals.append(total)
    return torch.cat(ids), torch.cat(totals)


def _cache_name(language_model) -> str:
    """Return what this version of transformers calls the cache; 5.40 will no longer know the old name."""
    return 'cache' if 'cache' in inspect.signature(language_model.forward).parameters else 'past_key_values'


def _expand(cache, rows: int):
    """Return the cache of one row for `rows` rows; the original stays as it is."""
    if isinstance(cache, tuple):  # transformers <= 4.4x without cache objects: views, copied at the first append
        return tuple(tuple(tensor.expand(rows, -1, -1, -1) for tensor in layer) for layer in cache)
    cache = copy.deepcopy(cache)  # cache objects are appended to in place
    cache.batch_repeat_interleave(rows)
    return cache
