"""Generalist policies behind one small interface, K action candidates per camera frame."""

import os

# OpenMP's threads would spin at every barrier for a core that somebody else has. Read once, when torch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
