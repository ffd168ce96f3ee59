"""Entities of captions against the classes of an image's masks, counted by hand."""

import math

import pytest

from kit.records import scene, toy, without_annotation
from ovs_lite.data.entities import NounParser
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.measures.caption_entities import EntityTruth, entity_truth

VOCABULARY = load_vocabulary("icon-coco")


class Words:
    """An entity between every two semicolons."""

    name = "words"

    def parse(self, caption):
        return caption.split(";")


def record(*names, crowds=()):
    """A scene of three segments of these classes; the third is unlabelled."""
    categories = dict(enumerate([*map(VOCABULARY.index, names), -1], 1))
    return toy("r", scene(), categories, crowds)


def test_counts_are_those_of_the_images():
    records = [record("cat", "bus"), record("cat", "cat"), record("bus", "cat", crowds=(1,))]
    captions = [["cat;green bus", "cat;zebrafish"], ["bus"], []]
    truth = entity_truth(records, captions, VOCABULARY, Words())
    assert truth == EntityTruth(true=2, named=3, there=2 + 1 + 2, unknown=1, images=3)
    assert (truth.precision, truth.recall) == (2 / 3, 2 / 5)


def test_a_phrase_names_the_class_of_its_longest_end():
    compound = next(name for name in VOCABULARY.names if " " in name)
    [first] = [record(compound, "cat")]
    assert entity_truth([first], [[f"red {compound}"]], VOCABULARY, Words()).true == 1
    assert entity_truth([first], [["cat flap"]], VOCABULARY, Words()).unknown == 1, "a cat flap is no cat"


def test_captions_may_be_read_by_any_parser_and_none_is_no_number():
    truth = entity_truth([record("cat", "bus")], [["a cat"]], VOCABULARY, NounParser())
    assert (truth.true, truth.named, truth.there) == (1, 1, 2)
    nothing = entity_truth([], [], VOCABULARY, Words())
    assert math.isnan(nothing.precision) and math.isnan(nothing.recall)


def test_an_image_without_segments_is_refused():
    with pytest.raises(ValueError, match="record 'bare' has no segments"):
        entity_truth([without_annotation()], [[]], VOCABULARY, Words())
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        entity_truth([record("cat", "bus")], [], VOCABULARY, Words())
