"""Offline training of value functions from robot data: Cal-QL, IQL. No ROS."""

import os

# OpenMP's threads would spin at every barrier for a core that somebody else has. Read once, when torch is imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
