"""Hierarchical grouping: the order of merges against a slow oracle, then the proposals that are made of it."""

from itertools import combinations

import numpy as np
import pytest

from ovs_lite.regions.grouping import SHARE, merge_by_colour, slic_merges


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """A red disk with an orange stripe and a blue square on a green ground, with a little noise."""
    image = np.full((height, width, 3), (40, 160, 60))
    image[disk(height, width)] = (210, 30, 30)
    image[disk(height, width) & (abs(np.mgrid[:height, :width][0] - 50) < 4)] = (240, 120, 30)
    image[20:50, 80:115] = (30, 40, 200)
    return np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def disk(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - 40) ** 2 + (y - 50) ** 2 < 20**2


def partition(seed: int, height: int = 12, width: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """A partition into 9 or fewer regions, the nearest of 9 points, and random colours."""
    draw = np.random.default_rng(seed)
    points = draw.random((9, 2)) * (height, width)
    grid = np.stack(np.mgrid[:height, :width], -1)
    labels = ((grid[:, :, None] - points) ** 2).sum(-1).argmin(-1)
    return labels, draw.random((height, width, 3)) ** draw.uniform(0.3, 3, 3)


def slow_merges(labels, colours):
    """All pairs of regions compared again before every merge; a region is its bool mask."""

    def error(mask):
        return ((colours[mask] - colours[mask].mean(0)) ** 2).sum()

    alive = [labels == region for region in np.unique(labels)]
    found = list(alive)
    while len(alive) > 1:
        pairs = [pair for pair in combinations(alive, 2) if touch(*pair)]
        first, second = min(pairs, key=lambda pair: error(pair[0] | pair[1]) - error(pair[0]) - error(pair[1]))
        alive = [mask for mask in alive if mask is not first and mask is not second] + [first | second]
        found.append(first | second)
    return np.array(found)


def touch(first, second):
    height, width = first.shape
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return any(
        0 <= y + dy < height and 0 <= x + dx < width and second[y + dy, x + dx]
        for y, x in np.argwhere(first)
        for dy, dx in steps
    )


def as_masks(nodes, labels):
    return np.array([np.isin(labels, node) for node in nodes])


@pytest.mark.parametrize("seed", range(8))
def test_regions_merge_in_the_order_of_the_slow_oracle(seed):
    labels, colours = partition(seed)
    expected = slow_merges(labels, colours)
    assert len(expected) == 2 * len(np.unique(labels)) - 1 >= 9
    assert (as_masks(merge_by_colour(labels, colours), labels) == expected).all()
    one_channel = colours[..., :1]
    assert (as_masks(merge_by_colour(labels, one_channel), labels) == slow_merges(labels, one_channel)).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("change", [np.fliplr, np.flipud, lambda array: np.swapaxes(array, 0, 1)])
def test_a_flipped_partition_merges_in_the_same_order(seed, change):
    labels, colours = partition(seed)
    flipped = merge_by_colour(change(labels), change(colours))
    assert [set(node) for node in flipped] == [set(node) for node in merge_by_colour(labels, colours)]


def test_numbers_with_gaps_and_one_region_alone():
    labels, colours = partition(0)
    gaps = merge_by_colour(3 * labels + 2, colours)
    assert [[(region - 2) // 3 for region in node] for node in gaps] == merge_by_colour(labels, colours)
    assert merge_by_colour(np.zeros((4, 5), int), np.zeros((4, 5, 3))) == [[0]]


def test_corners_do_not_touch():
    """Two regions of one colour that meet at a corner only merge last, through their neighbours."""
    labels = np.array([[0, 1], [2, 3]]).repeat(4, 0).repeat(4, 1)
    colours = np.choose(labels, [1.0, 0.0, 0.5, 1.0])[..., None]
    assert {0, 3} not in [set(node) for node in merge_by_colour(labels, colours)]


def test_objects_and_their_parts_are_found():
    masks = slic_merges(scene())
    square = np.zeros((96, 128), bool)
    square[20:50, 80:115] = True
    stripe = disk() & (abs(np.mgrid[:96, :128][0] - 50) < 4)
    for target in (disk(), square, stripe, ~(disk() | square)):
        assert max((mask & target).sum() / (mask | target).sum() for mask in masks) > 0.8


def test_one_hierarchy_holds_only_masks_that_are_nested_or_apart():
    masks = slic_merges(scene(), 500, levels=((60, 40.0),))
    assert masks[0].all() and len(masks) == SHARE
    for first, second in combinations(masks, 2):
        shared = first & second
        assert not shared.any() or (shared == first).all() or (shared == second).all()


def test_the_first_hierarchy_comes_before_the_second():
    levels = ((30, 80.0), (60, 20.0))
    both, first, second = (slic_merges(scene(), 500, levels=some) for some in (levels, levels[:1], levels[1:]))
    assert (both[: len(first)] == first).all() and len(first) < len(both) < len(first) + len(second)
    assert {mask.tobytes() for mask in both} == {mask.tobytes() for mask in (*first, *second)}


def test_a_larger_image_has_the_same_regions():
    small, large = slic_merges(scene(), max_side=128), slic_merges(scene().repeat(5, 0).repeat(5, 1), max_side=128)
    assert (large[:, ::5, ::5] == small).all() and large.shape == (len(small), 480, 640)


def test_wrong_arguments_are_refused():
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            slic_merges(image)
    with pytest.raises(ValueError, match="budget=0"):
        slic_merges(scene(), 0)
    with pytest.raises(ValueError, match="no levels"):
        slic_merges(scene(), levels=())
