"""Generalist policies behind one small interface, K action candidates per camera frame."""
