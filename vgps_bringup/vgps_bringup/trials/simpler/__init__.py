"""The paper's protocol on SIMPLER's tasks, as trials."""
