"""Classes that are asked for by several phrases: their score is the maximum, as in the segmenter."""

import numpy as np
import pytest
from PIL import Image

from kit.colour_methods import RECORDS, SLIDE, Likeness
from kit.oracles.segmentation import category_map, logits_of
from kit.records import NAMED
from kit.vocabularies import FOUR, GROUND
from ovs_lite.evaluation.segmentation import asked_phrases, evaluate_segmentation
from ovs_lite.inference import encode_image


@pytest.fixture(autouse=True)
def more_colours(monkeypatch):
    for name, colour in (("crimson", (200, 20, 60)), ("black", (0, 0, 0))):
        monkeypatch.setitem(NAMED, name, colour)


def counts_by_maximum(method, groups):
    """(N, 3, C) with one full-size score per phrase and one Boolean mask per class."""
    rows = []
    for record in RECORDS:
        truth, image = category_map(record), Image.fromarray(record["image"])
        every = [phrase for group in groups for phrase in group]
        scores = encode_image(method, image, SLIDE).scores(method.clip.text_embeddings(every, "vild14"))
        apart = dict(zip(every, logits_of(scores, truth.shape), strict=True))
        found = np.stack([np.max([apart[phrase] for phrase in group], 0) for group in groups]).argmax(0)
        kinds = range(len(groups))
        masks = [((found == k) & (truth >= 0), truth == k) for k in kinds]
        rows.append([[(p & t).sum() for p, t in masks], [p.sum() for p, _ in masks], [t.sum() for _, t in masks]])
    return np.array(rows)


def test_the_score_of_a_class_is_the_maximum_of_its_phrases(tmp_path):
    method, names = Likeness(), list(FOUR.names)
    groups = [[name] for name in names]
    groups[names.index("red")] += ["crimson", "black"]
    expected = counts_by_maximum(method, groups)
    (tmp_path / "names.txt").write_text("red|crimson|black\n")
    for given in ("red|crimson|black", ["red|crimson|black"], f"@{tmp_path / 'names.txt'}"):
        report = evaluate_segmentation(method, RECORDS, FOUR, window=SLIDE, queries=given)
        assert (report.per_image == expected).all() and report.names == FOUR.names
        assert report.protocol["queries"] == ["red|crimson|black"]
    plain = evaluate_segmentation(method, RECORDS, FOUR, window=SLIDE)
    assert (plain.per_image != expected).any() and "queries" not in plain.protocol


def test_queries_go_with_a_background_and_with_chosen_classes():
    method = Likeness()
    given = {"window": SLIDE, "background": -0.75, "queries": ["red|crimson"]}
    evaluate_segmentation(method, RECORDS[:1], GROUND, **given)
    assert method.clip.asked[0] == ["green", "blue", "red", "crimson"]
    evaluate_segmentation(method, RECORDS[:1], GROUND, classes=["red", "blue"], **{**given, "background": None})
    assert method.clip.asked[0] == ["red", "crimson", "blue"]


@pytest.mark.parametrize(
    "queries, message",
    [("purple|red", "got class 'purple'"), ("background|wall", "'background|wall', expected at most one of each class"),
     ("red, Red|rose", "more than once"), ("red|blue", "'blue' more than once"), ("", "got an empty name")],
)  # fmt: skip
def test_queries_of_no_class_or_of_two_are_refused(queries, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        evaluate_segmentation(Likeness(), [], GROUND, background=0.4, queries=queries)


def test_without_queries_classes_are_asked_for_by_name():
    words, owners = asked_phrases(GROUND)
    assert [GROUND.names[owner] for owner in owners] == words and GROUND.background not in owners
