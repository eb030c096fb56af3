"""Frames stay encoded until the training device needs them; every way of feeding gives the same batches."""
import gc
import io
import os

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vgps_msgs_py.lanczos import resize as resize_on_cpu
from vgps_training.data import encoded
from vgps_training.data.augmentation import AugmentationConfig
from vgps_training.data.encoded import Buffers, EncodedTable, decode
from vgps_training.data.labels import LabelConfig, label
from vgps_training.data.resizing import resize
from vgps_training.data.sampling import Sampler
from vgps_training.data.table import StepTable

SIZE = 64
CAMERAS = ((64, 64), (64, 80))  # Bridge's and Fractal's proportions


def jpeg(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG', quality=95)
    return out.getvalue()


def smooth(random, height, width):
    small = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def table(folder, episodes=6, length=7, damaged=None):
    """Episodes of both cameras in one file each, as shards hold them; returns the table and the pixels."""
    random, pixels, files, file, offset, size = np.random.default_rng(0), [], [], [], [], []
    for episode in range(episodes):
        path, data = folder / f'{episode}.bin', b''
        for step in range(length):
            part = jpeg(smooth(random, *CAMERAS[episode % 2]))
            pixels.append(decode(part))
            if (episode, step) == damaged:
                part = part[:len(part) // 2] + bytes(len(part) - len(part) // 2)
            offset.append(len(data))
            size.append(len(part))
            data += part
        path.write_bytes(data)
        files.append(str(path))
        file.append(episode)
    starts, count = np.arange(0, episodes * length, length), episodes * length
    frames = EncodedTable(tuple(files), starts, np.array(file), np.array(offset), np.array(size), SIZE)
    return StepTable(frames, random.uniform(-1, 1, (count, 7)).astype(np.float32), starts,
                     np.zeros(episodes, np.int32), (np.arange(episodes) % 3 > 0).astype(np.int8),
                     (np.arange(episodes) % 2).astype(np.int32), ('do it',), tuple(map(str, range(episodes)))), pixels


def sampler(t, workers=0, enabled=True, kind=Sampler):
    return kind(t.select(np.arange(len(t.starts))), 0.98, LabelConfig(), lambda actions: actions,
                np.ones((1, 512), np.float32), batch_size=16, seed=3, workers=workers,
                augmentation=AugmentationConfig(enabled=enabled))


@pytest.mark.parametrize('enabled', [True, False])
def test_worker_processes_give_the_same_batches_bit_by_bit(tmp_path, enabled):
    t, _ = table(tmp_path)
    alone, shared = sampler(t, 0, enabled), sampler(t, 2, enabled)
    batches = list(zip(alone.batches(3, 15), shared.batches(3, 15), strict=True))
    for a, b in batches:  # after all of them were made: memory that is used again must not change what was given out
        for name in ('images', 'next_images', 'actions', 'rewards', 'language'):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.timeout(60)
def test_workers_do_not_free_a_video_decoder_whose_threads_live_in_the_training_process(tmp_path):
    class Collecting(Sampler):
        def __getitem__(self, step):
            gc.collect()
            return super().__getitem__(step)

    def leave_a_decoder():
        container, circle = av.open(str(tmp_path / 'video.mp4')), []
        container.streams.video[0].thread_type = 'AUTO'
        circle += [circle, container, next(container.decode(video=0))]

    with av.open(str(tmp_path / 'video.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=5, width=64, height=64, pix_fmt='yuv420p')
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode())
    t, _ = table(tmp_path)
    gc.disable()  # the training process has not got round to it
    try:
        leave_a_decoder()
        assert len(list(sampler(t, 2, kind=Collecting).batches(0, 3))) == 3
    finally:
        gc.enable()


def test_batch_of_two_cameras_holds_every_frame_at_its_place(tmp_path):
    t, pixels = table(tmp_path)
    source = sampler(t, enabled=False)
    batch, (now, after) = source.batch(5), source.indices(5)
    assert len({pixels[step].shape for step in now}) == 2
    for images, steps in ((batch.images, now), (batch.next_images, after)):
        for image, step in zip(images.numpy(), steps):
            difference = np.abs(image.astype(int) - resize_on_cpu(pixels[step], SIZE))
            assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize('height, width, size', [(480, 640, 256), (256, 320, 256), (64, 64, 256), (300, 200, 96)])
def test_resize_on_the_device_equals_the_critics_own_within_one_level(height, width, size):
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    result = resize(torch.from_numpy(frames), size).numpy()
    expected = np.stack([resize_on_cpu(frame, size) for frame in frames])
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_damaged_frame_is_replaced_by_the_one_before_it_in_its_episode(tmp_path, caplog):
    t, pixels = table(tmp_path, damaged=(1, 3))
    rows, frames = t.groups(np.array([10, 0, 9]), Buffers(1))[1]
    assert rows.tolist() == [0, 2]
    np.testing.assert_array_equal(frames[0].numpy(), pixels[9])
    np.testing.assert_array_equal(frames[1].numpy(), pixels[9])
    assert 'step 10 cannot be decoded' in caplog.text
    t, _ = table(tmp_path, damaged=(1, 0))
    with pytest.raises(ValueError):
        t.groups(np.array([7]), Buffers(1))


def test_only_the_bytes_of_the_frame_are_read(tmp_path, monkeypatch):
    t, _ = table(tmp_path)
    reads, pread = [], os.pread
    monkeypatch.setattr(encoded.os, 'pread', lambda *a: reads.append(a[1:]) or pread(*a))
    sampler(t).batch(0)
    frames = t.frames
    assert len(reads) == 32 and set(reads) <= set(zip(frames.size.tolist(), frames.offset.tolist()))


def test_file_cut_short_is_an_error_and_not_a_picture(tmp_path):
    t, _ = table(tmp_path)
    with pytest.raises(OSError, match='cut short'):
        encoded.read(t.frames.files[0], int(t.frames.offset[6]), int(t.frames.size[6]) + 1)


def test_labels_of_single_steps_are_those_of_their_episode():
    for failures in ('failures', 'successes'):
        config = LabelConfig(failures=failures)
        for length, success in ((2, True), (9, True), (9, False)):
            whole = label(length, success, 0.98, config)
            returns = 0.0
            for reward, mask, expected in zip(*(part[::-1] for part in whole)):
                returns = reward + 0.98 * mask * returns
                assert expected == pytest.approx(returns, rel=1e-5)
