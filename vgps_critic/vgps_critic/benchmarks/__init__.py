"""How long the critic takes and how much memory it needs, on the machine at hand."""
