"""Which processes run with which parameters, who starts them, and how a program asks them for an episode."""
