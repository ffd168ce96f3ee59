"""Named protocols: their data, what they mean for a CLIP and a set, and an evaluation under them."""

import re

import numpy as np
import pytest
import torch.nn.functional as F
import yaml
from PIL import Image

from kit.clips import random_clip
from kit.colour_methods import RECORDS, Likeness, Plain
from kit.oracles.segmentation import as_counts, category_map
from kit.vocabularies import FOUR, GROUND, vocabulary
from ovs_lite.data.templates import TEMPLATES
from ovs_lite.data.vocabulary import list_vocabularies, load_vocabulary
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.evaluation.asked import background_phrases
from ovs_lite.evaluation.protocols import FILE, Protocol, get_protocol, protocols
from ovs_lite.evaluation.segmentation import segmentation_counter
from ovs_lite.inference import Window, encode_image
from ovs_lite.methods import get_method
from ovs_lite.methods.with_pamr import WithPamr

SETS = ("icon-voc20", "icon-voc21", "icon-context60", "icon-object", "icon-ade150", "icon-stuff", "cityscapes")


@pytest.mark.parametrize("name", protocols())
def test_every_protocol_holds_on_every_set_and_clip(name):
    for set_name in SETS:
        way = get_protocol(name).on(set_name)
        assert way.name == name and not way.sets and way.source
        for side in (64, 224, 336):
            window = way.window_for(side)
            assert window.stride <= window.side and window.short_side <= window.longest


def test_every_value_says_where_it_is_from():
    text = FILE.read_text(encoding="utf-8")
    named = yaml.safe_load(text)
    assert list(named)[0] == "unified" and len(named) >= 8
    silent = [
        line for line in text.splitlines()
        if re.match(r"\s+\w[\w-]*: *\S", line) and "#" not in line and not line.startswith("  source: ")
    ]  # fmt: skip
    assert not silent, silent


def test_papers_get_their_own_pixels_and_miniatures_the_same_multiples():
    assert get_protocol("tcl").window_for(224) == Window(448, 448, 224, 2048, "bilinear")
    assert get_protocol("tcl").window_for(336) == Window(448, 448, 224, 2048, "bilinear")
    assert get_protocol("tcl").window_for(64) == Window(128, 128, 64, 585, "bilinear")
    assert get_protocol("unified").window_for(64) == Window.for_clip(64)
    assert get_protocol("sclip").on("cityscapes").window_for(224) == Window(560, 224, 112, 2048, "bilinear")
    assert get_protocol("sclip").on("icon-voc20").window_for(64) == Window(96, 64, 32, 585, "bilinear")
    whole = get_protocol("naclip").on("icon-voc21").window_for(224)
    assert (whole.short_side, whole.side) == (336, whole.longest) and get_protocol("naclip").window_for(224).side == 224
    assert get_protocol("ovseg").window_for(224) == Window(640, 2560, 2560, 2560)
    assert get_protocol("ovseg").window_for(64).short_side == get_protocol("uniovseg").window_for(64).short_side == 128


def test_exceptions_of_a_set_hold_for_the_miniature_that_stands_for_it():
    for name in ("voc21", "icon-voc21"):
        way = get_protocol("sclip").on(name)
        assert (way.softmax_scale, way.least_area, way.background, len(way.background_words)) == (65, 0.1, 0.1, 26)
    assert get_protocol("sclip").on("icon-voc20").softmax_scale == 40
    assert [get_protocol("clearclip").on(n).background for n in ("voc21", "context60", "object")] == [0.5, 0.15, 0.4]
    for name in ("coco-object", "icon-object"):
        assert (get_protocol("sclip").on(name).softmax_scale, get_protocol("clearclip").on(name).background) == (
            50,
            0.4,
        )
    assert get_protocol("sclip").on("coco-stuff").short_side == 448
    assert get_protocol("ovseg").on("icon-voc20").options == {"ensemble_weight": 0.6}
    assert get_protocol("uniovseg").absent == "target"


def test_every_exception_is_of_a_vocabulary_that_exists():
    known = {re.sub("^(icon|coco)-", "", name) for name in list_vocabularies()}
    named = {set_name for way in protocols().values() for set_name in way.sets}
    assert named - known <= {"context459"} and {"voc21", "object", "stuff", "cityscapes", "ade150"} <= named


def test_the_eighty_sentences_are_patterns():
    assert len(TEMPLATES["imagenet80"]) == len(set(TEMPLATES["imagenet80"])) == 80
    assert all(pattern.count("{}") == 1 for pattern in TEMPLATES["imagenet80"])
    assert "a bad photo of a {}." in TEMPLATES["imagenet80"] and "itap of my {}." in TEMPLATES["imagenet80"]


def test_words_of_the_background_leave_the_classes_their_names():
    world = vocabulary("bed", "background", "cat", background=1, synonyms={"cat": ["kitten"]})
    words = ["sky", "Bed", "kitten", "background", "wall", "sky", "pet"]
    assert background_phrases(world, words, ["bed", "cat", "pet"]) == ["sky", "background", "wall"]
    voc = load_vocabulary("icon-voc21")
    counter = segmentation_counter(get_method("maskclip", random_clip()), voc, protocol="openseg")
    ground = [p for p, owner in zip(counter.phrases, counter.owners, strict=True) if owner == voc.background]
    assert "grass" in ground and not {"cat", "person"} & set(ground) and counter.thresholds == (None,)
    assert all(voc.find(word) is None for word in ground) and len(ground) > 20


def test_the_refinement_is_the_protocols_unless_an_option_says_otherwise():
    clip = random_clip()
    plain, own = get_method("maskclip", clip), get_method("tcl", clip)
    assert isinstance(get_protocol("tcl").refined(plain, {})[0], WithPamr)
    assert get_protocol("sclip").refined(plain, {}) == (plain, {})
    assert get_protocol("tcl").refined(own, {"kp_weight": 0}) == (own, {"refine": True, "kp_weight": 0})
    assert get_protocol("sclip").refined(own, {})[1] == {"refine": False}
    assert get_protocol("sclip").refined(own, {"refine": True})[1] == {"refine": True}
    assert get_protocol("unified").refined(own, {}) == (own, {})
    wrapped = WithPamr(plain)
    assert get_protocol("tcl").refined(wrapped, {})[0] is wrapped
    assert get_protocol("ovseg").refined(plain, {})[1] == {}, "an option that the method has not"


def test_an_evaluation_under_a_protocol_equals_pixel_by_pixel():
    way = Protocol(
        "toy", "test", unit=8, short_side=8, window=6, stride=4, longest=64, softmax_scale=3.0, least_area=0.2,
        background=0.55, background_words=("white",), templates="single",
    )  # fmt: skip
    method, expected = Plain(), []
    report = evaluate_segmentation(method, RECORDS, GROUND, protocol=way, batch=4)
    names = ["green", "blue", "red", "white"]
    assert method.clip.asked == (names, "single")
    for record in RECORDS:
        truth, window = category_map(record), way.window_for(8)
        text = method.clip.text_embeddings(names, "")
        scores = encode_image(method, Image.fromarray(record["image"]), window).scores(text)
        expected.append(_slow(scores, truth, names, way))
    assert report.per_image.tolist() == as_counts(expected)
    assert report.protocol["protocol"] == "toy" and report.protocol["background_words"] == ["white"]
    plain = evaluate_segmentation(method, RECORDS, GROUND, window=window, background=-10.0)
    assert (plain.per_image != report.per_image).any()


def _slow(scores, truth, names, way):
    """SCLIP's steps as its paper's users would write them: everything in memory, no loop over planes."""
    logits = F.interpolate(scores, truth.shape, mode="bilinear", align_corners=False)[0].numpy()
    exp = np.exp(way.softmax_scale * (logits - logits.max(0)))
    probs = exp / exp.sum(0)
    owners = np.array([0, 2, 3, 1])  # of green, blue, red, white in GROUND, whose background is 1
    areas = {o: (owners[probs.argmax(0)] == o).sum() for o in owners}
    foreground = sum(area for o, area in areas.items() if o != 1)
    for k, o in enumerate(owners):
        if o != 1 and areas[o] <= way.least_area * foreground:
            probs[k] = 0
    found = owners[probs.argmax(0)]
    found[probs.max(0) < way.background] = 1
    counts = {}
    for index, name in enumerate(GROUND.names):
        p, t = (found == index) & (truth >= 0), truth == index
        counts[name] = ((p & t).sum(), p.sum(), t.sum())
    return counts


def test_what_is_given_next_to_a_protocol_goes_first():
    given = {"window": Window(8, 64, 64), "templates": "bare", "background": -0.7, "queries": ["blue|azure"]}
    counter = segmentation_counter(Likeness(), GROUND, protocol="sclip", **(given | {"queries": ["blue|white"]}))
    assert counter.window == given["window"] and counter.thresholds == (-0.7,)
    assert counter.about["templates"] == "bare" and counter.phrases == ("green", "blue", "white", "red")
    whole = segmentation_counter(Likeness(), FOUR, protocol="sclip", queries=["red"])
    assert whole.thresholds == (None,) and whole.rule.softmax_scale == 40


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"absent": "both"}, "got absent='both', expected one of union, target"),
        ({"pamr_iterations": 3}, "got pamr_iterations=3, expected 0, 10 or None"),
        ({"background": "best"}, "got background='best', expected a number, 'auto' or None"),
        ({"templates": "two"}, "got template set 'two'"),
        ({"sets": {"voc20": {"shortside": 3}}}, "got shortside for the set 'voc20', expected keys of a protocol"),
        ({"short_side": 9, "window": 4, "stride": 8}, "a stride of at most the window's side"),
    ],
)
def test_protocols_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Protocol("toy", "test", **values)


def test_an_unknown_name_and_a_set_without_a_rule_are_told():
    with pytest.raises(ValueError, match="got protocol 'sclipp', expected one of unified, .*did you mean 'sclip'"):
        get_protocol("sclipp")
    with pytest.raises(ValueError, match="'toy' has a background class"):
        segmentation_counter(Likeness(), GROUND, protocol="ovseg")
