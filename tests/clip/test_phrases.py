"""Phrases that a text tower does not read to their end, or cannot tell apart."""

import warnings
from functools import cache

import open_clip
import pytest

from ovs_lite.clip.phrases import check_phrases
from ovs_lite.data.templates import TEMPLATES, fill

WORDS = "the small brown dog with a red collar on the green grass next to the old white wooden fence behind a house"


@cache
def tokenizer_of(context):
    return open_clip.SimpleTokenizer(context_length=context)


def check(names, templates="vild14", context=32):
    check_phrases(tokenizer_of(context), names, TEMPLATES[templates], "toy")


@pytest.mark.parametrize("templates", TEMPLATES)
@pytest.mark.parametrize("context", [16, 24, 77])
def test_exactly_the_phrases_whose_sentences_are_truncated_are_named(templates, context):
    tokenizer, read = tokenizer_of(context), 0
    for count in range(1, len(WORDS.split()) + 1):
        name = " ".join(WORDS.split()[:count])
        lengths = [len(tokenizer.encode(fill(pattern, name))) + 2 for pattern in TEMPLATES[templates]]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check([name, "cat"], templates, context)
        if max(lengths) > context:
            expected = f"got '{name}' ({max(lengths)} tokens), sentence included; toy reads {context} tokens"
            assert str(caught[0].message).startswith(expected)
        read += max(lengths) <= context
        assert len(caught) == (max(lengths) > context)
    assert read == count if context == 77 or (context, templates) == (24, "bare") else 0 < read < count


def test_phrases_that_differ_beyond_the_context_are_refused_and_others_are_not():
    with pytest.raises(ValueError, match=f"'{WORDS} x' and '{WORDS} y', which are equal as toy reads 24 tokens of"):
        check([f"{WORDS} x", "cat", f"{WORDS} y"], context=24)
    with pytest.warns(UserWarning, match="tokens"):
        check([f"x {WORDS} again", f"y {WORDS} again"], context=24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check([f"{WORDS} x", f"{WORDS} y"], context=77)


def test_spellings_that_the_tokenizer_makes_equal_are_refused():
    for pair in (["R&B", "R&amp;B"], ["caf\u00e9", "cafe\u0301"], ["fish", "\ufb01sh"]):
        with pytest.raises(ValueError, match="which are equal as toy reads them"):
            check(["cat", *pair])
    check(["cat", "Cat", "cat"])  # letter case is no difference to anybody


def test_many_long_phrases_are_counted_and_very_long_ones_shortened():
    with pytest.warns(UserWarning, match=r"got 'x0 .* and 4 more, sentence included") as caught:
        check([f"x{number} {WORDS} {WORDS * 100}" for number in range(7)])
    assert len(caught) == 1 and len(str(caught[0].message)) < 1200


@pytest.mark.parametrize("wrong", ["cat", None, 3, ["cat", 3], {"cat": 1}])
def test_names_are_a_list_of_text(wrong):
    with pytest.raises(ValueError, match="got names .*, expected a list of text"):
        check(wrong)
