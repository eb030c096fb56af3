"""Crop and colour jitter against the authors' loader, and what training relies on."""
import numpy as np
import pytest
import torch
from reference_files import RECORDED

from vgps_training.data.augmentation import AugmentationConfig, augment, crop, draw


def recorded():
    archive = np.load(RECORDED / 'image_transforms.npz')
    columns = [str(c) for c in archive['draws_columns']]
    return archive, {name: archive['draws'][:, i] for i, name in enumerate(columns)}


def recorded_draws(columns, i):
    names = ('off_h', 'off_w', 'h', 'w', 'brightness', 'contrast', 'saturation', 'hue')
    return torch.tensor([[columns[name][i] for name in names]], dtype=torch.float32)


def test_crop_equals_tensorflow():
    archive, columns = recorded()
    image = torch.from_numpy(archive['image']).permute(2, 0, 1)[None] / 255
    result = crop(image, recorded_draws(columns, 0)[:, :4])[0].permute(1, 2, 0).numpy()
    expected = archive['crop0_float']
    assert np.abs(result - expected / (255 if expected.max() > 2 else 1)).max() < 1e-4


@pytest.mark.parametrize('i', [0, 3, 4])
def test_whole_chain_equals_the_authors_loader(i):
    archive, columns = recorded()
    result = augment(torch.from_numpy(archive['image'])[None], recorded_draws(columns, i))[0].numpy()
    difference = np.abs(result.astype(int) - archive[f'aug{i}'])
    assert difference.max() <= 2 and (difference > 0).mean() < 0.02


def test_shared_draw_reproduces_the_one_parameter_family():
    columns = recorded()[1]
    generator = torch.Generator().manual_seed(0)
    draws = draw(1000, AugmentationConfig(shared_draw=True), generator)
    u = (draws[:, 5] - 0.9) / 0.2
    nearest = (u - float(columns['u'][0])).abs().argmin()
    torch.testing.assert_close(draws[nearest], recorded_draws(columns, 0)[0], atol=2e-3, rtol=0)


def test_default_draws_are_independent():
    draws = draw(4000, AugmentationConfig(), torch.Generator().manual_seed(0))
    correlation = torch.corrcoef(draws[:, 4:].T) - torch.eye(4)
    assert correlation.abs().max() < 0.06


def test_image_and_next_image_are_augmented_alike():
    image = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    draws = draw(3, AugmentationConfig(), torch.Generator().manual_seed(1))
    both = augment(torch.cat([image, image]), draws.repeat(2, 1))
    assert torch.equal(both[:3], both[3:]) and not torch.equal(both[:3], image)
