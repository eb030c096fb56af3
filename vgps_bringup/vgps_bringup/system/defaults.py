"""How many candidates and which temperature every command and launch file starts with. Imports nothing."""

K = 10            # candidates per frame: what the shipped critic was measured with (doc/study.md)
BETA = 1.0        # temperature of the choice, likewise; greedy choice exploits a critic's errors
BETA_ROBOT = 0.0  # on the real arm and in trials, as in the paper: the best candidate, no chance in what the arm does
