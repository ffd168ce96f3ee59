"""Batches of mined pairs: the same for an index, as inference crops, blank margins, mistakes."""

import numpy as np
import pytest
import torch

from kit.ovseg import pair, pairs
from ovs_lite.clip.crops import cropped_masks, masked_crops
from ovs_lite.data.images import read_image
from ovs_lite.data.loaders.region_batches import RegionBatches
from ovs_lite.data.rle import decode_rle

FILL = (0.5, 0.4, 0.3)


def batches(count=7, batch=4, size=16, **changes):
    return RegionBatches(pairs(count), batch, size, FILL, **changes)


def test_a_batch_is_a_function_of_its_index_and_an_epoch_shows_every_pair_once():
    made = batches(margin=0.5)
    first, again = made(1), batches(margin=0.5)(1)
    assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)
    assert first.words == again.words and first.total == 4
    names = [name for index in range(7) for name in made(index).image_ids]
    assert all(names.count(f"p{number:03d}") == 4 for number in range(7))


def test_without_augmentation_a_crop_is_what_inference_cuts():
    made = RegionBatches([pair(0, "cat")], 1, 16, FILL, area=1.0)(0)
    record = pair(0, "cat")
    image = torch.from_numpy(np.array(read_image(record["image"]))).permute(2, 0, 1) / 255
    mask = torch.from_numpy(decode_rle(record["masks"][0])).bool()[None]
    fill = torch.tensor(FILL).view(3, 1, 1)
    expected = masked_crops(image - fill, mask, 16)[0] + fill
    torch.testing.assert_close(made.images[0], expected, atol=1e-5, rtol=0)
    assert torch.equal(made.masks[0], cropped_masks(mask, 16)[0])


def test_what_is_not_the_region_is_blank_and_margins_add_blank():
    shares, fill = {}, torch.tensor(FILL)
    for margin in (0.0, 3.0):
        found = [batches(area=1.0, margin=margin)(index) for index in range(10)]
        for batch in found:
            torch.testing.assert_close(batch.images[:, :, -1, -1], fill.expand(4, 3), atol=1e-5, rtol=0)
            assert not batch.masks[:, -1, -1].any() and batch.masks.flatten(1).any(1).all()
        shares[margin] = np.mean([batch.masks.float().mean() for batch in found])
    assert 0.7 < shares[0.0] < 0.9 and shares[3.0] < 0.8 * shares[0.0]


@pytest.mark.parametrize(
    "changes", [{"count": 0}, {"batch": 0}, {"size": 0}, {"area": 0.0}, {"area": 1.5}, {"margin": -1.0}]
)
def test_mistakes_are_named(changes):
    with pytest.raises(ValueError, match="got .*expected at least one of each"):
        batches(**changes)
