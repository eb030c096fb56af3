"""Programs that print how fast training is fed and how fast it goes, as ratios of one run."""
