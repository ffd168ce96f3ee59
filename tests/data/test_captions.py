"""Words of captions: which are found, how they are written, what odd captions give."""

import json
import os
from pathlib import Path

import pytest

from kit.real_data import found
from ovs_lite.data.captions import extract_words, singular
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import load_vocabulary

SHIPPED = load_tagger("shipped")


def words(caption, *given, **more):
    return extract_words(caption, *given, tagger=SHIPPED, **more)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A brown dog sits on the green grass.", "brown dog green grass"),
        ("Two dogs and a dog beside three WOMEN", "dog woman"),
        ("A photo of a man's hat in the background", "man hat"),
        ("A person with glasses holds scissors on a bus", "person glasses scissors bus"),
        ("Some people ride black/white horses. Trees stand behind", "person black horse tree"),
    ],
)
def test_nouns_and_adjectives_in_order_each_once(caption, expected):
    assert [word for word in words(caption) if word != "white"] == expected.split()


def test_kinds_of_words():
    caption = "A brown dog is sitting on the grass"
    assert words(caption, "noun") == ["dog", "grass"]
    assert words(caption, ("noun", "adj", "verb")) == ["brown", "dog", "is", "sitting", "grass"]
    assert words(caption, "all") == ["brown", "dog", "is", "sitting", "on", "the", "grass"]
    assert words(caption, ("verb",), stop=("is",)) == ["sitting"]
    assert words("a photo of a dog", stop=()) == ["photo", "dog"]


def test_compounds_stay_together_the_longest_first():
    names = ["fire hydrant", "teddy bear", "teddy", "polar bear", "red fire hydrant"]
    assert words("Two teddy bears by a red fire hydrant", compounds=names) == ["teddy bear", "red fire hydrant"]
    assert words("Two teddy bears", compounds=load_vocabulary("coco").names) == ["teddy bear"]
    assert words("a fire near a hydrant", compounds=names) == ["fire", "hydrant"]


@pytest.mark.parametrize("caption", ["", "   ", "!?", "猫 と 木", "12 34", "кошка", "x" * 10_240, "\x00\ufeff"])
def test_captions_without_a_word_have_none(caption):
    assert words(caption) == []


def test_long_captions_are_read_to_their_end():
    assert words("a dog on grass, " * 1000 + "a red cat") == ["dog", "grass", "red", "cat"]


@pytest.mark.parametrize("wrong", ["nouns", ("noun", "adverb"), ()])
def test_other_kinds_are_refused(wrong):
    with pytest.raises(ValueError, match="got keep=.*expected some of noun, adj, verb"):
        words("a dog", wrong)


@pytest.mark.parametrize("wrong", [None, 3, ["a dog"], b"a dog"])
def test_captions_that_are_no_text_are_refused(wrong):
    with pytest.raises(ValueError, match="got a caption of type .*, expected text"):
        words(wrong)


@pytest.mark.parametrize(
    "pair",
    "dogs dog,benches bench,men man,knives knife,geese goose,bus bus,canvas canvas,sheep sheep,jeans jeans".split(","),
)
def test_singular(pair):
    plural, one = pair.split()
    assert singular(plural) == one


def captions_of_val2017(root):
    """COCO's captions that `data_scripts/train_tagger.py` learned from in part, with or without their images."""
    return sorted(Path(root).glob("*/captions_val2017*.json"))


@pytest.mark.real
def test_the_shipped_tagger_finds_the_words_that_nltks_finds():
    """On captions of images that `data_scripts/train_tagger.py` did not learn from: F1 of sets of nouns, adjectives."""
    (path,) = found(captions_of_val2017, "captions_val2017.json or a part of it")[:1]
    try:
        nltks = load_tagger("nltk", os.path.join(os.environ["OVS_REAL_DATA"], "nltk_data"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    rows = json.loads(path.read_text())["annotations"]
    images = sorted({row["image_id"] for row in rows})
    others = set(images[round(0.6 * len(images)) :])
    both = mine = theirs = 0
    for row in rows:
        if row["image_id"] in others:
            a, b = set(words(row["caption"])), set(extract_words(row["caption"], tagger=nltks))
            both, mine, theirs = both + len(a & b), mine + len(a), theirs + len(b)
    assert mine > 1000 and 2 * both / (mine + theirs) > 0.95
