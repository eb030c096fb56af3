"""Read a data set with lerobot itself, in an environment of its own: `python read_with_lerobot.py SET OUT.npz`."""
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset('local/set', root=sys.argv[1])
items = [dataset[i] for i in range(len(dataset))]


def pictures(camera):
    return np.stack([(i[camera].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0) for i in items])


np.savez(sys.argv[2], actions=np.stack([i['action'].numpy() for i in items]),
         success=np.array([bool(i['next.success']) for i in items]),
         episode=np.array([int(i['episode_index']) for i in items]), task=np.array([i['task'] for i in items]),
         columns=np.array(sorted(items[0])), **{camera: pictures(camera) for camera in dataset.meta.video_keys})
