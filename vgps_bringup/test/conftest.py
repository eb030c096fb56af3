"""`evaluation_bags` makes recordings: it stands with the reader of recordings and serves the tests of several rooms."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / 'vgps_msgs' / 'test' / 'bags'))
