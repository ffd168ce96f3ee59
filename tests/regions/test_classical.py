"""Classical proposals: partitions are partitions, the mix holds no duplicates, odd images work."""

import numpy as np
import pytest

from ovs_lite.regions.classical import felzenszwalb_masks, grid_masks, proposals, slic_masks


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """A red disk and a blue square on a green ground, with a little noise."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), (40, 160, 60))
    image[(x - 40) ** 2 + (y - 50) ** 2 < 20**2] = (210, 30, 30)
    image[20:50, 80:115] = (30, 40, 200)
    return np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def best_iou(masks: np.ndarray, target: np.ndarray) -> float:
    return max((mask & target).sum() / (mask | target).sum() for mask in masks)


@pytest.mark.parametrize("source", [felzenszwalb_masks, slic_masks, grid_masks])
@pytest.mark.parametrize("shape", [(96, 128), (1, 1), (1, 7), (300, 620)])
def test_a_partition_gives_each_pixel_to_one_mask(source, shape):
    image = np.resize(scene(), (*shape, 3))
    masks = source(image)
    assert masks.dtype == bool and masks.shape[1:] == shape
    assert (masks.sum(0) == 1).all() and masks.any((1, 2)).all()
    assert (np.diff(masks.sum((1, 2))) <= 0).all()


def test_whole_objects_are_found():
    y, x = np.mgrid[:96, :128]
    masks = proposals(scene())
    assert best_iou(masks, (x - 40) ** 2 + (y - 50) ** 2 < 20**2) > 0.9
    square = np.zeros((96, 128), bool)
    square[20:50, 80:115] = True
    assert best_iou(masks, square) > 0.9
    assert best_iou(grid_masks(scene()), square) < 0.7


@pytest.mark.parametrize("budget", [1, 5, 64])
def test_the_mix_is_unique_within_budget_and_repeatable(budget):
    masks = proposals(scene(), budget)
    sizes = masks.sum((1, 2))
    assert 1 <= len(masks) <= budget and masks.shape[1:] == (96, 128)
    assert (sizes > 0).all() and (masks == proposals(scene(), 100)[:budget]).all()
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert (masks == proposals(scene(), budget)).all()


def test_a_large_budget_covers_every_pixel():
    assert proposals(scene(), budget=500).any(0).all()


@pytest.mark.parametrize(("shape", "cells", "count"), [((8, 8), 4, 16), ((9, 5), 2, 4), ((1, 7), 4, 4), ((3, 2), 4, 6)])
def test_the_grids_cells_are_rectangles_of_nearly_equal_sides(shape, cells, count):
    masks = grid_masks(np.zeros((*shape, 3), np.uint8), cells)
    assert len(masks) == count
    sides = [(mask.any(1).sum(), mask.any(0).sum()) for mask in masks]
    assert all(mask.sum() == height * width for mask, (height, width) in zip(masks, sides, strict=True))
    assert all(np.ptp([side[axis] for side in sides]) <= 1 for axis in (0, 1))


def test_a_larger_image_has_the_same_regions():
    image = scene(128, 128)
    small, large = felzenszwalb_masks(image), felzenszwalb_masks(image.repeat(5, 0).repeat(5, 1), max_side=128)
    assert (large[:, ::5, ::5] == small).all() and large.shape == (len(small), 640, 640)


@pytest.mark.parametrize("shape", [(1, 1), (64, 80)])
def test_one_colour_is_one_region_for_felzenszwalb_and_never_an_error(shape):
    image = np.full((*shape, 3), 128, np.uint8)
    assert len(felzenszwalb_masks(image)) == 1
    masks = proposals(image)
    assert masks[0].all() and len(masks) >= 1


def test_wrong_images_and_budgets_are_refused():
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            proposals(image)
    with pytest.raises(ValueError, match="budget"):
        proposals(scene(), 0)
    with pytest.raises(ValueError, match="neither"):
        proposals(scene(), scales=(), counts=())
