"""Launch, configuration, the arm and its safety, the simulated WidowX, evaluation."""
