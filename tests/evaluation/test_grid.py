"""The mask-source x classifier grid: records with holes and crowds, soft and learned sources, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from kit.clips import random_clip
from kit.proposers import make_proposer
from kit.records import make_record
from kit.vocabularies import vocabulary
from ovs_lite.data.segments import describe_segment
from ovs_lite.evaluation.grid import CLASSIFIERS, GROUND_TRUTH, ORACLE, PURE_ORACLE, evaluate_grid, label_maps
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.methods import get_method
from ovs_lite.regions.classifiers import CLIP_CLASSIFIERS
from ovs_lite.regions.sources import BASELINES

WORLD = vocabulary("cat", "grass", "sky", "boat")


@pytest.fixture(scope="module")
def clip():
    return random_clip()


@pytest.fixture(autouse=True)
def own_text_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path))


def record(number: int = 0, crowds: tuple[int, ...] = ()) -> dict:
    """Grass below, sky above, a cat in the middle, an unlabelled post and a void stripe."""
    segments = np.ones((64, 80), np.int32)
    segments[:30] = 2
    segments[20:50, 30:60] = 3
    segments[:, :4] = 4
    segments[60:] = 0
    image = np.random.default_rng(number).integers(0, 60, (64, 80, 3)).astype(np.uint8)
    image += np.array([(0, 0, 0), (20, 180, 40), (90, 140, 190), (190, 90, 10), (10, 10, 10)], np.uint8)[segments]
    category = {1: 1, 2: 2, 3: 0, 4: -1}
    infos = [describe_segment(segments == i, i, category[i], i == 3, i in crowds) for i in (1, 2, 3, 4)]
    return make_record(f"r{number}", Image.fromarray(image), segments, infos)


def test_the_grid_on_records_with_void_and_unlabelled_segments(clip):
    grid = evaluate_grid([record(0), record(1)], clip, WORLD)
    assert list(grid.table) == [GROUND_TRUTH, *BASELINES]
    assert all(list(row) == list(CLASSIFIERS) for row in grid.table.values())
    assert grid.table[GROUND_TRUTH][ORACLE] == 1.0 and grid.images == 2
    assert grid.table["grid"][ORACLE] < grid.table["classical proposals"][ORACLE] <= 1
    assert grid.ignored == 2 * (4 * 80 + 60 * 4)
    truth = [row for row in grid.regions if row["source"] == GROUND_TRUTH]
    assert len(truth) == 2 * 3 * 3 and {row["classifier"] for row in truth} == set(CLIP_CLASSIFIERS)
    for row in grid.regions:
        assert row["correct"] == (row["predicted"] == row["target"]) and 0 <= row["blank"] < 1
        assert 0 < row["purity"] <= 1 and -1 <= row["similarity"] <= 1 and 0 <= row["target"] < 4
    assert all(row["purity"] == 1 for row in truth)


def test_a_crowd_is_no_region_and_its_pixels_are_ignored(clip):
    grid = evaluate_grid([record(crowds=(2,))], clip, WORLD, {})
    assert grid.table[GROUND_TRUTH][ORACLE] == 1.0
    assert {row["target"] for row in grid.regions} == {0, 1}
    crowd = int((record()["segments"] == 2).sum())
    assert grid.ignored == 4 * 80 + 60 * 4 + crowd


def overlapping(image, budget):
    """All of the image, then the pixels of the cat alone."""
    masks = torch.zeros(2, *image.shape[:2])
    masks[0], masks[1, 20:50, 30:60] = 1, 1
    return masks


def test_the_plain_oracle_gives_every_region_one_vote_and_the_other_prefers_the_purer(clip):
    grid = evaluate_grid([record()], clip, WORLD, {"two": overlapping}, [ORACLE, PURE_ORACLE])
    plain, pure = (grid.report("two", name).scores.iou for name in (ORACLE, PURE_ORACLE))
    assert pure[0] == 1.0, "the cat's own region is the purer one"
    assert plain[0] == 1.0 and plain[1] == pure[1], "a tie goes to the lower class id, the cat's"
    assert list(grid.table[GROUND_TRUTH].values()) == [1.0, 1.0]


def test_soft_masks_name_regions_where_they_exceed_one_half_and_vote_with_their_values(clip):
    def sure(image, budget):
        return overlapping(image, budget).bool().numpy()

    def soft(image, budget):
        return 0.2 + 0.6 * overlapping(image, budget)

    def unsure(image, budget):
        return 0.5 * overlapping(image, budget)

    grid = evaluate_grid([record()], clip, WORLD, {"sure": sure, "soft": soft, "unsure": unsure})
    rows = {name: [row for row in grid.regions if row["source"] == name] for name in ("sure", "soft", "unsure")}
    assert len(rows["sure"]) == 2 * 3 and rows["unsure"] == []
    for hard, row in zip(rows["sure"], rows["soft"], strict=True):
        assert (hard["target"], hard["area"], hard["blank"]) == (row["target"], row["area"], row["blank"])
        if row["classifier"] != "pooled features":
            assert row["similarity"] == pytest.approx(hard["similarity"], abs=1e-6)
    assert all(value == 0 for value in grid.table["unsure"].values())


def test_a_learned_proposer_is_a_row_like_any_other(clip):
    proposer, asked = make_proposer("openseg-proposals"), []

    def learned(image, budget):
        asked.append((image.shape, image.dtype, budget))
        return proposer.propose(image, budget)

    grid = evaluate_grid([record()], clip, WORLD, {"learned": learned}, budget=3)
    assert asked == [((64, 80, 3), np.uint8, 3)] and set(grid.table["learned"]) == set(CLASSIFIERS)
    assert len([row for row in grid.regions if row["source"] == "learned"]) <= 3 * 3


def test_the_budget_is_for_the_sources_and_never_cuts_the_ground_truth(clip):
    grid = evaluate_grid([record()], clip, WORLD, classifiers=[ORACLE], budget=1)
    assert grid.table[GROUND_TRUTH][ORACLE] == 1.0 > grid.table["superpixels"][ORACLE]


def test_a_source_without_masks_finds_nothing_and_one_of_the_wrong_size_is_refused(clip):
    nothing = {"nothing": lambda i, b: np.zeros((0, 64, 80), bool), "empty": lambda i, b: np.zeros((2, 64, 80), bool)}
    grid = evaluate_grid([record()], clip, WORLD, nothing)
    assert all(value == 0 for name in nothing for value in grid.table[name].values())
    assert {row["source"] for row in grid.regions} == {GROUND_TRUTH}
    with pytest.raises(ValueError, match=r"^small gave masks \(1, 4, 4\), expected \(N, 64, 80\)"):
        evaluate_grid([record()], clip, WORLD, {"small": lambda i, b: np.ones((1, 4, 4), bool)})
    with pytest.raises(ValueError, match="guess"):
        evaluate_grid([record()], clip, WORLD, classifiers=["guess"])
    with pytest.raises(ValueError, match="'r0' has no segments"):
        evaluate_grid([{**record(), "segments": None, "segments_info": None}], clip, WORLD)
    with pytest.raises(ValueError, match="got no record"):
        evaluate_grid([], clip, WORLD, nothing)


def test_a_cell_as_a_report_has_the_counts_of_each_image(clip):
    records = [record(number) for number in range(3)]
    grid = evaluate_grid(records, clip, WORLD)
    for source, classifier in (("grid", ORACLE), (GROUND_TRUTH, "masked crops")):
        report = grid.report(source, classifier)
        assert report.image_ids == ("r0", "r1", "r2") and report.names == WORLD.names
        assert report.scores.miou == grid.table[source][classifier]
        for row, one in zip(report.per_image, records, strict=True):
            alone = evaluate_grid([one], clip, WORLD)
            assert (row == alone.counts[source, classifier][0]).all()


def one_mask_each(image, budget):
    """Every pixel a region of its own, where the budget allows it."""
    return torch.eye(image.shape[0] * image.shape[1]).unflatten(1, image.shape[:2])


def test_the_votes_of_a_map_name_regions_as_loops_do(clip):
    draw = np.random.default_rng(5)
    labels = draw.integers(-1, 4, (64, 80))
    grid = evaluate_grid([record()], clip, WORLD, {"two": overlapping}, [ORACLE], maps={"vote:noise": lambda i: labels})
    assert list(grid.table["two"]) == [ORACLE, "vote:noise"]
    masks, named = overlapping(np.zeros((64, 80, 3)), 2).bool().numpy(), []
    for mask in masks:
        votes = [sum(labels[y, x] == k for y, x in np.argwhere(mask)) for k in range(4)]
        named.append(votes.index(max(votes)))
    right = np.zeros((3, 4), np.int64)
    truth = record()
    category = {info["id"]: info["category_id"] for info in truth["segments_info"]}
    for y in range(64):
        for x in range(80):
            target = category.get(int(truth["segments"][y, x]), -1)
            if target >= 0:
                found = min(name for name, mask in zip(named, masks, strict=True) if mask[y, x])
                right[1, found] += 1
                right[2, target] += 1
                right[0, target] += found == target
    assert (grid.counts["two", "vote:noise"][0] == right).all() and right[0].sum() > 0
    assert all(row["classifier"] != "vote:noise" for row in grid.regions)


def test_a_map_that_is_the_ground_truth_votes_as_the_oracle_and_regions_of_one_pixel_keep_a_map(clip):
    truth = record()
    category = {info["id"]: info["category_id"] for info in truth["segments_info"]}
    perfect = np.vectorize(lambda number: category.get(number, -1))(truth["segments"])
    grid = evaluate_grid([truth], clip, WORLD, classifiers=[ORACLE], maps={"perfect": lambda image: perfect})
    assert all(row["perfect"] == row[ORACLE] for row in grid.table.values())
    small = {**truth, "image": truth["image"].crop((0, 0, 40, 32)), "segments": truth["segments"][:32, :40]}
    method = get_method("maskclip", clip)
    maps = {"vote": label_maps(method, WORLD)}
    grid = evaluate_grid([small], clip, WORLD, {"pixels": one_mask_each}, [], maps=maps, truth=False)
    report = evaluate_segmentation(method, [small], WORLD)
    assert list(grid.table) == ["pixels"] and (grid.counts["pixels", "vote"] == report.per_image).all()


def test_a_background_needs_a_threshold_and_names_are_not_given_twice(clip):
    method, ground = get_method("maskclip", clip), vocabulary("cat", "grass", "sky", "boat", background=2)
    with pytest.raises(ValueError, match="maskclip, which names no threshold for the background of toy"):
        label_maps(method, ground)
    method.background = 2.0
    assert (label_maps(method, ground)(np.zeros((16, 24, 3), np.uint8)) == 2).all(), "no cosine reaches it"
    method.background = -2.0
    assert 2 not in label_maps(method, ground)(np.zeros((16, 24, 3), np.uint8))
    with pytest.raises(ValueError, match="got the names oracle, oracle, expected at least one, and each once"):
        evaluate_grid([record()], clip, WORLD, {}, [ORACLE], maps={ORACLE: lambda image: image})
    with pytest.raises(ValueError, match="got the names of nothing"):
        evaluate_grid([record()], clip, WORLD, {}, [ORACLE], truth=False)
