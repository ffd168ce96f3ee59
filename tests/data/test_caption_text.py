"""Captions as text: cleaned, mirrored with their image, words dropped; and that none of it loads a tagger."""

import random
import subprocess
import sys

import pytest

from ovs_lite.data.caption_text import clean_caption, keep_words, swap_sides


def test_what_cannot_be_written_becomes_a_space():
    assert clean_caption(" a\x00cat\n\ton\ud800 a  \ufeffmat ") == "a cat on a mat"


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("left and right", "right and left"),
        ("LEFT, Right; left.", "RIGHT, Left; right."),
        ("a bright leftover on the copyright", "a bright leftover on the copyright"),
        ("nothing here", "nothing here"),
    ],
)
def test_whole_words_change_sides(caption, other):
    assert swap_sides(caption) == other and swap_sides(other) == caption


def test_words_are_kept_with_their_probability():
    rng, many = random.Random(0), [str(number) for number in range(4000)]
    kept = keep_words(many, 0.5, rng)
    assert abs(len(kept) / 4000 - 0.5) < 0.03 and kept == sorted(kept, key=int)
    assert keep_words(many, 1.0, rng) == many and keep_words(many, 0.0, rng) == keep_words([], 0.5, rng) == []
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected 0..1"):
            keep_words(many, wrong, rng)


def test_loading_pairs_and_masks_loads_neither_tagger_nor_grammar():
    """They take four seconds of one core, in every notebook and command that reads no words."""
    code = "import sys, ovs_lite.notebook, ovs_lite.segmenter; print(sorted({'nltk', 'inflect'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
