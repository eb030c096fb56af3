"""The value function Q(s, a, l): network, instruction encoder, checkpoint, scoring, selection."""
