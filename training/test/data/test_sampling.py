"""What a batch contains."""
import numpy as np
import pytest
import torch
from synthetic import INSTRUCTIONS

from vgps_training.data.augmentation import AugmentationConfig
from vgps_training.data.batch import with_negative_instructions
from vgps_training.data.labels import LabelConfig
from vgps_training.data.sampling import Sampler, Shard
from vgps_training.data.table import StepTable


def table(lengths, dataset=None):
    """Frames carry their own index, so that every item of a batch can be traced."""
    n, m = sum(lengths), len(lengths)
    frames = np.zeros((n, 4, 4, 3), np.uint8)
    frames[..., 0], frames[..., 1] = (np.arange(n) % 256)[:, None, None], (np.arange(n) // 256)[:, None, None]
    actions = np.repeat(np.arange(n, dtype=np.float32)[:, None], 7, 1)
    starts, instruction = np.concatenate([[0], np.cumsum(lengths)[:-1]]), (np.arange(m) % 2).astype(np.int32)
    return StepTable(frames, actions, starts, instruction,
                     np.ones(m, np.int8), np.zeros(m, np.int32) if dataset is None else np.array(dataset, np.int32),
                     INSTRUCTIONS, tuple(map(str, range(m))))


def sampler(t, batch_size=64, **options):
    embeddings = np.eye(2, 512, dtype=np.float32)
    options = {'augmentation': AugmentationConfig(enabled=False), 'seed': 3, **options}
    return Sampler(t.select(np.arange(len(t.starts))), 0.98, LabelConfig(), lambda actions: actions, embeddings,
                   batch_size=batch_size, **options)


def traced(images):
    images = images.numpy().astype(int)
    return images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1]


def test_items_belong_together():
    t = table([5, 9, 130])
    batch = sampler(t).batch(7)
    now, after = traced(batch.images), traced(batch.next_images)
    episode = np.searchsorted(t.starts, now, 'right') - 1
    last = now == t.starts[episode] + t.lengths[episode] - 1
    np.testing.assert_array_equal(after, np.where(last, now, now + 1))
    np.testing.assert_array_equal(batch.actions[:, 0], now)
    np.testing.assert_array_equal(batch.next_actions[:, 0], after)
    assert (batch.masks.numpy()[last] == 0).all()
    np.testing.assert_array_equal(batch.language[:, :2].argmax(1), t.instruction[episode])
    np.testing.assert_array_equal(batch.other_language, batch.language.roll(-1, 0))
    for name, values in zip(('rewards', 'masks', 'returns'), t.labels(0.98, LabelConfig())):
        np.testing.assert_array_equal(getattr(batch, name), values[now], err_msg=name)


def test_step_alone_decides_the_batch():
    t = table([5, 9])
    a, b = sampler(t), sampler(t)
    for _ in range(3):
        a.batch(1)
    assert torch.equal(a.batch(4).images, b.batch(4).images)
    assert not torch.equal(b.batch(4).images, b.batch(5).images)
    ahead = list(b.batches(2, 7))
    assert len(ahead) == 5 and all(torch.equal(x.images, a.batch(s).images) for s, x in enumerate(ahead, 2))


def test_processes_share_one_batch():
    t, augmentation = table([5, 9, 20]), AugmentationConfig()
    whole = sampler(t, augmentation=augmentation).batch(2)
    parts = [sampler(t, augmentation=augmentation, shard=Shard(rank, 2)).batch(2) for rank in range(2)]
    for name in ('images', 'next_images', 'actions', 'other_language'):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts])), name
    with pytest.raises(ValueError, match='does not divide'):
        sampler(t, batch_size=63, shard=Shard(0, 2)).batch(0)


def test_mixture_weights_multiply_the_sizes():
    t = table([60, 20, 20], dataset=[0, 1, 1])
    source = sampler(t, batch_size=4000, weights=(1.0, 3.0))
    share = (source.indices(0)[0] >= 60).mean()
    assert share == pytest.approx(120 / 180, abs=0.03)
    with pytest.raises(ValueError, match='weights'):
        sampler(t, weights=(1.0,))


def test_reference_slip_of_the_next_frame_touches_long_episodes_only():
    t = table([50, 300])
    now, after = sampler(t, batch_size=2000, shuffled_next=True).indices(0)
    long = now >= 50
    assert (after[~long] - now[~long] <= 1).all()
    assert (np.abs(after[long] - now[long]) > 1).mean() > 0.9 and after[long].min() >= 50


def test_negative_instruction_never_succeeds():
    batch = sampler(table([5, 9])).batch(0)
    negative = torch.arange(64) % 2 == 0
    changed = with_negative_instructions(batch, negative, -50.0)
    assert torch.equal(changed.language[negative], batch.other_language[negative])
    assert torch.equal(changed.language[~negative], batch.language[~negative])
    assert (changed.rewards[negative] == -1).all() and (changed.masks[negative] == 1).all()
    assert (changed.returns[negative] == -50).all()
    assert torch.equal(changed.returns[~negative], batch.returns[~negative])
