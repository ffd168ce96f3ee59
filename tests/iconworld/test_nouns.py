"""The nouns of IconWorld and the vocabularies made of them."""

import importlib.util
import json
from pathlib import Path

import pytest

from ovs_lite.data.vocabulary import FOLDER, load_vocabulary
from ovs_lite.iconworld import nouns as nouns_module
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.textures import NUM_SEEN_STUFF, STUFF_NAMES

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "make_icon_vocabularies.py"
COUNTS = {
    "icon-voc20": 20, "icon-voc21": 21, "icon-context59": 59, "icon-context60": 60, "icon-ade150": 150,
    "icon-stuff": 171, "icon-ade847": 847, "icon-odd": 59, "icon-crowd": 59,
}  # fmt: skip
SETS = (*COUNTS, "icon-object", "icon-coco")
# A vocabulary with fewer unseen than this share would make "open vocabulary" an empty word.
MIXED_SETS = tuple(name for name in SETS if name != "icon-coco")


def _classes(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["classes"]


def _script():
    spec = importlib.util.spec_from_file_location("make_icon_vocabularies", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_enough_nouns_and_sixty_seen():
    nouns = load_nouns()
    assert 350 <= len(nouns) <= 450
    assert sum(bool(noun.emoji) for noun in nouns) >= 400
    assert sum(noun.fa is not None for noun in nouns) >= 180
    assert sum(noun.seen for noun in nouns) == 60
    assert sum(noun.seen and noun.fa is not None for noun in nouns) >= 30


def test_names_are_unique_lower_case_and_never_stuff():
    nouns = load_nouns()
    names = [noun.noun for noun in nouns]
    assert len(set(names)) == len(names)
    assert not set(names) & set(STUFF_NAMES)
    for noun in nouns:
        for text in (noun.noun, noun.plural, noun.kind):
            assert text and text == " ".join(text.lower().split())
    # a plural that is another noun's singular would count things twice in a caption
    others = {noun.plural for noun in nouns if noun.plural != noun.noun}
    assert not others & set(names)


@pytest.mark.parametrize(
    "noun, plural",
    [("sheep", "sheep"), ("mouse", "mice"), ("knife", "knives"), ("bus", "buses"), ("cherry", "cherries"),
     ("tooth", "teeth"), ("scissors", "scissors"), ("jellyfish", "jellyfish"), ("person", "people")],
)  # fmt: skip
def test_irregular_plurals(noun, plural):
    assert {n.noun: n.plural for n in load_nouns()}[noun] == plural


def test_doubled_empty_and_undrawn_nouns_are_refused(tmp_path, monkeypatch):
    entry = {"noun": "cat", "plural": "cats", "emoji": ["cat"], "mdi": "cat", "fa": None, "seen": True, "made": False}
    entry["kind"] = "animal"
    monkeypatch.setattr(nouns_module, "__file__", str(tmp_path / "nouns.py"))
    for second, message in (
        ({"noun": "cat", "mdi": "dog", "emoji": ["dog"]}, "noun must be unique.*cat"),
        ({"noun": "dog", "emoji": ["dog"]}, "mdi must be unique.*cat"),
        ({"noun": "dog", "mdi": "dog"}, "emoji must be unique.*cat"),
        ({"noun": " ", "mdi": "x", "emoji": ["x"]}, "whitespace"),
        ({"noun": "dog", "mdi": None, "emoji": []}, "nothing draws dog"),
    ):
        (tmp_path / "nouns.json").write_text(json.dumps([entry, entry | second]))
        with pytest.raises(ValueError, match=message):
            load_nouns.__wrapped__()


@pytest.mark.parametrize("name, count", COUNTS.items())
def test_a_vocabulary_has_its_real_models_size(name, count):
    assert len(load_vocabulary(name)) == count


@pytest.mark.parametrize("name", SETS)
def test_vocabularies_name_what_can_be_drawn_and_say_what_was_seen(name):
    drawable = {noun.noun for noun in load_nouns()} | set(STUFF_NAMES)
    seen = {noun.noun for noun in load_nouns() if noun.seen} | set(STUFF_NAMES[:NUM_SEEN_STUFF])
    vocabulary = load_vocabulary(name)
    for index, entry in enumerate(_classes(name)):
        if index == vocabulary.background:
            assert entry["name"] == "background"
            continue
        assert (entry["name"] in drawable) == entry["drawn"]
        assert entry["seen"] == (entry["name"] in seen)
        assert entry["is_thing"] == (entry["name"] not in STUFF_NAMES)


@pytest.mark.parametrize("name", SETS)
def test_no_synonym_names_another_class(name):
    vocabulary = load_vocabulary(name)
    for index, synonyms in enumerate(vocabulary.synonyms):
        for synonym in synonyms:
            assert vocabulary.index(synonym) == index, f"{synonym!r} is not only {vocabulary.names[index]!r}"


@pytest.mark.parametrize("name", MIXED_SETS)
def test_evaluation_sets_mix_seen_and_unseen(name):
    drawn = [entry["seen"] for entry in _classes(name) if entry["drawn"] and entry["name"] != "background"]
    assert 0.1 < sum(drawn) / len(drawn) < 0.95


def test_the_real_classes_that_zero_shot_work_holds_out_are_unseen():
    unseen = {entry["name"] for entry in _classes("icon-voc20") if not entry["seen"]}
    assert unseen == {"cow", "plant", "sheep", "sofa", "train", "television"}
    unseen = {entry["name"] for entry in _classes("icon-object") if not entry["seen"]}
    assert {"cow", "suitcase", "skateboard", "carrot", "scissors"} < unseen


def test_background_is_class_zero_exactly_where_the_real_set_has_it():
    with_background = {name for name in SETS if load_vocabulary(name).background is not None}
    assert with_background == {"icon-voc21", "icon-context60", "icon-object"}
    assert all(load_vocabulary(name).background == 0 for name in with_background)
    for smaller, larger in (("icon-voc20", "icon-voc21"), ("icon-context59", "icon-context60")):
        assert load_vocabulary(larger).names[1:] == load_vocabulary(smaller).names


def test_training_set_is_all_that_is_seen_and_the_largest_set_names_everything():
    seen = [noun.noun for noun in load_nouns() if noun.seen] + list(STUFF_NAMES[:NUM_SEEN_STUFF])
    assert sorted(load_vocabulary("icon-coco").names) == sorted(seen)
    assert {noun.noun for noun in load_nouns()} | set(STUFF_NAMES) <= set(load_vocabulary("icon-ade847").names)


def test_committed_vocabularies_are_what_the_script_writes(tmp_path, monkeypatch):
    script = _script()
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    script.main()
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(SETS)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), f"{path.stem}: run {SCRIPT.name} again"


def test_the_script_refuses_unknown_doubled_and_ambiguous_names(tmp_path, monkeypatch):
    script = _script()
    assert script.parse_entries("table=dining_table|coffee_table skier~skis cat") == {
        "table": ["dining table", "coffee table"], "skier": [], "cat": []
    }  # fmt: skip
    for text in ("cat wyvern", "cat cat"):
        with pytest.raises(ValueError, match="listed before"):
            script.parse_entries(text)
    monkeypatch.setattr(script, "NEVER_DRAWN", tmp_path / "names.txt")
    script.NEVER_DRAWN.write_text("sconce,\ncoffee table")
    assert script.never_drawn({"cat": []}, 2) == ["sconce", "coffee table"]
    for taken, count in (({"lamp": ["sconce"]}, 1), ({}, 3)):
        with pytest.raises(ValueError, match="names.txt"):
            script.never_drawn(taken, count)
