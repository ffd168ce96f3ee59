"""Hierarchical grouping: merges and similarities against slow oracles, then the proposals that are made of it."""

from itertools import combinations

import numpy as np
import pytest

from ovs_lite.models import CLASSICAL, selective_search, slic_merges
from ovs_lite.regions.grouping import (
    SPACES,
    Regions,
    colour_similarity,
    histogram_sums,
    merge_all,
    paper_similarity,
)

SOURCES = [slic_merges, selective_search]


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """A red disk with an orange stripe and a blue square on a green ground, with a little noise."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), (40, 160, 60))
    image[disk(height, width)] = (210, 30, 30)
    image[disk(height, width) & (abs(y - 50) < 4)] = (240, 120, 30)
    image[20:50, 80:115] = (30, 40, 200)
    return np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def disk(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - 40) ** 2 + (y - 50) ** 2 < 20**2


def toy(seed: int, height: int = 12, width: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """A random picture in [0, 1] and a random partition of it into 9 or fewer regions: the nearest of 9 points."""
    draw = np.random.default_rng(seed)
    points = draw.random((9, 2)) * (height, width)
    grid = np.stack(np.mgrid[:height, :width], -1)
    labels = ((grid[:, :, None] - points) ** 2).sum(-1).argmin(-1)
    return np.unique(labels, return_inverse=True)[1], draw.random((height, width, 3)) ** draw.uniform(0.3, 3, 3)


def colour_sums(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return np.array([colours[labels == region].sum(0) for region in range(labels.max() + 1)])


def slow_merges(labels, likeness):
    """All pairs of regions compared anew before every merge; a region is its bool mask."""
    alive = [labels == region for region in range(labels.max() + 1)]
    found = list(alive)
    while len(alive) > 1:
        pairs = [pair for pair in combinations(range(len(alive)), 2) if touch(alive[pair[0]], alive[pair[1]])]
        first, second = max(pairs, key=lambda pair: likeness(alive[pair[0]], alive[pair[1]]))
        union = alive[first] | alive[second]
        alive = [mask for index, mask in enumerate(alive) if index not in (first, second)] + [union]
        found.append(union)
    return np.array(found)


def touch(first, second):
    height, width = first.shape
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return any(
        0 <= y + dy < height and 0 <= x + dx < width and second[y + dy, x + dx]
        for y, x in np.argwhere(first)
        for dy, dx in steps
    )


def added_error(colours):
    """Ward: minus how much the squared error about the mean grows."""

    def error(mask):
        return ((colours[mask] - colours[mask].mean(0)) ** 2).sum()

    return lambda first, second: error(first) + error(second) - error(first | second)


def slow_paper_similarity(colours, weights):
    """IJCV 2013, Eq. 1 to 6, from the pixels of the two regions."""

    def overlap(values, bins):
        histograms = [
            np.concatenate([np.histogram(v, bins, (0, 1))[0] for v in values[mask].T]) / mask.sum() for mask in masks
        ]
        return np.minimum(*histograms).sum() / values.shape[2]

    padded = np.pad(colours, [(8, 8), (8, 8), (0, 0)], "symmetric")
    taps = np.arange(-4, 5)
    bell = np.exp(-(taps**2) / 2) / np.exp(-(taps**2) / 2).sum()
    height, width = colours.shape[:2]
    slope = {}
    for name, (rows, columns) in {"down": (bell * taps, bell), "right": (bell, bell * taps)}.items():
        kernel = np.outer(rows, columns)
        windows = np.lib.stride_tricks.sliding_window_view(padded[4:-4, 4:-4], (9, 9), (0, 1))
        slope[name] = (windows * kernel).sum((-1, -2))
    texture = []
    for step in range(8):
        angle = step * np.pi / 4
        texture.append(np.cos(angle) * slope["right"] + np.sin(angle) * slope["down"])
    texture = np.clip(np.concatenate(texture, 2) * np.sqrt(2 * np.pi), 0, 1)

    def likeness(first, second):
        nonlocal masks
        masks = first, second
        rows, columns = np.nonzero(first | second)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        size = first.sum() + second.sum()
        fill = 1 - (box - size) / (height * width)
        parts = overlap(colours, 25), overlap(texture, 10), 1 - size / (height * width), fill
        return sum(weight * part for weight, part in zip(weights, parts, strict=True))

    masks = ()
    return likeness


@pytest.mark.parametrize("seed", range(8))
def test_mean_colours_merge_in_the_order_of_the_slow_oracle(seed):
    labels, colours = toy(seed)
    regions = Regions.start(labels, colour_sums(labels, colours))
    inside = merge_all(labels, regions, colour_similarity)
    assert (inside[:, labels] == slow_merges(labels, added_error(colours))).all()


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1), (1, 0.5, 0.2, 0.7)])
@pytest.mark.parametrize("seed", range(3))
def test_the_papers_similarities_equal_the_slow_oracle(weights, seed):
    labels, colours = toy(seed)
    regions = Regions.start(labels, histogram_sums(labels, colours))
    inside = merge_all(labels, regions, paper_similarity(weights))
    pairs = np.array([(i, j) for i, j in combinations(range(len(inside)), 2) if not (inside[i] & inside[j]).any()])
    found = paper_similarity(weights)(regions, *pairs.T)
    oracle = slow_paper_similarity(colours, weights)
    masks = inside[:, labels]
    np.testing.assert_allclose(found, [oracle(masks[i], masks[j]) for i, j in pairs], atol=1e-9)
    assert (found >= 0).all() and (found <= sum(weights)).all()
    np.testing.assert_array_equal(found, paper_similarity(weights)(regions, *pairs.T[::-1]))


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_merges_come_in_the_order_of_the_slow_oracle(seed):
    labels, colours = toy(seed)
    inside = merge_all(labels, Regions.start(labels, histogram_sums(labels, colours)), paper_similarity())
    assert (inside[:, labels] == slow_merges(labels, slow_paper_similarity(colours, (1, 1, 1, 1)))).all()


def test_what_lies_in_a_hole_fills_it_first_and_small_goes_before_large():
    labels = np.zeros((12, 16), int)
    labels[:, 8:], labels[4:8, 2:6] = 1, 2
    regions = Regions.start(labels, histogram_sums(labels, np.zeros((12, 16, 3))))
    fill = paper_similarity((0, 0, 0, 1))(regions, np.array([0, 0]), np.array([2, 1]))
    assert fill.tolist() == [1, 1 - 16 / 192]
    size = paper_similarity((0, 0, 1, 0))(regions, np.array([0, 0]), np.array([2, 1]))
    assert size.tolist() == [0.5, 1 - (80 + 96) / 192]


def test_stripes_of_two_directions_have_one_colour_and_two_textures():
    colours = np.zeros((40, 80, 3))
    colours[::4, :40] = colours[1::4, :40] = 1
    colours[:, 40::4] = colours[:, 41::4] = 1
    labels = (np.mgrid[:40, :80][1] >= 40).astype(int)
    regions = Regions.start(labels, histogram_sums(labels, colours))
    colour, texture = (float(paper_similarity(w)(regions, [0], [1])[0]) for w in ((1, 0, 0, 0), (0, 1, 0, 0)))
    assert colour == 1 and texture < 0.75


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("flip", [np.fliplr, np.flipud])
def test_a_flipped_partition_merges_into_flipped_masks(seed, flip):
    labels, colours = toy(seed)
    for sums, similarity in ((colour_sums, colour_similarity), (histogram_sums, paper_similarity())):
        plain = merge_all(labels, Regions.start(labels, sums(labels, colours)), similarity)
        flipped, mirrored = flip(labels), flip(colours)
        assert (merge_all(flipped, Regions.start(flipped, sums(flipped, mirrored)), similarity) == plain).all()


def test_every_union_is_made_once_of_two_nodes_that_touch():
    labels, colours = toy(0)
    inside = merge_all(labels, Regions.start(labels, colour_sums(labels, colours)), colour_similarity)
    count = labels.max() + 1
    assert inside.shape == (2 * count - 1, count)
    assert (inside[:count] == np.eye(count, dtype=bool)).all() and inside[-1].all()
    for union in range(count, len(inside)):
        parts = [n for n in range(union) if not (inside[n] & ~inside[union]).any()]
        made = [(i, j) for i, j in combinations(parts, 2) if ((inside[i] ^ inside[j]) == inside[union]).all()]
        assert len(made) == 1 and touch(*(inside[n][labels] for n in made[0]))


def test_equal_pairs_merge_in_the_order_in_which_they_met():
    labels = np.arange(4)[None].repeat(2, 0)
    inside = merge_all(labels, Regions.start(labels, np.zeros((4, 3))), colour_similarity)
    assert inside[4:].tolist() == [[True, True, False, False], [False, False, True, True], [True] * 4]


def test_the_colour_spaces_keep_to_their_range():
    corners = np.array([[[r, g, b] for r in (0, 255) for g in (0, 128, 255) for b in (0, 255)]], np.uint8)
    for space, convert in SPACES.items():
        colours = convert(corners)
        assert colours.shape == corners.shape and colours.min() >= 0 and colours.max() <= 1, space
        assert (colours.reshape(-1, 3).std(0) > 0.05).all(), space


@pytest.mark.parametrize("source", SOURCES)
def test_objects_and_their_parts_are_found(source):
    masks = source(scene())
    square = np.zeros((96, 128), bool)
    square[20:50, 80:115] = True
    stripe = disk() & (abs(np.mgrid[:96, :128][0] - 50) < 4)
    for target in (disk(), square, stripe, ~(disk() | square)):
        assert max((mask & target).sum() / (mask | target).sum() for mask in masks) > 0.85


@pytest.mark.parametrize("source", SOURCES)
def test_one_hierarchy_holds_only_masks_that_are_nested_or_apart(source):
    masks = source(scene(), 500, **({"counts": (40,)} if source is slic_merges else {"spaces": ("hsv",)}))
    assert masks[0].all()
    for first, second in combinations(masks, 2):
        shared = first & second
        assert not shared.any() or (shared == first).all() or (shared == second).all()


@pytest.mark.parametrize("source", CLASSICAL.values(), ids=CLASSICAL)
@pytest.mark.parametrize("budget", [1, 5, 128])
def test_proposals_are_unique_within_budget_and_repeatable(source, budget):
    masks = source(scene(), budget)
    assert masks.dtype == bool and masks.shape[1:] == (96, 128)
    assert 1 <= len(masks) <= budget and masks.any((1, 2)).all()
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert (masks == source(scene(), budget)).all()


@pytest.mark.parametrize("source", SOURCES)
def test_a_smaller_budget_is_the_start_of_a_larger_one(source):
    assert (source(scene(), 10) == source(scene(), 60)[:10]).all()


@pytest.mark.parametrize("source", CLASSICAL.values(), ids=CLASSICAL)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (40, 90), (500, 2)])
def test_small_and_one_coloured_pictures_give_masks_of_their_size(source, shape):
    for image in (np.full((*shape, 3), 200, np.uint8), np.resize(scene(), (*shape, 3))):
        masks = source(image, 128)
        assert masks.shape[1:] == shape and masks.any((1, 2)).all() and masks.any(0).all()
    assert len(selective_search(np.full((*shape, 3), 200, np.uint8))) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_a_larger_picture_has_the_same_regions(source):
    small, large = source(scene(), max_side=128), source(scene().repeat(5, 0).repeat(5, 1), max_side=128)
    assert (large[:, ::5, ::5] == small).all() and large.shape == (len(small), 480, 640)


def test_wrong_arguments_are_refused():
    for source in SOURCES:
        for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
            with pytest.raises(ValueError, match="uint8 RGB"):
                source(image)
        with pytest.raises(ValueError, match="budget=0"):
            source(scene(), 0)
    with pytest.raises(ValueError, match="nothing to start from"):
        slic_merges(scene(), counts=())
    with pytest.raises(ValueError, match="nothing to start from"):
        selective_search(scene(), scales=())
    with pytest.raises(ValueError, match="'cmyk'.*expected some of rgb, hsv, lab"):
        selective_search(scene(), spaces=("hsv", "cmyk"))
    with pytest.raises(ValueError, match="expected 4 numbers"):
        selective_search(scene(), weights=(1, 1))
