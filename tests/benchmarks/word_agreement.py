"""How well two taggers agree on what matters here: the words that are extracted from captions."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from ovs_lite.data.captions import extract_words
from ovs_lite.data.tagging import Tagger


@dataclass(frozen=True)
class WordAgreement:
    """Counts over captions. found: words of the tagger that is judged. expected: of the reference. both: in common."""

    found: int
    expected: int
    both: int
    captions: int

    @property
    def precision(self) -> float:
        """Share of the found words that the reference has, in the same caption; NaN without any."""
        return self.both / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        """Share of the reference's words that were found."""
        return self.both / self.expected if self.expected else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both; NaN where neither has a word."""
        return 2 * self.both / (self.found + self.expected) if self.found + self.expected else float("nan")


def word_agreement(
    captions: Iterable[str], reference: Tagger, tagger: Tagger, keep: Sequence[str] = ("noun", "adj")
) -> WordAgreement:
    """Compare the sets of words that two taggers extract from each caption. keep: see `extract_words`."""
    total = WordAgreement(0, 0, 0, 0)
    for caption in captions:
        theirs, ours = (set(extract_words(caption, keep, tagger=each)) for each in (reference, tagger))
        counts = (len(ours), len(theirs), len(ours & theirs), 1)
        total = WordAgreement(*map(sum, zip(astuple(total), counts, strict=True)))
    return total
