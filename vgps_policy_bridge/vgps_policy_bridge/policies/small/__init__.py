"""Two small trainable policies of different kind: `flow` (continuous chunks) and `binned` (autoregressive tokens)."""
