"""What captions say: their words for things and stuff.

Words of captions supervise masks in OpenSeg (Ghiasi et al., ECCV 2022, section 3.2 and Table 5), and name them in
OVSeg's mined pairs.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ovs_lite.data.caption_text import clean_caption
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


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """The singular of a noun in the plural, lower-case; words without one stay as they are."""
    if word in PLURAL_ONLY or word.endswith(("ss", "us", "is", "as")):
        return word
    return _inflect().singular_noun(word) or word


@lru_cache(maxsize=1)
def _inflect() -> Any:
    import inflect  # three seconds: not before a word is read

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
