"""How long the critic takes and how much memory it needs, on this machine."""
