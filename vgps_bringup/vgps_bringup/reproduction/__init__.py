"""The published studies from nothing: their stages and their tables."""
