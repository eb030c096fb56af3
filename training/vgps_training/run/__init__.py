"""A training run: its configuration, the learner, the loop, storage, validation, the commands."""
