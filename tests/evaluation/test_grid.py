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
from ovs_lite.evaluation.grid import CLASSIFIERS, GROUND_TRUTH, ORACLE, PURE_ORACLE, evaluate_grid
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
