"""What is learnt: Cal-QL and IQL, the values of the behaviour itself, and the networks that they share."""
