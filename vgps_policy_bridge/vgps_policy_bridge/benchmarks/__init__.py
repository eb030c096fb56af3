"""Measurements that print their own figures, and models of the real layout with random weights to take them on."""
