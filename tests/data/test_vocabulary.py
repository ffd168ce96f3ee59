"""Vocabularies: the shipped ones are those of their data sets, and a file that lies does not load."""

import copy
import csv
import json

import pytest

from kit.real_data import find_ade20k, found
from ovs_lite.data.readers.real_data import find_coco
from ovs_lite.data.vocabulary import list_vocabularies, load_vocabulary, parse_vocabulary

GOOD = {
    "name": "tiny",
    "source": "test",
    "count": 3,
    "ignore_index": 255,
    "background": {"class": 0},
    "classes": [
        {"id": 0, "name": "background", "synonyms": [], "is_thing": False},
        {"id": 1, "name": "cat", "synonyms": ["kitty", "pet"], "is_thing": True, "seen": True, "source_id": 17},
        {"id": 2, "name": "dog", "synonyms": ["pet", "cat food"], "is_thing": True, "seen": False, "source_id": 90},
    ],
}


def changed(path, value):
    """A copy of GOOD with one value replaced."""
    content = copy.deepcopy(GOOD)
    target = content
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return content


def test_fields_and_lookup():
    vocabulary = parse_vocabulary(GOOD)
    assert vocabulary.names == ("background", "cat", "dog") and len(vocabulary) == 3
    assert vocabulary.background == 0 and vocabulary.ignore_index == 255
    assert vocabulary.seen == (None, True, False) and vocabulary.is_thing == (False, True, True)
    assert vocabulary.void == () and not vocabulary.others_are_background
    assert vocabulary.by_source_id() == {17: 1, 90: 2} and vocabulary.source_names == vocabulary.names
    assert vocabulary.index("Cat") == vocabulary.find("kitty") == 1
    assert vocabulary.find("pet") is None  # two classes claim it
    with pytest.raises(ValueError, match="did you mean 'dog'"):
        vocabulary.index("dgo")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("count",), 4, "3 classes, expected 4"),
        (("classes",), [], "classes"),
        (("classes",), {"a": 1}, "no list"),
        (("name",), "", "name"),
        (("source",), " test", "source"),
        (("ignore_index",), 2, "outside"),
        (("ignore_index",), "255", "ignore_index"),
        (("background",), 0, "background"),
        (("background",), {"class": 3}, "background"),
        (("classes", 1, "name"), "cat ", "whitespace"),
        (("classes", 1, "name"), "", "whitespace"),
        (("classes", 1, "name"), "big  cat", "whitespace"),
        (("classes", 1, "name"), "Dog", "more than once"),
        (("classes", 1, "id"), 2, "in order"),
        (("classes", 1, "id"), True, "in order"),
        (("classes", 1, "synonyms"), "kitty", "list"),
        (("classes", 1, "synonyms"), ["kitty", "kitty"], "more than once"),
        (("classes", 1, "synonyms"), [" "], "whitespace"),
        (("classes", 1, "is_thing"), 1, "true nor false"),
        (("classes", 1, "seen"), "yes", "true nor false"),
        (("classes", 1, "source_id"), 90, "more than once"),
        (("classes", 1, "source_id"), "17", "source_id"),
        (("classes", 1, "source_name"), " cat", "source_name of 'cat'"),
        (("classes", 1), {"id": 1, "name": "cat"}, "expected an object"),
        (("classes", 1), None, "expected an object"),
        (("void",), 255, "void 255, expected a list"),
        (("void",), ["255"], "expected a list of integers"),
        (("void",), [255, 255], "void number 255 more than once"),
        (("void",), [17], "void number 17 more than once"),
        (("others",), "void", 'expected "background"'),
    ],
)
def test_faults_are_named(path, value, message):
    with pytest.raises(ValueError, match=message):
        parse_vocabulary(changed(path, value))


@pytest.mark.parametrize("key", list(GOOD))
def test_missing_keys_are_named(key):
    with pytest.raises(ValueError, match=f"without {key}"):
        parse_vocabulary({k: v for k, v in GOOD.items() if k != key})


def test_others_need_a_background():
    assert parse_vocabulary(changed(("others",), "background")).others_are_background
    with pytest.raises(ValueError, match="in a file that has one"):
        parse_vocabulary(changed(("background",), None) | {"others": "background"})


def test_files_and_names(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD))
    assert load_vocabulary(path) == load_vocabulary(str(path)) == parse_vocabulary(GOOD)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"mine\.json"):
        load_vocabulary(path)
    path.write_text(json.dumps(changed(("count",), 7)))
    with pytest.raises(ValueError, match=r"mine\.json.*expected 7"):
        load_vocabulary(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        load_vocabulary(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="expected one of.*coco"):
        load_vocabulary("cocoa")


def test_every_shipped_vocabulary_loads_under_its_own_name():
    names = list_vocabularies()
    assert {"coco", "ade150"} <= set(names)
    assert [load_vocabulary(name).name for name in names] == names


def test_counts_of_the_real_sets():
    coco, ade = load_vocabulary("coco"), load_vocabulary("ade150")
    assert len(coco) == 80 and all(coco.is_thing) and coco.source_id[-1] == 90
    assert coco.names[0] == "person" and coco.names[11] == "stop sign" and coco.source_id[11] == 13
    assert len(ade) == 150 and ade.source_id == tuple(range(1, 151))
    assert sum(not thing for thing in ade.is_thing) == 35
    assert ade.names[0] == "wall" and ade.names[149] == "flag" and ade.names[136] == "traffic light"
    assert ade.find("screen") == 130 and ade.find("screen door") == 58


SETS = {  # name: classes, things, ignore_index, background, void, spot checks {class id: (name, source id)}
    "voc20": (20, 20, 255, None, (0, 255), {0: ("aeroplane", 1), 14: ("person", 15), 19: ("tvmonitor", 20)}),
    "voc21": (21, 20, 255, 0, (255,), {0: ("background", 0), 15: ("person", 15), 20: ("tvmonitor", 20)}),
    "context59": (59, 30, 255, None, (0,), {0: ("aeroplane", 1), 36: ("person", 37), 58: ("wood", 59)}),
    "context60": (60, 30, 255, 0, (), {0: ("background", 0), 37: ("person", 37), 59: ("wood", 59)}),
    "coco-stuff": (171, 80, 255, None, (255,), {0: ("person", 0), 79: ("toothbrush", 89), 80: ("banner", 91)}),
    "coco-object": (81, 80, 255, 0, (), {0: ("background", None), 1: ("person", 0), 80: ("toothbrush", 89)}),
    "cityscapes": (19, 8, 255, None, (*range(7), 9, 10, 14, 15, 16, 18, 29, 30), {0: ("road", 7), 18: ("bicycle", 33)}),
    "ade847": (847, 811, 65535, None, (), {0: ("wall", 2978), 11: ("person", 1831), 13: ("windowpane", 3055)}),
    "ade150": (150, 115, 255, None, (0,), {0: ("wall", 1), 149: ("flag", 150)}),
}


@pytest.mark.parametrize("name", SETS)
def test_the_papers_sets(name):
    vocabulary, (count, things, ignore_index, background, void, spots) = load_vocabulary(name), SETS[name]
    assert (len(vocabulary), sum(vocabulary.is_thing), vocabulary.void) == (count, things, void)
    assert (vocabulary.ignore_index, vocabulary.background) == (ignore_index, background)
    assert {index: (vocabulary.names[index], vocabulary.source_id[index]) for index in spots} == spots
    assert vocabulary.others_are_background == (name == "coco-object")
    assert [i for i, source in enumerate(vocabulary.source_id) if source is None] == [0] * (name == "coco-object")


def test_sets_that_share_their_classes_agree():
    for small, large in (("voc20", "voc21"), ("context59", "context60")):
        small, large = load_vocabulary(small), load_vocabulary(large)
        assert (small.names, small.synonyms, small.is_thing) == (
            large.names[1:],
            large.synonyms[1:],
            large.is_thing[1:],
        )
        assert small.source_id == large.source_id[1:] and not large.is_thing[0]
    coco, things, stuff = (load_vocabulary(name) for name in ("coco", "coco-object", "coco-stuff"))
    assert coco.names == things.names[1:] == stuff.names[:80]
    assert tuple(source - 1 for source in coco.source_id) == things.source_id[1:] == stuff.source_id[:80]
    assert set(load_vocabulary("voc20").names) - set(load_vocabulary("context59").names) == {"diningtable"}
    panoptic = load_vocabulary("coco-panoptic")
    kept = [i for i, source in enumerate(panoptic.source_id) if 90 < source < 183 and panoptic.names[i] != "sky"]
    assert {stuff.find(panoptic.names[i]) for i in kept} == {
        stuff.by_source_id()[panoptic.source_id[i] - 1] for i in kept
    }


def test_names_that_others_ask_for_are_synonyms():
    """method-facts: MaskCLIP and GroupViT rename classes, which alone moves figures."""
    voc, stuff, full = (load_vocabulary(name) for name in ("voc20", "coco-stuff", "ade847"))
    assert [voc.names[voc.index(w)] for w in ("airplane", "potted plant")] == ["aeroplane", "pottedplant"]
    assert voc.index("table") == voc.index("dining table") == voc.names.index("diningtable")
    assert stuff.find("wood floor") == stuff.names.index("floor-wood") and stuff.find("sky") is not None
    assert (
        full.source_names[full.index("flowerpot")] == "pot, flowerpot" and full.source_names[full.index("pot")] == "pot"
    )
    assert full.find("silver screen") != full.find("screen") is not None
    parts = [tuple(word.strip() for word in name.split(",")) for name in full.source_names]
    assert [sorted(part) for part in parts] == [sorted((n, *s)) for n, s in zip(full.names, full.synonyms, strict=True)]


def test_a_set_that_is_not_shipped_says_where_its_names_are():
    with pytest.raises(ValueError, match=r"'context459' is not shipped: .*make_context459.py LABELS.txt"):
        load_vocabulary("context459")


def test_panoptic_names_follow_those_of_cocos_json():
    """The things first, as in "coco"; the stuff under the JSON's names, and under plain words for a text encoder."""
    panoptic, coco = load_vocabulary("coco-panoptic"), load_vocabulary("coco")
    assert len(panoptic) == 133 and sum(panoptic.is_thing) == 80
    assert panoptic.names[:80] == panoptic.source_names[:80] == coco.names and panoptic.source_id[:80] == coco.source_id
    pairs = dict(zip(panoptic.source_id, zip(panoptic.source_names, panoptic.names, strict=True), strict=True))
    assert pairs[92] == ("banner", "banner") and pairs[200] == ("rug-merged", "rug")
    assert pairs[118] == ("floor-wood", "wood floor") and pairs[190] == ("floor-other-merged", "floor")
    assert pairs[112] == ("door-stuff", "door") and pairs[145] == ("playingfield", "playing field")
    assert not any("-" in name for name in panoptic.names) and coco.source_names == coco.names


@pytest.mark.real
def test_coco_names_are_those_of_the_annotation_file():
    for split in found(find_coco, "COCO 2017"):
        for path, name in ((split.instances, "coco"), (split.panoptic, "coco-panoptic")):
            if path is not None:
                vocabulary, categories = load_vocabulary(name), json.loads(path.read_text())["categories"]
                expected = dict(zip(vocabulary.source_id, vocabulary.source_names, strict=True))
                assert {c["id"]: c["name"] for c in categories} == expected


@pytest.mark.real
def test_ade_words_are_those_of_the_class_table():
    """The table writes "traffic;light;traffic;signal": spaces became semicolons. Its words in order must be ours."""
    ade = load_vocabulary("ade150")
    tables = [images.parent / "objectInfo150.csv" for images, _ in found(find_ade20k, "ADE20K's 150-class release")]
    table = next((path for path in tables if path.exists()), None) or pytest.skip("no objectInfo150.csv there")
    with open(table, encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 150
    for index, row in enumerate(rows):
        words = [word for name in (ade.names[index], *ade.synonyms[index]) for word in name.split()]
        assert words == row["Name"].split(";") and ade.is_thing[index] == (row["Stuff"] == "0")
