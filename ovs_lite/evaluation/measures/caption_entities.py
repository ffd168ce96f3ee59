"""How true captions are: their entities against the classes that the ground-truth masks of their images have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from ovs_lite.data.entities import EntityParser
from ovs_lite.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class EntityTruth:
    """Counts over images. true: classes that are named and there. named: that are named. there: that are there.
    unknown: entities that name no class, of which nothing can be said. images: how many."""

    true: int
    named: int
    there: int
    unknown: int
    images: int

    @property
    def precision(self) -> float:
        """Share of the named classes that are in the image, in [0, 1]; NaN without any."""
        return self.true / self.named if self.named else float("nan")

    @property
    def recall(self) -> float:
        """Share of the classes in the image that are named, in [0, 1]; NaN without any."""
        return self.true / self.there if self.there else float("nan")


def entity_truth(
    records: Iterable[Mapping[str, Any]],
    captions: Iterable[Sequence[str]],
    vocabulary: Vocabulary,
    parser: EntityParser,
) -> EntityTruth:
    """Compare the captions of each record with the categories of its segments; crowds count, unlabelled ones do not.

    captions: of each record in order, in place of its own. An entity names the class that its whole phrase or else its
    longest end is called by: "red fire truck" the class "fire truck", or else "truck". A class counts once per image.
    Raises ValueError for a record without segments.
    """
    total = EntityTruth(0, 0, 0, 0, 0)
    for record, some in zip(records, captions, strict=True):
        if record["segments_info"] is None:
            raise ValueError(f"record {record['image_id']!r} has no segments, expected an annotated image")
        there = {info["category_id"] for info in record["segments_info"] if info["category_id"] >= 0}
        entities = {entity for caption in some for entity in parser.parse(caption)}
        classes = [_class_of(entity, vocabulary) for entity in entities]
        named = {index for index in classes if index is not None}
        counts = (len(named & there), len(named), len(there), classes.count(None), 1)
        total = EntityTruth(*map(sum, zip(astuple(total), counts, strict=True)))
    return total


def _class_of(entity: str, vocabulary: Vocabulary) -> int | None:
    words = entity.split()
    found = (vocabulary.find(" ".join(words[start:])) for start in range(len(words)))
    return next((index for index in found if index is not None), None)
