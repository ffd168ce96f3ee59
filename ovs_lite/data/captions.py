"""What captions say: their words for things and stuff, and how they are made fit to be read.

Words of captions supervise masks in OpenSeg (Ghiasi et al., ECCV 2022, section 3.2 and Table 5), and name them in
OVSeg's mined pairs.
"""

import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import inflect
import numpy as np

from ovs_lite.data.tagging import Tagger, load_tagger

KINDS = {"noun": "NN", "adj": "JJ", "verb": "VB"}  # how the tags of each begin
ALL = "all"
SHOUTED = re.compile(r"\b[A-Z]{2,}\b")  # words of capitals, which no tagger knows
LONGEST = 40  # letters of a word
# Words that name no region of an image.
NO_REGION = frozenset(
    """photo photograph picture image shot snapshot drawing painting illustration view scene background foreground front
    back side top bottom middle center centre left right edge corner end close closeup close-up distance direction way
    group bunch couple pair lot number set row line pile piece part bit type kind sort variety amount
    day time year moment thing something someone anyone nothing other another several many few more most much same
    different various own such next first second last only full empty able ready""".split()
)
PLURAL_ONLY = frozenset(
    "binoculars clothes fries glasses goggles headphones jeans pajamas pants scissors shorts stairs sunglasses trousers"
    .split()
)  # fmt: skip

SIDES = {"left": "right", "right": "left"}
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")  # controls, surrogates, byte-order marks


def clean_caption(text: str) -> str:
    """A caption of somebody's file on one line: what cannot be written becomes a space, whitespace is single."""
    return " ".join(UNWRITABLE.sub(" ", text).split())


def swap_sides(caption: str) -> str:
    """The caption of the mirrored image: the whole words "left" and "right" change places and keep their case.

    Also where they mean no side ("has left", "right now"): rare, and no parser is asked.
    """

    def other(found: re.Match) -> str:
        word = found[0]
        side = SIDES[word.lower()]
        return side.upper() if word.isupper() else side.capitalize() if word[0].isupper() else side

    return re.sub(r"\b(?:left|right)\b", other, caption, flags=re.IGNORECASE)


def extract_words(
    caption: str,
    keep: Sequence[str] | str = ("noun", "adj"),
    compounds: Iterable[str] = (),
    tagger: Tagger | None = None,
    stop: Iterable[str] = NO_REGION,
) -> list[str]:
    """The words of a caption that may name a region: lower-case, nouns in the singular, in order, each once.

    keep: kinds of words, of noun, adj and verb (which stay as they are written), or "all" for every word.
    compounds: names of several words that stay together ("fire hydrant"), such as a vocabulary's; the longest counts.
    tagger: default `load_tagger()`, which says which it is. stop: words that are left out.
    Only words in Latin letters count, as no tagger of English knows others; a caption without any has none. Long ones
    are read to their end. Raises ValueError for another kind of word, and for a caption that is no text.
    """
    kinds = [keep] if isinstance(keep, str) else list(keep)
    unknown = [kind for kind in kinds if kind not in (*KINDS, ALL)]
    if unknown or not kinds:
        raise ValueError(f"got keep={keep!r}, expected some of {', '.join(KINDS)}, or {ALL!r}")
    wanted = ("",) if ALL in kinds else tuple(KINDS[kind] for kind in kinds)
    tagged = lemmas_and_tags(caption, tagger or load_tagger())
    lemmas = [word for word, _ in tagged]
    names, left_out, found, place = _by_first_word(compounds), frozenset(stop), {}, 0
    while place < len(lemmas):
        name = next((n for n in names.get(lemmas[place], ()) if tuple(lemmas[place : place + len(n)]) == n), ())
        if name:
            found[" ".join(name)] = True
        elif tagged[place][1].startswith(wanted) and _is_word(lemmas[place]) and lemmas[place] not in left_out:
            found[lemmas[place]] = True
        place += max(1, len(name))
    return list(found)


def lemmas_and_tags(caption: str, tagger: Tagger) -> list[tuple[str, str]]:
    """(word, tag) of every token, lower-case, nouns in the singular. Raises ValueError for what is no text."""
    if not isinstance(caption, str):
        raise ValueError(f"got a caption of type {type(caption).__name__}, expected text")
    tagged = tagger.tag(SHOUTED.sub(lambda found: found[0].lower(), clean_caption(caption)))
    return [(singular(word.lower()) if tag in ("NNS", "NNPS") else word.lower(), tag) for word, tag in tagged]


def keep_words(words: Sequence[str], probability: float, rng: random.Random | np.random.Generator) -> list[str]:
    """Each word with a probability kp, as OpenSeg keeps them (section 4.1: 0.5); perhaps none. In order.

    Raises ValueError for a probability outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"got keep probability {probability}, expected 0..1")
    return [word for word in words if rng.random() < probability]


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """The singular of a noun in the plural, lower-case; words without one stay as they are."""
    if word in PLURAL_ONLY or word.endswith(("ss", "us", "is", "as")):
        return word
    return _inflect().singular_noun(word) or word


@lru_cache(maxsize=1)
def _inflect() -> inflect.engine:
    return inflect.engine()


def _by_first_word(compounds: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    """Names of several words by their first one, longest first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name in sorted({tuple(name.lower().split()) for name in compounds}, key=len, reverse=True):
        if len(name) > 1:
            found.setdefault(name[0], []).append(name)
    return found


@lru_cache(maxsize=65536)
def _is_word(text: str) -> bool:
    """Of Latin letters, perhaps with hyphens inside; single letters are none, nor are endless ones."""
    letters = text.replace("-", "")
    latin = all(letter.isalpha() and unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return 1 < len(letters) <= LONGEST and latin and text[0] != "-" != text[-1]
