"""A policy in an environment of its own, behind a websocket."""
