"""Training of the small policies; their networks stand where they are deployed."""
