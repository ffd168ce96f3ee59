"""Batches of image-text pairs: reproducible, every pair once an epoch, crops and flips as an oracle has them.

The pictures tell where they were cut: red is the column, green the row, blue the picture's number.
"""

import copy
import gc
import io
import multiprocessing
import random
import time
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ovs_lite import distributed
from ovs_lite.data.loaders.pair_batches import PairBatch, PairBatches, swap_sides
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import load_split, write_split

STEP = 4  # between neighbouring pixels, in 255ths


def ramp(height, width, number=0):
    """(H, W, 3): red grows with the column, green with the row; sides up to 60."""
    columns, rows = np.arange(width) * STEP, np.arange(height)[:, None] * STEP
    return np.stack([np.tile(columns, (height, 1)), np.tile(rows, width), np.full((height, width), number)], -1)


def pair(number, height=40, width=48, captions=None):
    captions = [f"picture {number}"] if captions is None else captions
    image = ramp(height, width, number).astype(np.uint8)
    return {"image_id": f"p{number}", "image": image, "segments": None, "segments_info": None, "captions": captions}


def same(first, second):
    texts = (first.captions, first.image_ids, first.total) == (second.captions, second.image_ids, second.total)
    return texts and torch.equal(first.images, second.images)


def box_of(image):
    """(top, left, height, width, mirrored) of the crop that became `image`, (3, S, S) of a ramp, by straight lines
    through the inner half of its rows and columns. S must be large, because the values are rounded."""
    size, found = image.shape[-1], []
    inner = np.arange(size // 4, size - size // 4)
    for profile in (image[1].mean(1), image[0].mean(0)):
        slope, start = np.polyfit(inner + 0.5, profile.double().numpy()[inner] * 255 / STEP + 0.5, 1)
        found.append((start + min(0, slope * size), abs(slope) * size, slope < 0))
    (top, height, _), (left, width, mirrored) = found
    return round(top), round(left), round(height), round(width), bool(mirrored)


def weights(inputs, outputs):
    """(outputs, inputs) of the triangle filter that widens when it shrinks, written pixel by pixel."""
    table = np.zeros((outputs, inputs))
    step = inputs / outputs
    for o in range(outputs):
        for i in range(inputs):
            table[o, i] = max(0.0, 1 - abs((i + 0.5) - (o + 0.5) * step) / max(step, 1))
    return table / table.sum(1, keepdims=True)


def oracle(image, top, left, height, width, mirrored, size):
    """(3, S, S) in 255ths by explicit sums."""
    cut = image[top : top + height, left : left + width].astype(float)
    small = np.einsum("yi,xj,ijc->cyx", weights(height, size), weights(width, size), cut)
    return small[..., ::-1] if mirrored else small


@pytest.mark.parametrize(("height", "width", "size"), [(40, 48, 16), (50, 30, 24), (20, 20, 40), (60, 12, 16)])
def test_a_crop_is_what_the_oracle_resamples(height, width, size):
    """Also where the picture is enlarged, and where no crop of the allowed shapes fits."""
    noise = np.random.default_rng(0).integers(-3, 4, (height, width, 3))
    image = np.clip(ramp(height, width, 100) + noise, 0, 255)
    batches = PairBatches([pair(0) | {"image": image.astype(np.uint8)}], 1, size, scale=(0.3, 1.0))
    clean = PairBatches([pair(0, height, width)], 1, 64, scale=(0.3, 1.0))
    boxes = [box_of(clean(index).images[0]) for index in range(20)]
    for index, box in enumerate(boxes):
        expected = oracle(image, *box, size)
        np.testing.assert_allclose(batches(index).images[0].numpy() * 255, expected, rtol=0, atol=1.01)
    assert len(set(boxes)) > (15 if height < 60 else 1) and {box[4] for box in boxes} == {False, True}


def test_crops_lie_anywhere_with_areas_and_shapes_from_the_ranges():
    scale, ratio = (0.2, 0.35), (0.4, 1.2)  # all fit
    batches = PairBatches([pair(0, 60, 60)], 500, 64, scale=scale, ratio=ratio)
    boxes = np.array([box_of(image) for image in batches(0).images])
    top, left, height, width, mirrored = boxes.T
    areas, shapes = height * width / 3600, width / height
    assert top.min() == 0 and left.min() == 0 and (top + height).max() == 60 and (left + width).max() == 60
    assert 0.19 < areas.min() < 0.21 and 0.34 < areas.max() < 0.36
    assert 0.38 < shapes.min() < 0.43 and 1.13 < shapes.max() < 1.24
    assert abs(np.log(shapes).mean() - np.log(0.4 * 1.2) / 2) < 0.03, "uniform in the logarithm"
    for start, side in ((top, height), (left, width)):
        places = (start / np.maximum(1, 60 - side))[side < 50]
        assert abs(places.mean() - 0.5) < 0.05 and abs(places.std() - 12**-0.5) < 0.05, "uniform"
    assert 200 < mirrored.sum() < 300


@pytest.mark.parametrize(("height", "width", "box"), [(60, 12, (22, 0, 16, 12)), (9, 60, (0, 24, 9, 12))])
def test_where_nothing_fits_the_largest_allowed_box_at_the_centre_is_taken(height, width, box):
    batches = PairBatches([pair(0, height, width)], 4, 64, scale=(1, 1), flip=False)
    assert {box_of(image)[:4] for image in batches(0).images} == {box}


def test_a_picture_of_one_pixel_is_a_picture():
    batch = PairBatches([pair(9, 1, 1)], 2, 8)(0)
    assert batch.images.shape == (2, 3, 8, 8)
    assert torch.equal(batch.images, torch.tensor([0, 0, 9 / 255]).view(3, 1, 1).expand(2, 3, 8, 8))


def test_scale_1_without_flip_is_the_whole_picture():
    batch = PairBatches([pair(7, 40, 40)], 1, 40, scale=(1, 1), ratio=(1, 1), flip=False)(3)
    expected = torch.from_numpy(ramp(40, 40, 7)).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(batch.images[0], expected, rtol=0, atol=1e-6)


def test_the_same_index_gives_the_same_batch_in_any_order_of_asking():
    split = [pair(number, captions=["a left", "b", "c"]) for number in range(5)]
    first, second = PairBatches(split, 3, 16, seed=4), PairBatches(split, 3, 16, seed=4)
    expected = [first(index) for index in range(8)]
    assert all(same(second(index), expected[index]) for index in (5, 0, 3, 3, 1, 4, 2, 0, 7))
    assert not any(same(expected[a], expected[b]) for a in range(8) for b in range(a))


def test_another_seed_gives_another_order_and_other_crops():
    split = [pair(number, 8, 8) for number in range(9)]
    assert len({tuple(PairBatches(split, 9, 8, seed)(0).image_ids) for seed in range(5)}) == 5
    found = [PairBatches([pair(0)], 1, 16, seed)(epoch) for seed in range(3) for epoch in range(4)]
    assert not any(same(found[a], found[b]) for a in range(12) for b in range(a))


@pytest.mark.parametrize(("augment", "scale"), [("crop", (0.5, 1.0)), ("timm", (0.08, 1.0))])
def test_each_augmentation_has_a_scale_of_its_own(augment, scale):
    usual, given = (PairBatches([pair(0)], 4, 16, augment=augment, **words)(0) for words in ({}, {"scale": scale}))
    other = PairBatches([pair(0)], 4, 16, augment=augment, scale=(0.3, 1.0))(0)
    assert same(usual, given) and not same(usual, other)


@pytest.mark.parametrize("augment", ["crop", "timm"])
def test_a_run_that_starts_at_batch_7_sees_what_one_from_0_sees(augment):
    split = [pair(number) for number in range(11)]
    through = PairBatches(split, 4, 16, augment=augment)
    for index in range(7):
        through(index)
    assert same(PairBatches(split, 4, 16, augment=augment)(7), through(7))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 16])
def test_every_picture_comes_once_per_epoch_in_another_order(batch_size):
    split = [pair(number, 8, 8) for number in range(7)]
    batches = PairBatches(split, batch_size, 8, seed=1)
    found = [batches(index) for index in range(-(-35 // batch_size))]
    names = [name for batch in found for name in batch.image_ids]
    epochs = [tuple(names[start : start + 7]) for start in range(0, 35, 7)]
    assert all(sorted(epoch) == [f"p{number}" for number in range(7)] for epoch in epochs) and len(set(epochs)) == 5
    for batch in found:
        assert isinstance(batch, PairBatch) and len(batch) == batch.total == len(batch.captions) == batch_size
        assert batch.captions == [f"picture {name[1:]}" for name in batch.image_ids]
        assert (batch.images[:, 2] * 255).round().flatten(1).unique(dim=1)[:, 0].tolist() == [
            int(name[1:]) for name in batch.image_ids
        ]


def test_each_caption_of_a_picture_is_used_as_often():
    batches = PairBatches([pair(0, 8, 8, ["a", " ", "b", "c"])], 300, 8)
    counts = Counter(batches(0).captions)
    assert set(counts) == {"a", "b", "c"} and min(counts.values()) > 70


def test_a_caption_is_mirrored_with_its_picture_and_only_then():
    batches = PairBatches([pair(0, captions=["a dog Left of a cat, right-hand side"])], 60, 64)
    batch = batches(0)
    for image, caption in zip(batch.images, batch.captions, strict=True):
        mirrored = box_of(image)[4]
        assert (
            caption == f"a dog {'Right' if mirrored else 'Left'} of a cat, {'left' if mirrored else 'right'}-hand side"
        )
    assert 15 < sum("Right" in caption for caption in batch.captions) < 45
    still = PairBatches([pair(0, captions=["left"])], 60, 64, flip=False)(0)
    assert set(still.captions) == {"left"} and not any(box_of(image)[4] for image in still.images)


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("left and right", "right and left"),
        ("LEFT, Right; left.", "RIGHT, Left; right."),
        ("a bright leftover on the copyright", "a bright leftover on the copyright"),
        ("nothing here", "nothing here"),
    ],
)
def test_whole_words_change_sides(caption, other):
    assert swap_sides(caption) == other and swap_sides(other) == caption


def test_records_without_captions_are_left_out(tmp_path):
    records = [pair(0, 8, 8, []), pair(1, 8, 8), pair(2, 8, 8, []), pair(3, 8, 8)]
    write_split(records, tmp_path / "a", progress=False)
    for split in (records, load_split(tmp_path / "a")):
        batches = PairBatches(split, 2, 8)
        assert all(sorted(batches(index).image_ids) == ["p1", "p3"] for index in range(4))
    for split in ([], records[:1], load_split(tmp_path / "a").select([0, 2])):
        with pytest.raises(ValueError, match=f"got {len(split)} records, none with a caption"):
            PairBatches(split, 2, 8)


def test_a_loaded_split_serves_as_well_as_dictionaries(tmp_path):
    records = [pair(number, 20, 24, [f"{number} a", f"{number} b"]) for number in range(5)]
    write_split(records, tmp_path / "a", progress=False)
    first, second = PairBatches(records, 3, 16), PairBatches(load_split(tmp_path / "a").with_format("torch"), 3, 16)
    assert second._loader.split.column_names == ["image_id", "image", "captions"], "no segments are decoded for nothing"
    assert all(same(first(index), second(index)) for index in range(4))


class Stream:
    """A split that brings its own order, as WebShards does."""

    def __init__(self, records):
        self.records, self.asked = records, []

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]

    def order(self, seed, epoch):
        self.asked.append((seed, epoch))
        return np.roll(np.arange(len(self)), seed + epoch)


def test_a_split_with_an_order_of_its_own_keeps_it():
    split = Stream([pair(number, 8, 8) for number in range(4)])
    batches = PairBatches(split, 2, 8, seed=1)
    names = [name for index in range(4) for name in batches(index).image_ids]
    assert names == ["p3", "p0", "p1", "p2", "p2", "p3", "p0", "p1"] and split.asked == [(1, 0), (1, 1)]
    with pytest.raises(ValueError, match="record 'p0' without a caption"):
        PairBatches(Stream([pair(0, captions=[])]), 1, 8)(0)


def as_process(monkeypatch, rank, count):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: count)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_processes_shares_are_the_whole_batch(monkeypatch, workers):
    split = [pair(number, captions=["a", "left"]) for number in range(10)]
    for index in (0, 3):
        whole = PairBatches(split, 4, 16)(index)
        for rank in range(2):
            as_process(monkeypatch, rank, 2)
            part = PairBatches(split, 4, 16, workers=workers)(index)
            assert torch.equal(part.images, whole.images[rank::2]) and part.captions == whole.captions[rank::2]
            assert part.image_ids == whole.image_ids[rank::2] and (len(part), part.total) == (2, 4)
        monkeypatch.undo()


def test_a_process_reads_only_its_share(monkeypatch):
    read = []
    split = Stream([pair(number, 8, 8) for number in range(8)])
    monkeypatch.setattr(Stream, "__getitem__", lambda self, index: read.append(index) or self.records[index])
    as_process(monkeypatch, 1, 4)
    PairBatches(split, 8, 8)(0)
    assert read == [1, 5]


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    batches = PairBatches([pair(0)], 4, 8)
    as_process(monkeypatch, 0, 3)
    with pytest.raises(ValueError, match="got batch_size=4, expected a multiple of the 3 processes"):
        batches(0)


@pytest.mark.parametrize("augment", ["crop", "timm"])
def test_worker_processes_change_no_number(augment):
    split = [pair(number, captions=["a", "left"]) for number in range(5)]
    alone, helped = (PairBatches(split, 4, 16, augment=augment, workers=workers) for workers in (0, 2))
    state = torch.get_rng_state()
    assert all(same(alone(index), helped(index)) for index in (3, 4, 5, 5, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_go_on_as_long_as_the_indices_follow(monkeypatch):
    started = []
    original = PairBatches._workers_from
    start = lambda self, index: started.append(index) or original(self, index)  # noqa: E731
    monkeypatch.setattr(PairBatches, "_workers_from", start)
    batches = PairBatches([pair(number, 8, 8) for number in range(5)], 2, 8, workers=1)
    for index in (2, 3, 4, 4, 5, 0, 1):
        batches(index)
    assert started == [2, 4, 0]


def test_workers_end_at_once_whenever_their_batches_are_dropped():
    """Left to the garbage collector inside a cycle, torch's iterator waits five seconds for each worker."""
    for circular in (False, True):
        batches = PairBatches([pair(0, 8, 8)], 1, 8, workers=1)
        batches(0)
        batches.itself = batches if circular else None
        started, children = time.monotonic(), multiprocessing.active_children()
        del batches
        gc.collect()
        assert children and not multiprocessing.active_children() and time.monotonic() - started < 3


def test_a_worker_that_is_started_afresh_can_be_given_all_it_needs(tmp_path):
    """Where processes are not forked, what they need is copied over; deepcopy asks the same of it."""
    write_split([pair(number) for number in range(3)], tmp_path / "a", progress=False)
    for augment in ("crop", "timm"):
        batches = PairBatches(load_split(tmp_path / "a"), 3, 16, augment=augment)
        places = batches._places(1)
        assert same(copy.deepcopy(batches._loader)[places], batches(1))


def test_an_error_in_a_worker_is_raised_and_the_next_call_starts_anew():
    split = Stream([pair(number, 8, 8) for number in range(4)])
    broken = pair(1, 8, 8, [])
    split.records[1] = broken
    batches = PairBatches(split, 1, 8, workers=1)
    assert batches(0).image_ids == ["p0"]
    for _ in range(2):
        with pytest.raises(ValueError, match="record 'p1' without a caption") as error:
            batches(1)
        assert not multiprocessing.active_children(), f"ended, whoever still holds {error}"
    assert batches(2).image_ids == ["p2"]


def test_prefetched_batches_are_the_same():
    split = [pair(number) for number in range(5)]
    ahead, plain = Prefetched(PairBatches(split, 3, 16)), PairBatches(split, 3, 16)
    assert all(same(ahead(index), plain(index)) for index in range(6))


def states():
    return random.getstate(), tuple(map(str, np.random.get_state())), torch.get_rng_state().tolist()


@pytest.mark.parametrize("augment", ["crop", "timm"])
def test_the_global_generators_are_neither_read_nor_left_changed(augment):
    batches = PairBatches([pair(number) for number in range(5)], 5, 24, augment=augment)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = states()
    first = batches(2)
    assert states() == before
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert same(batches(2), first), "other global seeds, same pictures"


def test_the_global_generators_come_back_after_an_error(monkeypatch):
    batches = PairBatches([pair(0)], 1, 24, augment="timm")

    def fail(image):
        random.random(), np.random.rand(), torch.rand(1)
        raise RuntimeError

    monkeypatch.setattr(batches._loader, "timm", fail)
    before = states()
    with pytest.raises(RuntimeError):
        batches(0)
    assert states() == before


def test_the_recipe_of_the_release_erases_a_quarter_with_noise_and_changes_colours():
    """On a plain picture whatever varies inside is noise, and whatever is another colour comes from RandAugment."""
    colour = torch.tensor([60, 120, 200])
    image = colour.numpy().astype(np.uint8) * np.ones((40, 40, 1), np.uint8)
    batch = PairBatches([pair(0) | {"image": image}], 400, 32, augment="timm")(0)
    assert batch.images.min() == 0 and batch.images.max() == 1, "noise beyond black and white is cut"
    varied = (batch.images.diff(dim=-1)[:, :, 1:].abs() > 0.02).all(1) & (
        batch.images.diff(dim=-2)[..., 1:].abs() > 0.02
    ).all(1)
    share = varied.float().mean((1, 2))
    assert 70 < (share > 0.015).sum() < 130, "a quarter of 400"
    assert 0.15 < share.max() < 0.36, "up to a third of the picture"
    noise = torch.cat([picture[:, 1:, 1:][:, mask] for picture, mask in zip(batch.images, varied, strict=True)], 1)
    inner = noise[:, ((noise > 0) & (noise < 1)).all(0)]
    assert torch.allclose(inner.mean(1), torch.tensor([0.485, 0.456, 0.406]), atol=0.03)
    assert 0.15 < inner.std() < 0.23
    middle = batch.images.flatten(2).median(-1).values
    assert 60 < ((middle - colour / 255).abs() > 0.03).any(1).sum() < 300


def test_the_recipe_of_the_release_cuts_down_to_8_percent_and_mirrors_with_the_caption():
    found = {}
    for scale in (None, (0.9, 1.0)):
        batch = PairBatches([pair(0, 60, 60, ["left"])], 200, 32, scale=scale, augment="timm")(0)
        spans = (batch.images[:, 0, :, 24] - batch.images[:, 0, :, 8]).median(1).values
        mirrored = torch.tensor([caption == "right" for caption in batch.captions])
        agreeing = (spans < 0) == mirrored  # not all: RandAugment also inverts
        assert 80 < mirrored.sum() < 120 and agreeing.float().mean() > 0.65
        found[scale] = spans.abs().median()
    assert found[None] < 0.85 * found[0.9, 1.0]
    still = PairBatches([pair(0, 60, 60, ["left"])], 200, 32, flip=False, augment="timm")(0)
    assert set(still.captions) == {"left"}
    assert ((still.images[:, 0, :, 24] - still.images[:, 0, :, 8]).median(1).values > 0).float().mean() > 0.65


def test_encoded_and_grey_pictures_are_read_like_arrays():
    stream = io.BytesIO()
    Image.fromarray(pair(3)["image"]).save(stream, "PNG")
    plain = PairBatches([pair(3)], 2, 16)(0)
    assert same(PairBatches([pair(3) | {"image": stream.getvalue()}], 2, 16)(0), plain)
    grey = PairBatches([pair(3) | {"image": pair(3)["image"][..., 0]}], 2, 16)(0)
    assert torch.equal(grey.images, plain.images[:, :1].expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"size": 0}, "size=0"),
        ({"workers": -1}, "workers=-1"),
        ({"scale": (0, 1)}, r"scale=\(0, 1\)"),
        ({"scale": (0.8, 0.5)}, r"scale=\(0.8, 0.5\)"),
        ({"scale": (0.5, 1.1)}, r"scale=\(0.5, 1.1\), .* expected a range in \(0, 1\]"),
        ({"ratio": (0, 1)}, r"ratio=\(0, 1\)"),
        ({"ratio": (2, 1)}, r"ratio=\(2, 1\)"),
        ({"augment": "all"}, "got augment='all', expected one of crop, timm"),
    ],
)
def test_settings_that_cannot_be_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        PairBatches(**{"split": [pair(0)], "batch_size": 1, "size": 8, **words})


def test_shrinking_averages_what_it_shrinks():
    """A picture of stripes, one pixel each, is grey when it becomes four times smaller."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = PairBatches([pair(0) | {"image": stripes}], 1, 16, scale=(1, 1), ratio=(1, 1), flip=False)(0).images
    coarse = interpolate(torch.from_numpy(stripes).permute(2, 0, 1)[None] / 255, (16, 16), mode="nearest")
    assert (small - 0.5).abs().max() < 0.05 and (coarse - 0.5).abs().min() == 0.5
