"""Autoregressive tokens: seven bins drawn one after the other, each given those before (as RT-2 and OpenVLA do)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from vgps_policy_bridge.policies.small.config import SmallConfig
from vgps_policy_bridge.policies.small.encoder import Encoder

TOKEN_FEATURES = 32


class BinnedNetwork(nn.Module):
    """Encoder and p(token_d | context, tokens before d) with one small shared network over positions."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        # row d * bins + token; on the meta device the usual initialisation takes seconds, to import torch's compiler
        self.tokens = nn.Embedding.from_pretrained(torch.randn(7 * config.bins, TOKEN_FEATURES), freeze=False)
        inputs = config.width + 7 * TOKEN_FEATURES + 7
        self.head = nn.Sequential(nn.Linear(inputs, config.width), nn.SiLU(),
                                  nn.Linear(config.width, config.width), nn.SiLU(),
                                  nn.Linear(config.width, config.bins))
        self.register_buffer('low', torch.tensor(config.action_low), persistent=False)
        self.register_buffer('high', torch.tensor(config.action_high), persistent=False)
        # Position d sees the tokens before d only.
        self.register_buffer('earlier', torch.tril(torch.ones(7, 7, device='cpu'), -1), persistent=False)

    def tokenise(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the bins (B, 7) int64 of physical actions (B, 7); values beyond the edges go to the outer bins."""
        position = (actions - self.low) / (self.high - self.low) * self.config.bins
        return position.floor().long().clamp(0, self.config.bins - 1)

    def centres(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the physical actions (B, 7) in the middle of the bins (B, 7)."""
        return self.low + (tokens + 0.5) / self.config.bins * (self.high - self.low)

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        rows = tokens + self.config.bins * torch.arange(7, device=tokens.device)
        return self.tokens(rows)  # (B, 7, F)

    def logits(self, context: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return all positions' logits (B, 7, bins) given the true tokens (B, 7) before each."""
        batch = len(tokens)
        prefix = (self.earlier[None, :, :, None] * self._embed(tokens)[:, None]).flatten(2)  # (B, 7, 7 F)
        position = torch.eye(7, device=tokens.device).expand(batch, 7, 7)
        return self.head(torch.cat([context[:, None].expand(batch, 7, -1), prefix, position], 2))

    def loss(self, context: torch.Tensor, actions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the mean cross-entropy of the data's tokens; as FlowNetwork.loss, but only the first action counts."""
        tokens = self.tokenise(actions[:, 0])
        return F.cross_entropy(self.logits(context, tokens).flatten(0, 1), tokens.flatten())

    def sample(self, context: torch.Tensor, k: int, temperature: float,
               generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (K, 1, 7) physical actions and (K,) log-probabilities as drawn, for one context (1, width).

        Temperature 0 takes the most probable token each time.
        """
        tokens = torch.zeros((k, 7), dtype=torch.long)
        log_probabilities = torch.zeros(k)
        prefix = torch.zeros((k, 7, TOKEN_FEATURES))
        for d in range(7):
            position = F.one_hot(torch.tensor(d), 7).float().expand(k, -1)
            logits = self.head(torch.cat([context.expand(k, -1), prefix.flatten(1), position], 1))
            if temperature > 0:
                log_p = (logits / temperature).log_softmax(-1)
                tokens[:, d] = torch.multinomial(log_p.exp(), 1, generator=generator)[:, 0]
                log_probabilities += log_p.gather(1, tokens[:, d:d + 1])[:, 0]
            else:
                tokens[:, d] = logits.argmax(-1)
            prefix[:, d] = self._embed(tokens)[:, d]
        return self.centres(tokens)[:, None], log_probabilities
