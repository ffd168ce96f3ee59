"""Scores that are made when they are first read are those that would have been there, and are made once."""

import copy
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from kit.clips import random_clip
from kit.images import noise
from ovs_lite import segmenter
from ovs_lite.methods import get_method
from ovs_lite.viz.segmentation import Segmentation

CALLS = []


def scores(value: float) -> np.ndarray:
    CALLS.append(value)
    return np.full((2, 3, 4), value, np.float32)


@pytest.fixture
def late():
    CALLS.clear()
    labels = np.zeros((3, 4), np.int64)
    return Segmentation.with_late_logits(labels, partial(scores, 0.5), ["cat", "dog"], Image.new("RGB", (4, 3)))


def test_they_are_made_once_and_when_they_are_read(late):
    assert late.labels.shape == (3, 4) and "cat" in repr(late) and late.overlay() and CALLS == []
    first = late.logits
    assert (first == 0.5).all() and late.logits is first and CALLS == [0.5]
    assert "_make_logits" not in vars(late), "what made them is let go"


def test_copies_and_changed_results_have_them_too(late):
    for other in (copy.copy(late), pickle.loads(pickle.dumps(late)), replace(late, queries=["cow", "hen"])):
        assert (other.logits == 0.5).all() and other.logits.shape == (2, 3, 4)


def test_what_is_not_there_is_no_logits(late):
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        late.scores  # noqa: B018
    del late.__dict__["_make_logits"]
    with pytest.raises(AttributeError, match="no attribute 'logits'"):
        late.logits  # noqa: B018


def test_scores_that_cannot_be_made_are_asked_for_again(late):
    late.__dict__["_make_logits"] = failing = partial(int, "no number")
    for _ in range(2):
        with pytest.raises(ValueError):
            late.logits  # noqa: B018
    assert late.__dict__["_make_logits"] is failing


@pytest.mark.parametrize("queries", [["cat", "grass", "sky"], ["cat|kitten|pet", "grass", "sky|air"]])
def test_scores_of_many_words_wait_until_they_are_read(monkeypatch, tmp_path, queries):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path))
    encoded = segmenter.Segmenter(get_method("maskclip", random_clip())).encode(noise(48, 72))
    at_once = encoded.segment(queries, background=0.01)
    monkeypatch.setattr(segmenter, "ENLARGED_AT_ONCE", 0)
    waiting = encoded.segment(queries, background=0.01)
    assert "logits" not in vars(waiting)
    np.testing.assert_array_equal(waiting.labels, at_once.labels)
    np.testing.assert_array_equal(waiting.logits, at_once.logits)
    assert waiting.logits.shape == (3, 48, 72) and waiting.logits.flags.c_contiguous
