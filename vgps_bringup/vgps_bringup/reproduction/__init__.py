"""The published studies from scratch: their stages and their tables."""
