"""Agreement of two taggers on extracted words, by hand."""

import math

import pytest

from benchmarks.word_agreement import word_agreement
from ovs_lite.data.tagging import load_tagger


class Knows:
    """A tagger that takes these words for nouns."""

    def __init__(self, *nouns):
        self.nouns = nouns

    def tag(self, text):
        return [(word, "NN" if word in self.nouns else "IN") for word in text.split()]


def test_words_are_compared_caption_by_caption():
    captions = ["dog cat tree", "tree dog", "and so"]
    found = word_agreement(captions, Knows("dog", "cat"), Knows("dog", "tree"))
    assert (found.expected, found.found, found.both, found.captions) == (3, 4, 2, 3)
    assert (found.precision, found.recall, found.f1) == (
        pytest.approx(1 / 2),
        pytest.approx(2 / 3),
        pytest.approx(4 / 7),
    )
    assert word_agreement(captions, Knows("dog"), Knows("dog")).f1 == 1


def test_nothing_agrees_with_nothing():
    for captions in ([], ["of the"]):
        found = word_agreement(captions, load_tagger("shipped"), load_tagger("shipped"))
        assert math.isnan(found.precision) and math.isnan(found.recall) and math.isnan(found.f1)
