"""A tiny data set whose pictures tell the state: a bright square walks to the middle."""
import dataclasses
from pathlib import Path

import numpy as np

from vgps_critic.config import NetworkConfig
from vgps_critic.text import InstructionEncoder, save_table
from vgps_training.data.table import StepTable, save
from vgps_training.run.config import DataConfig, preset

# 8 and not 4 filters: oneDNN of torch 2.13 overruns its buffer in the backward pass of 1x1 convolutions of 4 channels
NETWORK = NetworkConfig(stage_sizes=(1, 1), num_filters=8, image_size=64, hidden_dims=(32, 32))
INSTRUCTIONS = ('go to the middle', 'stay away')


def embedding(text):
    return np.random.default_rng(len(text)).normal(0, 512**-0.5, 512).astype(np.float32)


def make(folder: Path, episodes=12, seed=0) -> Path:
    random = np.random.default_rng(seed)
    frames, actions, lengths = [], [], random.integers(5, 12, episodes)
    for length in lengths:
        position = random.uniform(8, 50, 2)
        for step in range(length):
            picture = random.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            row, column = (position + (28 - position) * step / length).astype(int)
            picture[row:row + 8, column:column + 8] = 255
            frames.append(picture)
            actions.append(np.append(random.normal(0, 0.02, 6), random.random() > 0.5))
    table = StepTable(np.stack(frames), np.array(actions, np.float32), np.concatenate([[0], np.cumsum(lengths)[:-1]]),
                      (np.arange(episodes) % 2).astype(np.int32), (np.arange(episodes) % 3 > 0).astype(np.int8),
                      np.zeros(episodes, np.int32), INSTRUCTIONS, tuple(f'synthetic#{i}' for i in range(episodes)))
    save(table, folder / 'table')
    save_table(folder / 'text.npz', InstructionEncoder('test', embedding), INSTRUCTIONS)
    return folder / 'table'


def config(folder: Path, algorithm='iql', out='run', **changes):
    data = DataConfig(paths=(folder / 'table',), instruction_encoder=str(folder / 'text.npz'), validation_share=0.2)
    base = dataclasses.replace(preset(algorithm, 'small'), out=folder / out, data=data, network=NETWORK, batch_size=8,
                               steps=8, save_every=3, log_every=1, validate_every=0, device='cpu', threads=1)
    return dataclasses.replace(base, **changes)
