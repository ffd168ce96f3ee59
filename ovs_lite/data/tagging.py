"""Parts of speech of a caption's words: NLTK's averaged perceptron with its own weights, or with those that we ship.

The shipped weights need no download: `data_scripts/train_tagger.py` makes them from captions that NLTK's weights
tagged. Tags are those of the Penn Treebank: NN.. for nouns, JJ.. for adjectives, VB.. for verbs.
"""

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nltk
from nltk.data import PathPointer
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize import NLTKWordTokenizer

SHIPPED_WEIGHTS = Path(__file__).parent / "tagger" / "captions.json.gz"
NLTK_DATA = "averaged_perceptron_tagger_eng"
TAGGERS = ("auto", "shipped", "nltk")
GET_DATA = f"python -m nltk.downloader {NLTK_DATA}, or unpack it under taggers/ in a folder of nltk.data.path"
TOKENIZER = NLTKWordTokenizer()
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Tagger:
    """name: which weights, for logs and artefacts: "shipped", or "nltk" with its version."""

    name: str
    perceptron: PerceptronTagger

    def tag(self, text: str) -> list[tuple[str, str]]:
        """(word, tag) of every token of a text, in order."""
        return [(word, tag) for word, tag in self.perceptron.tag(tokens(text))]


def tokens(text: str) -> list[str]:
    """Words, numbers and signs in order, as the Penn Treebank parts them ("dog's" is "dog", "'s")."""
    sentences = SENTENCE_END.split(text.replace("/", " / ").replace("’", "'"))
    return [token for sentence in sentences for token in TOKENIZER.tokenize(sentence)]


@lru_cache(maxsize=4)
def load_tagger(which: str = "auto", nltk_data: str = "") -> Tagger:
    """A tagger; "auto" takes NLTK's weights where they are found, else the shipped ones.

    nltk_data: a folder to look in before those of `nltk.data.path`. Raises ValueError for another name and for damaged
    weights, FileNotFoundError where "nltk" is asked for and its weights are missing.
    """
    if which not in TAGGERS:
        raise ValueError(f"got tagger {which!r}, expected one of {', '.join(TAGGERS)}")
    if which == "shipped":
        return Tagger("shipped", trained(json.loads(gzip.decompress(SHIPPED_WEIGHTS.read_bytes()))))
    try:
        own = Path(nltk_data) / "taggers" / NLTK_DATA
        folder = own if nltk_data and own.is_dir() else nltk.data.find(f"taggers/{NLTK_DATA}")
        parameters = [
            json.loads(_read(folder, f"{NLTK_DATA}.{part}.json")) for part in ("weights", "tagdict", "classes")
        ]
        return Tagger(f"nltk {nltk.__version__}", trained(parameters))
    except LookupError:
        if which == "nltk":
            place = nltk_data or "the folders of nltk.data.path"
            raise FileNotFoundError(f"no {NLTK_DATA} in {place}; get it by {GET_DATA}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{NLTK_DATA} is damaged ({error}); get it again by {GET_DATA}") from error
    return load_tagger("shipped")


def _read(folder: Path | PathPointer, name: str) -> bytes:
    if isinstance(folder, Path):
        return (folder / name).read_bytes()
    with folder.join(name).open() as stream:  # inside a zip file, too
        return stream.read()


def trained(parameters: Sequence) -> PerceptronTagger:
    """A tagger from its weights {feature: {tag: weight}}, the dictionary of plain words and the list of tags."""
    tagger = PerceptronTagger(load=False)
    tagger.decode_json_params(parameters)
    return tagger
