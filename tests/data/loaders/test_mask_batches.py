"""Batches of images with masks: reproducible, every image once an epoch, and masks that stay on their content."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.ranks import as_process
from kit.records import COLOURS, GROUND, scene, toy, without_annotation
from ovs_lite.data.loaders.mask_batches import MaskBatch, MaskBatches
from ovs_lite.data.record import load_split, write_split

FILL = (0.48, 0.46, 0.41)


def plain(split, size, batch_size=1, **options):
    return MaskBatches(split, batch_size, size, **{"scale": (1, 1), "flip": False, **options})


def same(first, second):
    pairs = [*zip(first.masks, second.masks, strict=True), *zip(first.labels, second.labels, strict=True)]
    images = torch.equal(first.images, second.images)
    return images and first.image_ids == second.image_ids and all(torch.equal(a, b) for a, b in pairs)


def test_the_same_index_gives_the_same_batch_in_any_order_of_asking():
    split = [toy(f"p{i}", scene(30 + i, 40)) for i in range(5)]
    first, second = MaskBatches(split, 3, 32, seed=4), MaskBatches(split, 3, 32, seed=4)
    expected = [first(index) for index in range(6)]
    assert all(same(second(index), expected[index]) for index in (5, 0, 3, 3, 1, 4, 2, 0))
    assert not any(same(expected[a], expected[b]) for a in range(6) for b in range(a))


def test_another_seed_and_another_epoch_place_a_picture_anew():
    found = [MaskBatches([toy("p", scene())], 1, 32, seed)(epoch) for seed in (0, 1) for epoch in range(6)]
    assert not any(same(found[a], found[b]) for a in range(12) for b in range(a))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 16])
def test_every_picture_comes_once_per_epoch_in_another_order(batch_size):
    """Also where a batch reaches over the end of an epoch, or is larger than the data set."""
    split = [toy(f"p{i}", np.ones((4, 4), int)) for i in range(7)]
    batches = MaskBatches(split, batch_size, 8, seed=1)
    names = [name for index in range(-(-35 // batch_size)) for name in batches(index).image_ids]
    epochs = [tuple(names[start : start + 7]) for start in range(0, 35, 7)]
    assert all(sorted(epoch) == [f"p{i}" for i in range(7)] for epoch in epochs)
    other = MaskBatches(split, 7, 8, seed=2)
    assert len({*epochs, *(tuple(other(index).image_ids) for index in range(5))}) == 10, "and for another seed"


@pytest.mark.parametrize("count", [2, 3])
def test_a_process_reads_only_its_share_and_the_shares_are_the_batch(monkeypatch, count):
    split = [toy(f"p{i}", scene(30, 30 + i)) for i in range(7)]
    whole, read = MaskBatches(split, 6, 24, seed=5)(1), []
    assert (len(whole), whole.total) == (6, 6)
    counted = type("Counted", (list,), {"__getitem__": lambda self, row: read.append(row) or split[row]})(split)
    for rank in range(count):
        as_process(monkeypatch, rank, count)
        part = MaskBatches(counted, 6, 24, seed=5)(1)
        assert len(read) == (rank + 1) * 6 // count and (len(part), part.total) == (6 // count, 6)
        assert part.image_ids == whole.image_ids[rank::count] and torch.equal(part.images, whole.images[rank::count])
        for found, expected in ((part.masks, whole.masks), (part.labels, whole.labels)):
            assert all(torch.equal(a, b) for a, b in zip(found, expected[rank::count], strict=True))


@pytest.mark.parametrize("encoded", [False, True])
def test_scale_1_without_flip_gives_exactly_the_record(encoded):
    ids = scene()
    batches = plain([toy("p", ids, encoded=encoded)], 40)
    expected = torch.from_numpy(toy("p", ids)["image"]).permute(2, 0, 1) / 255
    for batch in map(batches, range(6)):
        assert isinstance(batch, MaskBatch) and len(batch) == 1 and batch.image_ids == ["p"]
        assert torch.equal(batch.images, expected[None]) and batch.labels[0].tolist() == [10, 20, 30]
        assert batch.masks[0].dtype == torch.bool and batch.labels[0].dtype == torch.int64
        assert np.array_equal(batch.masks[0], [ids == 1, ids == 2, ids == 3])


def test_a_loaded_split_serves_as_well_as_dictionaries(tmp_path):
    records = [toy(f"p{i}", scene(20, 20 + i), crowds=(2,)) for i in range(3)]
    write_split(records, tmp_path / "a", progress=False)
    first, second = MaskBatches(records, 2, 24), MaskBatches(load_split(tmp_path / "a"), 2, 24)
    assert all(same(first(index), second(index)) for index in range(4))


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 11), (1, 40)])
def test_what_a_picture_does_not_cover_has_the_filling_colour_and_no_mask(height, width):
    ids = np.ones((height, width), int)
    corners = set()
    for index in range(30):
        batch = plain([toy("p", ids)], 40)(index)
        inside = batch.masks[0][0]
        assert inside.sum() == ids.size and len(batch.masks[0]) == 1
        top, left = (int(torch.where(inside.any(1 - axis))[0][0]) for axis in (0, 1))
        corners.add((top, left))
        assert inside[top : top + height, left : left + width].all()
        assert (batch.images[0][:, inside] == torch.tensor(COLOURS[1])[:, None] / 255).all()
        assert (batch.images[0][:, ~inside] == torch.tensor(FILL)[:, None]).all()
    assert len(corners) > 5, "the picture lies anywhere in the square"
    assert (plain([toy("p", ids)], 40, fill=(1, 0, 1))(0).images[0][:, ~inside].unique() == torch.tensor([0, 1])).all()


@pytest.mark.parametrize(("side", "scale"), [(38, 0.95), (42, 1.05)])
def test_the_window_lies_anywhere_up_to_both_ends(side, scale):
    """Two pixels of play in both directions, whether the picture is smaller than the window or larger."""
    ids = np.zeros((side, side), int)
    ids[20, 20] = 1
    batches = MaskBatches([toy("p", ids)], 1, 40, scale=(scale, scale), flip=False)
    places = {tuple(batch.masks[0][0].nonzero()[0].tolist()) for batch in map(batches, range(80))}
    first = 20 if side < 40 else 18
    assert places == {(y, x) for y in range(first, first + 3) for x in range(first, first + 3)}


def wrong_pixels(batch, margin=0):
    """Pixels with another colour than their mask (GROUND or FILL outside all), bool, and the segment of each.

    margin: leave out pixels that a border, or the window's edge, is that near to: scaling mixes their colours.
    """
    image, masks, owner = batch.images[0], batch.masks[0], torch.zeros(batch.images.shape[2:])
    for mask, label in zip(masks, batch.labels[0].tolist(), strict=True):
        owner[mask] = label // 10
    wrong = torch.zeros(owner.shape, dtype=torch.bool)
    for i in range(5):
        allowed = [COLOURS[i]] if i else [GROUND, [255 * value for value in FILL]]
        far = [(image - torch.tensor(colour)[:, None, None] / 255).abs().max(0).values > 0.05 for colour in allowed]
        wrong |= (owner == i) & torch.stack(far).all(0)
    inner = slice(margin, -margin or None)
    most, least = (sign * F.max_pool2d(sign * owner[None], 2 * margin + 1, 1)[0] for sign in (1, -1))
    return wrong[inner, inner][most == least], owner[inner, inner][most == least]


@pytest.mark.parametrize(("height", "width"), [(40, 40), (50, 23), (20, 44)])
@pytest.mark.parametrize("flip", [False, True])
def test_masks_stay_on_their_content_whatever_is_done(height, width, flip):
    batches = MaskBatches([toy("p", scene(height, width))], 1, 24, scale=(0.5, 2.0), flip=flip)
    seen = torch.zeros(4, dtype=torch.int64)
    for index in range(60):
        wrong, owner = wrong_pixels(batches(index), margin=2)
        assert not wrong.any(), f"batch {index}"
        seen += torch.bincount(owner.long(), minlength=4)
    assert seen.min() > 50, "every segment was looked at"


def test_flips_mirror_half_of_the_pictures_and_nothing_else():
    ids = scene()
    batches = plain([toy("p", ids)], 40, flip=True)
    straight = torch.from_numpy(toy("p", ids)["image"]).permute(2, 0, 1) / 255
    mirrored = 0
    for index in range(60):
        batch = batches(index)
        turned = not torch.equal(batch.images[0], straight)
        mirrored += turned
        assert torch.equal(batch.images[0].flip(-1) if turned else batch.images[0], straight)
        assert not wrong_pixels(batch)[0].any()
    assert 18 < mirrored < 42


@pytest.mark.parametrize("size", [13, 20, 27, 64])
def test_scaling_has_no_preferred_side(size):
    """The turned record, scaled, is the scaled record, turned: masks are read at the centres of the new pixels."""
    ids = scene(39, 39)  # odd, so that no centre lies between two pixels
    first, second = (plain([toy("p", turned)], size)(0) for turned in (ids, ids[::-1, ::-1]))
    torch.testing.assert_close(first.images.flip(-1, -2), second.images, rtol=0, atol=1e-5)
    assert torch.equal(first.masks[0].flip(-1, -2), second.masks[0]) and first.masks[0].any((1, 2)).all()


def test_the_long_side_becomes_the_size_times_a_factor_from_the_range():
    whole = [toy("p", np.ones((30, 60), int))]
    batches = MaskBatches(whole, 1, 40, scale=(0.5, 0.9), flip=False)
    sides = [batches(index).masks[0][0] for index in range(40)]
    heights, widths = ([int(mask.any(1 - axis).sum()) for mask in sides] for axis in (0, 1))
    assert min(widths) in (20, 21, 22) and max(widths) in (34, 35, 36)
    assert all(abs(height - width / 2) <= 1 for height, width in zip(heights, widths, strict=True))


def test_masks_that_a_crop_leaves_empty_are_dropped_with_their_label():
    ids = np.zeros((40, 40), int)
    ids[0, 0], ids[39, 39], ids[15:25, 15:25] = 1, 2, 3
    batches = MaskBatches([toy("p", ids)], 1, 40, scale=(2, 2), flip=False)
    for batch in map(batches, range(20)):
        assert 30 in batch.labels[0] and len(batch.labels[0]) < 3
        assert len(batch.masks[0]) == len(batch.labels[0]) and batch.masks[0].any((1, 2)).all()


@pytest.mark.parametrize("per", ["segment", "class"])
def test_a_picture_without_any_mask_is_part_of_a_batch(per):
    split = [without_annotation(), toy("empty", np.zeros((6, 9), int)), toy("full", scene())]
    batch = MaskBatches(split, 3, 16, per=per)(0)
    found = dict(zip(batch.image_ids, batch.masks, strict=True))
    assert found["bare"].shape == found["empty"].shape == (0, 16, 16) and len(found["full"]) >= 2
    assert all(mask.dtype == torch.bool for mask in batch.masks)
    assert all(label.dtype == torch.int64 for label in batch.labels)


def test_a_picture_of_one_pixel_is_a_picture():
    batch = MaskBatches([toy("p", np.ones((1, 1), int))], 1, 8, scale=(0.05, 0.05))(0)
    assert batch.masks[0].sum() == 1
    assert (batch.images[0][:, batch.masks[0][0]] == torch.tensor(COLOURS[1])[:, None] / 255).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"split": []}, "got 0 records"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"size": 0}, "size=0"),
        ({"scale": (0, 1)}, r"scale=\(0, 1\)"),
        ({"scale": (1.2, 0.8)}, r"scale=\(1.2, 0.8\), expected .* a range of positive factors"),
    ],
)
def test_settings_that_cannot_be_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        MaskBatches(**{"split": [toy("p", scene())], "batch_size": 1, "size": 8, **words})
