"""Mask sources: one contract for classical ones, baselines, ground truth and learned ones, and what breaks it."""

import numpy as np
import pytest
import torch

from kit.images import disk_and_square
from kit.proposers import make_proposer
from kit.records import scene, toy, without_annotation
from ovs_lite.regions.sources import BASELINES, CLASSICAL, checked_masks, ground_truth, in_quarters, on_a_grid

IMAGE = disk_and_square()
SOURCES = CLASSICAL | BASELINES | {"learned": make_proposer("openseg-proposals").propose}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("budget", [1, 5, 128])
def test_every_source_keeps_the_contract(source, budget):
    masks = source(IMAGE, budget)
    assert masks.dtype == torch.float32 and masks.shape[1:] == (96, 128) and 1 <= len(masks) <= budget
    assert torch.equal(checked_masks(masks, IMAGE, "it"), masks) and torch.equal(source(IMAGE, budget), masks)


@pytest.mark.parametrize("source", (CLASSICAL | BASELINES).values(), ids=CLASSICAL | BASELINES)
def test_classical_masks_are_hard_unique_and_filled(source):
    masks = source(IMAGE, 128)
    assert set(masks.unique().tolist()) == {0, 1} and masks.flatten(1).any(1).all()
    assert len({mask.numpy().tobytes() for mask in masks}) == len(masks)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_smaller_budget_is_the_start_of_a_larger_one(source):
    assert torch.equal(source(IMAGE, 5), source(IMAGE, 60)[:5])


@pytest.mark.parametrize("source", CLASSICAL.values(), ids=CLASSICAL)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (40, 90), (500, 2)])
def test_small_and_one_coloured_images_give_masks_of_their_size(source, shape):
    for image in (np.full((*shape, 3), 200, np.uint8), np.resize(IMAGE, (*shape, 3))):
        masks = source(image, 128)
        assert masks.shape[1:] == shape and masks.any((1, 2)).all() and masks.any(0).all()


@pytest.mark.parametrize("encoded", [True, False])
def test_the_ground_truth_leaves_out_void_unlabelled_and_crowds(encoded):
    record = toy("p", scene(), categories={1: -1}, crowds=(3,), encoded=encoded)
    masks = ground_truth(record)(record["image"], 10)
    assert masks.dtype == torch.float32 and torch.equal(masks, torch.from_numpy(scene() == 2)[None].float())
    whole = ground_truth(toy("p", scene(), encoded=encoded))
    assert torch.equal(
        whole(record["image"], None), torch.from_numpy(scene() == np.array([1, 2, 3])[:, None, None]).float()
    )
    assert torch.equal(whole(record["image"], 2), whole(record["image"], None)[:2])
    empty = ground_truth(toy("p", scene(), categories={1: -1, 2: -1, 3: -1}))
    assert empty(record["image"], 10).shape == (0, 40, 40)


def test_a_record_without_segments_has_no_ground_truth():
    with pytest.raises(ValueError, match="'bare' has no segments, expected an annotated image"):
        ground_truth(without_annotation(masks=[np.ones((8, 8), bool)]))


@pytest.mark.parametrize("dtype", [bool, np.float16, np.float32, np.float64])
def test_bool_and_soft_masks_of_any_precision_are_taken(dtype):
    masks = (np.random.default_rng(0).random((3, 4, 5)) > 0.5).astype(dtype)
    image = np.zeros((4, 5, 3), np.uint8)
    for given in (masks, torch.from_numpy(masks), masks[:0]):
        found = checked_masks(given, image, "it")
        assert found.dtype == torch.float32 and np.array_equal(found.numpy(), np.asarray(given, np.float32))


@pytest.mark.parametrize(
    ("masks", "given"),
    [
        (np.zeros((2, 5, 4), bool), r"gave masks \(2, 5, 4\), expected \(N, 4, 5\)"),
        (np.zeros((4, 5)), r"gave masks \(4, 5\), expected \(N, 4, 5\)"),
        (np.zeros((0, 3, 3)), r"gave masks \(0, 3, 3\), expected \(N, 4, 5\)"),
        (
            np.ones((1, 4, 5), np.int64),
            r"gave masks of torch.int64 between 1 and 1, expected bool or float in \[0, 1\]",
        ),
        (np.full((1, 4, 5), 1.5), r"gave masks of torch.float64 between 1.5 and 1.5, expected bool or float"),
        (np.full((1, 4, 5), -0.1), "gave masks of torch.float64 between -0.1 and -0.1, expected bool or float"),
        (np.full((1, 4, 5), np.nan), "gave masks of torch.float64 between nan and nan, expected bool or float"),
        (np.zeros((0, 4, 5), np.int64), "gave masks of torch.int64, expected bool or float"),
    ],
)
def test_what_is_no_set_of_masks_is_refused_with_the_sources_name(masks, given):
    with pytest.raises(ValueError, match=f"^my source {given}"):
        checked_masks(masks, np.zeros((4, 5, 3), np.uint8), "my source")


def test_in_quarters_sees_each_quarter_enlarged_and_puts_its_masks_back():
    image = np.zeros((7, 10, 3), dtype=np.uint8)
    image[0:3, 0:5], image[0:3, 5:10], image[3:7, 0:5], image[3:7, 5:10] = 10, 20, 30, 40
    seen = []

    def whole_image(shown, budget):
        seen.append((shown.shape, int(shown.max()), budget))
        return torch.ones(2, *shown.shape[:2])[: min(budget, 2 if shown.max() < 40 else 1)]

    masks = in_quarters(whole_image)(image, 8)
    assert seen == [((7, 10, 3), value, 2) for value in (10, 20, 30, 40)], "each quarter at the image's size"
    assert masks.shape == (7, 7, 10) and torch.equal(masks[:4].sum(0), torch.ones(7, 10)), "the best of each come first"
    assert [int(image[..., 0][mask.bool()].max()) for mask in masks] == [10, 20, 30, 40, 10, 20, 30]
    assert torch.equal(in_quarters(whole_image)(image, 3), masks[:3]), "one of each quarter, and no more than asked for"
    assert len(in_quarters(whole_image)(image[:1], 8)) == 4, "two of each, as a line has two quarters"

    seen.clear()
    as_they_are = in_quarters(whole_image, enlarge=False)(image, 8)
    assert [shape[:2] for shape, *_ in seen] == [(3, 5), (3, 5), (4, 5), (4, 5)] and torch.equal(as_they_are, masks)


def test_on_a_grid_keeps_what_fills_cells_and_loses_what_is_thin():
    image = np.zeros((8, 12, 3), np.uint8)
    half, line = torch.zeros(8, 12), torch.zeros(8, 12)
    half[:, 4:], line[:, 5] = 1, 1
    fine = torch.stack([half, line])
    masks = on_a_grid(lambda shown, budget: fine[:budget], 4)(image, 2)
    assert masks.shape == (2, 8, 12) and torch.equal(masks[0] > 0.5, half > 0.5)
    assert 0 < masks[1].max() < 0.5, "a line a pixel wide is never more than half of a cell"
    assert torch.equal(on_a_grid(lambda shown, budget: fine[:budget], 1)(image, 1), fine[:1])
    assert on_a_grid(lambda shown, budget: fine[:0], 4)(image, 2).shape == (0, 8, 12)
    with pytest.raises(ValueError, match="got stride=0"):
        on_a_grid(lambda shown, budget: fine, 0)
