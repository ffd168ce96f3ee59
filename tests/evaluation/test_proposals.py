"""Mask sources side by side: counts against loops over pixels, seen and unseen, budgets, the table, the command."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kit.oracles.masks import pixels
from kit.proposers import make_proposer
from kit.records import make_record
from ovs_lite.cli import main
from ovs_lite.commands.evaluate_proposals import as_markdown
from ovs_lite.config import get_profile
from ovs_lite.data.rle import encode_rle
from ovs_lite.evaluation.metrics.intervals import ratio_interval
from ovs_lite.evaluation.proposals import GROUPS, RecallReport, evaluate_proposals
from ovs_lite.iconworld.build import build_set

NAMES = ("cat", "grass", "dog", "sky", "boat")
WORLD, SEEN = SimpleNamespace(names=NAMES), ("sky", "cat", "horse")
CUTS = (0.3, 0.5, 0.8)


def red_numbers(seed, size=(9, 11)):
    """A record of noise in which segment k is painted with k in red; one is a crowd, one has no class."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(size, np.int32)
    for number in range(1, 7):
        top, left = rng.integers(size[0] - 3), rng.integers(size[1] - 3)
        ids[top : top + rng.integers(3, 6), left : left + rng.integers(3, 6)] = number
    kept = [number for number in range(1, 7) if (ids == number).any()]
    infos = [{"id": k, "category_id": -1 if k == 2 else int(rng.integers(5)), "is_crowd": k == 4} for k in kept]
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    image[..., 0] = ids
    return make_record(f"toy-{seed}", image, ids, infos)


def perfect(image, budget):
    return image[..., 0] == np.unique(image[..., 0])[:, None, None]


def empty(image, budget):
    return np.zeros((0, *image.shape[:2]), bool)


def sloppy(image, budget):
    """The perfect masks after useless ones, soft, a tenth of their pixels the wrong way round; too many."""
    masks, rng = perfect(image, budget), np.random.default_rng(int(image.sum()))
    wrong = rng.random((3, *masks.shape)) < 0.1
    masks = np.concatenate([np.zeros((3, *image.shape[:2]), bool), *(masks ^ flipped for flipped in wrong)])
    return torch.from_numpy(np.where(masks, 0.6, 0.4))


RECORDS = [red_numbers(seed, (9, 11 + seed % 2)) for seed in range(6)]
SOURCES = {"perfect": perfect, "empty": empty, "sloppy": sloppy}


def belongs(info, group):
    if info["is_crowd"] or info["category_id"] < 0:
        return False
    return group == "all" or (NAMES[info["category_id"]] in SEEN) == (group == "seen")


def slow_overlaps(source, group, budget):
    """The best overlap of every target, by sets of pixels."""
    best = []
    for record in RECORDS:
        masks = [pixels(mask) for mask in source(record["image"], budget)[:budget]]
        for info in record["segments_info"]:
            if belongs(info, group):
                target = pixels(record["segments"] == info["id"])
                best.append(max([len(m & target) / len(m | target) for m in masks], default=0.0))
    return best


def share(overlaps, threshold):
    return sum(overlap >= threshold for overlap in overlaps) / len(overlaps)


@pytest.mark.parametrize("budget", [1, 9, 128])
def test_counts_equal_the_slow_oracle_for_every_source_group_and_threshold(budget):
    report = evaluate_proposals(iter(RECORDS), SOURCES, WORLD, SEEN, CUTS[::-1], budget)
    assert report.images == 6 and list(report.recall) == list(report.by_budget) == list(SOURCES)
    for name, source in SOURCES.items():
        for group in GROUPS:
            overlaps = slow_overlaps(source, group, budget)
            assert report.targets[group] == len(overlaps) > 5
            assert report.recall[name][group] == {cut: share(overlaps, cut) for cut in CUTS}
    assert report.targets["seen"] + report.targets["unseen"] == report.targets["all"]


def test_a_perfect_source_finds_everything_and_an_empty_one_nothing():
    report = evaluate_proposals(RECORDS, SOURCES, WORLD, SEEN)
    for group in GROUPS:
        assert report.recall["perfect"][group] == {0.5: 1.0, 0.7: 1.0, 0.9: 1.0}
        assert report.recall["empty"][group] == {0.5: 0.0, 0.7: 0.0, 0.9: 0.0}
    assert 0 < report.recall["sloppy"]["all"][0.7] < report.recall["sloppy"]["all"][0.5] < 1


@pytest.mark.parametrize(("budget", "budgets"), [(1, [1]), (4, [1, 2, 4]), (20, [1, 2, 4, 8, 16, 20])])
def test_the_curve_is_what_every_budget_alone_would_give(budget, budgets):
    report = evaluate_proposals(RECORDS, SOURCES, thresholds=CUTS[::-1], budget=budget)
    for name, curve in report.by_budget.items():
        assert list(curve) == budgets
        for part, recall in curve.items():
            alone = evaluate_proposals(RECORDS, {name: SOURCES[name]}, thresholds=CUTS, budget=part)
            assert recall == alone.recall[name]["all"][CUTS[0]] == share(slow_overlaps(SOURCES[name], "all", part), 0.3)


def test_counts_by_image_add_up_to_the_recall():
    report = evaluate_proposals(RECORDS, SOURCES, WORLD, SEEN, CUTS)
    for name, group in itertools.product(SOURCES, GROUPS):
        counts = np.array(report.by_image[name][group])
        assert counts.shape == (6, 4) and counts[:, -1].sum() == report.targets[group]
        assert list(counts[:, :-1].sum(0) / counts[:, -1].sum()) == list(report.recall[name][group].values())


def test_a_difference_has_the_sign_of_its_sources_and_an_interval_around_it():
    report = evaluate_proposals(RECORDS, SOURCES, WORLD, SEEN, CUTS)
    sure = report.difference("perfect", "empty", 0.8, "seen")
    assert (sure.value, sure.low, sure.high) == (1.0, 1.0, 1.0)
    found = report.difference("perfect", "sloppy", 0.8)
    recall = {name: report.recall[name]["all"][0.8] for name in SOURCES}
    assert found.low < found.value < found.high and found.value == pytest.approx(recall["perfect"] - recall["sloppy"])
    counts = {name: np.array(report.by_image[name]["all"]) for name in SOURCES}
    column = list(report.recall["perfect"]["all"]).index(0.8)
    gains, targets = (counts["perfect"] - counts["sloppy"])[:, column], counts["perfect"][:, -1]
    assert vars(found) == vars(ratio_interval(gains, targets))
    turned = report.difference("sloppy", "perfect", 0.8)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_targets_of_one_image_give_no_interval():
    by_image = {name: {"unseen": [[hits, 4], *[[0, 0]] * 9]} for name, hits in (("a", 3), ("b", 1))}
    recall = dict.fromkeys(by_image, {"unseen": {0.5: math.nan}})
    found = RecallReport(recall, {}, {"unseen": 4}, 10, by_image).difference("a", "b", group="unseen")
    assert found.value == 0.5 and found.interval is None and found.note == "no interval: one image"


def test_a_change_of_difference_is_that_of_two_groups_of_the_same_images():
    report = evaluate_proposals(RECORDS, SOURCES, WORLD, SEEN, CUTS)
    found = report.change_of_difference("perfect", "sloppy", threshold=0.8)
    unseen, seen = (report.difference("perfect", "sloppy", 0.8, group).value for group in ("unseen", "seen"))
    assert found.low < found.value < found.high and found.value == pytest.approx(unseen - seen)
    turned = report.change_of_difference("perfect", "sloppy", ("seen", "unseen"), 0.8)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    for nothing in (
        report.change_of_difference("perfect", "empty", threshold=0.8),  # both leads are 1 without any image
        report.change_of_difference("perfect", "sloppy", ("seen", "seen"), 0.8),
    ):
        assert (nothing.value, nothing.low, nothing.high) == pytest.approx((0, 0, 0))
    with pytest.raises(ValueError, match="expected one of .* and at least one target"):
        evaluate_proposals(RECORDS, SOURCES, WORLD).change_of_difference("perfect", "empty")


@pytest.mark.parametrize(("threshold", "group", "seen"), [(0.6, "all", SEEN), (0.5, "seen", ())])
def test_a_difference_of_nothing_is_an_error(threshold, group, seen):
    report = evaluate_proposals(RECORDS, SOURCES, WORLD, seen)
    with pytest.raises(ValueError, match="expected one of .* and at least one target"):
        report.difference("perfect", "empty", threshold, group)


def test_the_interval_covers_the_true_difference_in_95_of_100_samples():
    """Images with 1 to 6 targets; sources that find each with probability 0.7 and 0.6, both more in easy images."""
    rng, covered, repetitions = np.random.default_rng(0), 0, 400
    for _ in range(repetitions):
        targets, ease = rng.integers(1, 7, 60), rng.uniform(-0.2, 0.2, 60)
        by_image = {
            name: {"all": np.stack([rng.binomial(targets, chance + ease), targets], 1).tolist()}
            for name, chance in (("a", 0.7), ("b", 0.6))
        }
        recall = dict.fromkeys(by_image, {"all": {0.5: math.nan}})
        report = RecallReport(recall, {}, {"all": int(targets.sum())}, 60, by_image)
        found = report.difference("a", "b")
        covered += found.low <= 0.1 <= found.high
    assert 0.92 <= covered / repetitions <= 0.98


def test_sources_are_asked_for_the_budget_with_the_picture_as_it_is():
    asked = []

    def spy(image, budget):
        asked.append((image.copy(), budget))
        return empty(image, budget)

    evaluate_proposals(RECORDS[:2], {"spy": spy}, budget=7)
    assert [budget for _, budget in asked] == [7, 7]
    assert all((image == record["image"]).all() for (image, _), record in zip(asked, RECORDS, strict=False))


@pytest.mark.parametrize("shape", [(2, 11, 9), (9, 11), (0, 3, 3), (2, 9, 12)])
def test_masks_of_another_size_are_refused_with_the_sources_name(shape):
    sources = SOURCES | {"my source": lambda image, budget: np.zeros(shape, bool)}
    with pytest.raises(ValueError, match=r"^my source gave masks .*expected \(N, 9, 11\)") as error:
        evaluate_proposals(RECORDS[:1], sources)
    assert str(shape) in str(error.value)


def test_without_vocabulary_nothing_is_seen_or_unseen():
    report = evaluate_proposals(RECORDS, {"perfect": perfect}, seen=SEEN)
    assert report.targets == evaluate_proposals(RECORDS, SOURCES, WORLD).targets | {"seen": 0, "unseen": 0}
    assert all(math.isnan(value) for value in report.recall["perfect"]["unseen"].values())
    assert evaluate_proposals(RECORDS, SOURCES, WORLD).targets["seen"] == 0


def test_pictures_without_masks_count_as_pictures_only():
    bare = {"image_id": "bare", "image": RECORDS[0]["image"], "segments": None, "segments_info": None}
    void = bare | {"segments": np.zeros((9, 11), np.int32), "segments_info": []}
    report = evaluate_proposals([bare, void], SOURCES, WORLD, SEEN)
    assert report.images == 2 and report.targets == {"all": 0, "seen": 0, "unseen": 0}
    assert all(math.isnan(value) for value in report.recall["perfect"]["all"].values())
    assert all(math.isnan(value) for value in report.by_budget["empty"].values())
    more = evaluate_proposals([bare, *RECORDS, void], SOURCES, WORLD, SEEN)
    assert more.recall == evaluate_proposals(RECORDS, SOURCES, WORLD, SEEN).recall and more.images == 8
    assert evaluate_proposals(RECORDS, {}).recall == {}
    for wrong, message in (({"records": []}, "got no record"), ({"budget": 0}, "got budget=0")):
        with pytest.raises(ValueError, match=message):
            evaluate_proposals(**{"records": RECORDS, "sources": SOURCES, **wrong})


def test_masks_without_a_class_are_neither_seen_nor_unseen():
    """Label -1 is no name counted from the end of the vocabulary."""
    masks = [encode_rle(mask) for mask in perfect(RECORDS[0]["image"], 0)]
    record = {"image": RECORDS[0]["image"], "segments": None, "segments_info": None, "masks": masks}
    for seen in (NAMES, ()):
        report = evaluate_proposals([record], {"perfect": perfect}, WORLD, seen)
        assert report.targets == {"all": len(masks), "seen": 0, "unseen": 0}
        assert report.recall["perfect"]["all"] == {0.5: 1.0, 0.7: 1.0, 0.9: 1.0}


def test_the_table_has_a_column_per_threshold_and_names_groups_where_there_are_several():
    report = evaluate_proposals(RECORDS, SOURCES, WORLD, SEEN, (0.5, 0.75))
    assert list(report.table()) == list(SOURCES) and report.table()["perfect"] == {"R50": 1.0, "R75": 1.0}
    assert report.table(("unseen",))["sloppy"]["R75"] == report.recall["sloppy"]["unseen"][0.75]
    both = report.table(("seen", "unseen"))["sloppy"]
    assert list(both) == ["R50 seen", "R75 seen", "R50 unseen", "R75 unseen"]
    assert list(both.values()) == [report.recall["sloppy"][g][t] for g in ("seen", "unseen") for t in (0.5, 0.75)]


def test_the_markdown_leaves_out_groups_without_targets():
    lines = as_markdown(evaluate_proposals(RECORDS, SOURCES, thresholds=(0.5,)), 128).splitlines()
    assert lines[0].startswith("6 images, at most 128 proposals each; targets: ") and lines[0].endswith(" all")
    assert lines[2:5] == ["| proposals | R50 |", "| --- | ---: |", "| perfect | 100.0 |"]
    lines = as_markdown(evaluate_proposals(RECORDS, SOURCES, WORLD, SEEN), 7).splitlines()
    assert "R90 unseen" in lines[2] and {line.count("|") for line in lines[2:]} == {11}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Smoke-size icon-coco, and a file of proposals."""
    root = tmp_path_factory.mktemp("data")
    build_set("icon-coco", get_profile("smoke").data, root, progress=False)
    make_proposer("openseg-proposals").save(root / "p.safetensors")
    return root


@pytest.fixture
def command(world, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(world))
    return lambda *words: main(["evaluate", "proposals", "--profile", "smoke", *map(str, words)])


def test_the_command_prints_a_table_and_writes_the_same_numbers(command, world, tmp_path, capsys):
    out, path = tmp_path / "deep" / "recall.json", world / "p.safetensors"
    assert command(path, "--images", 2, "--budget", 16, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 images, at most 16 proposals each") and lines[2].startswith("| icon-coco | R50 all")

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    everything = json.loads(out.read_text(), parse_constant=refuse)
    written = everything["sets"]["icon-coco"]
    assert everything["budget"] == 16 and written["images"] == 2 and "icon-coco" in written["folder"]
    assert list(written["recall"]) == ["felzenszwalb", "SLIC merges", str(path)]
    assert list(written["by_budget"][str(path)]) == ["1", "2", "4", "8", "16"]
    assert written["recall"]["SLIC merges"]["unseen"]["0.5"] is None, "icon-coco has seen classes only"
    for line, (name, found) in zip(lines[4:], written["recall"].items(), strict=True):
        values = [100 * found[group][cut] for group in ("all", "seen") for cut in ("0.5", "0.7", "0.9")]
        assert line == f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |"
        assert found["all"] == found["seen"]


def test_only_what_is_given_is_measured(command, world, capsys):
    assert command(world / "p.safetensors", "--no-baselines", "--data", world / "icon-smoke/icon-coco/train") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("32 images") and len(lines) == 5 and "p.safetensors" in lines[4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-baselines"], "got --no-baselines and no file, expected something to measure"),
        (["none.safetensors"], "none.safetensors: no such proposals"),
        (["--set", "icon-context59"], "build it with: ovs-lite data build"),
        (["--images", "1", "--budget", "0"], "got budget=0, expected at least 1"),
    ],
)
def test_mistakes_are_told_in_one_line(command, capsys, words, message):
    assert command(*words) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("ovs-lite: ") and message in told


def test_the_help_has_examples(capsys):
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "proposals", "--help"])
    assert end.value.code == 0 and "examples:\n  ovs-lite evaluate proposals runs/" in capsys.readouterr().out
