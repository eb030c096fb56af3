"""From a robot's own recorded episodes to a better critic, and to knowing when it will fail."""
