"""One source, written as a recording, as RLDS and as every version of LeRobot, gives one table."""
import json

import numpy as np
import pytest
from bag_factory import BagFactory
from lerobot_factory import write_v2, write_v3
from rlds_factory import example, folder, steps

from vgps_training.data.episode import Episode
from vgps_training.data.sources import read_episodes

TASKS = ('put the carrot on the plate', 'put the eggplant in the basket')
LENGTHS, CODEC = (5, 8, 6), 6  # levels: median difference after H.264


@pytest.fixture(scope='module')
def source():
    """Return (frames, actions, task, success) per episode; the second begins with BridgeData's placeholder."""
    episodes = []
    for number, length in enumerate(LENGTHS):
        random = np.random.default_rng(number)
        frames = random.integers(0, 256, (length, 4, 4, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
        actions = random.normal(0, 0.01, (length, 7)).astype(np.float32)
        actions[:, 6] = random.random(length) > 0.5
        if number == 1:
            actions[0] = 0
        episodes.append((frames, actions, number % 2, number != 1))
    return episodes


def recorded(path, episodes):
    bag = BagFactory(path / 'bag')
    for number, (frames, actions, task, success) in enumerate(episodes):
        bag.episode(f'e{number}', TASKS[task], 0)
        for step, (frame, action) in enumerate(zip(frames, actions)):
            stamp = bag.now + 200_000_000
            bag.image(stamp, frame)
            bag.command(stamp, f'e{number}', step, action)
            bag.now = stamp
        bag.episode(f'e{number}', TASKS[task], 1 if success else 2)
    bag.close()


def rlds(path, episodes):
    folder(path / 'vgps/1.0.0', 'vgps', [example(steps(
        frames, actions, TASKS[task], success=np.array([success], np.int64)))
        for frames, actions, task, success in episodes])


def lerobot(version):
    def write(path, episodes):
        made = (write_v3 if version == 'v3.0' else write_v2)(path / 'set', episodes, TASKS)
        info = json.loads((made / 'meta/info.json').read_text())
        (made / 'meta/info.json').write_text(json.dumps({**info, 'codebase_version': version}))
    return write


@pytest.mark.parametrize('write', [recorded, rlds, lerobot('v2.0'), lerobot('v2.1'), lerobot('v3.0')],
                         ids=['rosbag2', 'RLDS', 'v2.0', 'v2.1', 'v3.0'])
def test_every_format_gives_the_same_actions_outcomes_texts_and_frames(tmp_path, source, write):
    write(tmp_path, source)
    found = list(read_episodes(tmp_path))
    assert all(isinstance(e, Episode) for e in found), found
    for number, (episode, (frames, actions, task, success)) in enumerate(zip(found, source, strict=True)):
        first = int(number == 1)  # the placeholder is dropped whatever the format
        np.testing.assert_allclose(episode.actions, actions[first:], atol=1e-6)
        assert (episode.success, episode.instruction) == (success, TASKS[task])
        difference = np.abs(np.stack(list(episode.frames)).astype(int) - frames[first:])
        assert np.median(difference) <= CODEC and difference.mean() < 2 * CODEC
