"""Trials: what is compared, in which order, and what the numbers say."""
