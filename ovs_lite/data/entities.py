"""Entities of captions: the phrases that may name a region, as "red fire truck", behind one small interface.

Uni-OVSeg (Wang et al., 2024), section 3.3 and Table 3, "Parser": NLTK's nouns against what ChatGPT finds. Here: nouns,
chunks of adjectives and nouns, both by the kit's tagger and offline, or any chat model behind a URL
(`ovs_lite.data.chat_entities`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ovs_lite.data.captions import NO_REGION, extract_words, lemmas_and_tags
from ovs_lite.data.tagging import Tagger, load_tagger

PARSERS = ("nouns", "chunks", "chat")


class EntityParser(Protocol):
    """Who finds the entities of a caption. name: for logs, and for what decides a job's answer."""

    name: str

    def parse(self, caption: str) -> list[str]:
        """The entities of a caption, lower-case, in order, each once; perhaps none. Raises ValueError for no text."""
        ...


@dataclass(frozen=True)
class NounParser:
    """The nouns of a caption, see `extract_words`: the paper's row "NLTK". compounds, tagger: as there."""

    compounds: tuple[str, ...] = ()
    tagger: Tagger | None = None

    @property
    def name(self) -> str:
        """Kind and tagger."""
        return f"nouns by {_tagger(self).name}"

    def parse(self, caption: str) -> list[str]:
        """See `EntityParser.parse`."""
        return extract_words(caption, ("noun",), self.compounds, self.tagger)


@dataclass(frozen=True)
class ChunkParser:
    """Noun phrases: a run of nouns and the adjectives right before it, "a small red fire truck" -> "small red fire
    truck", the last noun in the singular.

    A phrase whose last noun names no region ("sunny picture") is left out whole, adjectives that name none ("left",
    "several") alone. tagger: default `load_tagger()`. stop: words that name no region.
    """

    tagger: Tagger | None = None
    stop: frozenset[str] = NO_REGION

    @property
    def name(self) -> str:
        """Kind and tagger."""
        return f"chunks by {_tagger(self).name}"

    def parse(self, caption: str) -> list[str]:
        """See `EntityParser.parse`."""
        found: dict[str, bool] = {}
        adjectives: list[str] = []
        nouns: list[str] = []
        for word, tag in [*lemmas_and_tags(caption, _tagger(self)), ("", "END")]:
            if nouns and not tag.startswith("NN"):
                if nouns[-1] not in self.stop:
                    found[" ".join([*adjectives, *nouns])] = True
                adjectives, nouns = [], []
            if tag.startswith("NN"):
                nouns.append(word)
            elif not tag.startswith("JJ"):
                adjectives = []
            elif word not in self.stop:
                adjectives.append(word)
        return list(found)


def tagged_parser(kind: str, compounds: Iterable[str] = (), tagger: Tagger | None = None) -> EntityParser:
    """The parser called "nouns" or "chunks". compounds: of "nouns" alone. Raises ValueError for another name."""
    if kind == "nouns":
        return NounParser(tuple(compounds), tagger)
    if kind == "chunks":
        return ChunkParser(tagger)
    raise ValueError(f"got parser {kind!r}, expected nouns or chunks")


def _tagger(parser: NounParser | ChunkParser) -> Tagger:
    return parser.tagger or load_tagger()
