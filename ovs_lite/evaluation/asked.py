"""What an evaluation asks for: the classes that are counted, the phrases of each, and the background's thresholds."""

from collections.abc import Iterable, Sequence
from math import isfinite
from numbers import Real
from typing import Any

from ovs_lite.data.queries import called, parse_queries, phrases
from ovs_lite.data.vocabulary import Vocabulary

AUTO = "auto"  # the method's own background threshold


def counted_classes(vocabulary: Vocabulary, classes: Sequence[str] | None) -> tuple[int, ...]:
    """Ids of the C classes that are counted, in the order given; None: all.

    Raises ValueError for unknown and duplicate ones, and for none that is not the background.
    """
    counted = tuple(range(len(vocabulary)) if classes is None else map(vocabulary.index, classes))
    if len(set(counted)) < len(counted) or not set(counted) - {vocabulary.background}:
        raise ValueError(f"got classes {classes!r}, expected each once, and at least one that is not the background")
    return counted


def asked_phrases(
    vocabulary: Vocabulary, queries: str | Sequence[str] | None = None, competing: Sequence[int] | None = None
) -> tuple[list[str], list[int]]:
    """P phrases, and the class id of each: what the queries say of a class, else its name.

    competing: class ids, default all but the background. Raises ValueError as `segmentation_counter`.
    """
    if competing is None:
        competing = [index for index in range(len(vocabulary)) if index != vocabulary.background]
    given: dict[int, list[str]] = {}
    for query in () if queries is None else parse_queries(queries):
        index = vocabulary.index(called(query))
        if index not in competing or index in given:
            name = vocabulary.names[index]
            raise ValueError(f"got the query {query!r}, expected at most one of each class that competes; see {name!r}")
        given[index] = phrases([query])[0]
    rows = [(word, index) for index in competing for word in given.get(index, [vocabulary.names[index]])]
    words = [word for word, _ in rows]
    if queries is not None:
        parse_queries(words)  # a phrase of two classes
    return words, [index for _, index in rows]


def background_phrases(vocabulary: Vocabulary, words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words that stand for the background, without those that are asked for already.

    A word that names a class of the vocabulary belongs to that class ("bed" is furniture in one data set and background
    in another). others: phrases of the classes.
    """
    known = {phrase.lower() for phrase in others}
    free = dict.fromkeys(word for word in words if vocabulary.find(word) in (None, vocabulary.background))
    return [word for word in free if word.lower() not in known]


def background_thresholds(background: Any, name: str, counted: bool, asked: bool = False) -> tuple[float | None, ...]:
    """What a pixel's best score is compared with, one after the other; (None,) where nothing is.

    background: a number or several. name: of the vocabulary. counted: whether a background is. asked: whether it has
    phrases of its own, so that it needs no threshold.
    Raises ValueError for a threshold that is missing, unasked for or no number.
    """
    if background is None and (asked or not counted):
        return (None,)
    if not counted:
        raise ValueError(f"got background={background!r}, but no class of {name!r} that is counted is a background")
    numbers = list(background) if isinstance(background, Iterable) else [background]
    if not numbers or not all(isinstance(n, Real) and not isinstance(n, bool) and isfinite(n) for n in numbers):
        raise ValueError(
            f"got background={background!r}, but {name!r} has a background class; expected the score below which a "
            "pixel belongs to it (or several, to compare), such as 0.4 for TCL's refined masks"
        )
    return tuple(dict.fromkeys(map(float, numbers)))
