"""Looks at a workstation and a running system and says, line by line, what is right and what to do about the rest."""
