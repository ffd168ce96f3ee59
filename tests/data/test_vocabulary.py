"""Vocabularies: the shipped ones are those of their data sets, and a file that lies does not load."""

import copy
import csv
import json

import pytest

from kit.real_data import found
from ovs_lite.data.readers.real_data import find_ade20k, find_coco
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
    ],
)
def test_faults_are_named(path, value, message):
    with pytest.raises(ValueError, match=message):
        parse_vocabulary(changed(path, value))


@pytest.mark.parametrize("key", list(GOOD))
def test_missing_keys_are_named(key):
    with pytest.raises(ValueError, match=f"without {key}"):
        parse_vocabulary({k: v for k, v in GOOD.items() if k != key})


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
