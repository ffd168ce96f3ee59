"""Captions made truer to their images before they supervise anything.

Uni-OVSeg (Wang et al., 2024), section 3.3: captions of the web say in part what is not in their images, so a
large vision-language model writes them again. Here that model is optional (`ovs_lite.methods.lvlm`); the default works
offline: a CLIP judges the entities that the captions name, leaves out those that it does not see and adds nouns that it
does. Notebook 06 measures what that does to captions of which a share was swapped, and to an adapter that learns from
them. A strict `least` keeps only what that CLIP sees already, from which there is little to learn.
B images, K nouns of a vocabulary, D joint embedding.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image

from ovs_lite.clip import Clip
from ovs_lite.config import check_least
from ovs_lite.data.entities import EntityParser
from ovs_lite.data.images import read_image
from ovs_lite.data.parts import Share, write_in_parts
from ovs_lite.data.record import first, iter_encoded, load_split, read_creator
from ovs_lite.regions.classifiers import DENSE_SCALE

AT_ONCE = 16  # images


class CaptionRefiner(Protocol):
    """Who writes captions again. name: all that decides what it writes."""

    name: str

    def refine(self, images: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[str]]:
        """B RGB images, the captions of each -> the refined captions of each, perhaps none."""
        ...


@dataclass(frozen=True)
class NounConfig:
    """What `NounRefiner` keeps and adds; scores are standard deviations above the mean of the vocabulary's nouns.

    The defaults were chosen in the miniature: `sure` on `icon-coco`'s training split, `least` by the adapter.
    Raises ValueError for what cannot be.
    """

    least: float = 0.0  # score of an entity of the captions at the least
    sure: float = 2.5  # score from which a noun of the vocabulary is added
    most: int = 3  # nouns that are added to an image
    often: int = 3  # times that the captions of a data set say a noun of the vocabulary, at the least
    vocabulary: int = 1000  # nouns at the most, the commonest
    templates: str = "vild14"  # sentences that a noun is put into

    def __post_init__(self):
        check_least(self, 0, "most")
        check_least(self, 1, "often")
        check_least(self, 2, "vocabulary")


class NounRefiner:
    """Keeps and adds nouns by their similarity with the image. Needs nothing but a CLIP.

    The score of a noun is the mean of two: its cosine with the whole image, and its best cosine with a place of CLIP's
    dense map at twice CLIP's side, where small things are seen; each in standard deviations above the mean that the K
    nouns of the vocabulary have with the same image. Of one image's captions one is made, "a photo of a red fire truck,
    a dog and a car": what is kept, in the order of the captions, then what is added, the best first; no caption where
    nothing is left.
    parser: finds the captions' entities. nouns: the vocabulary, K >= 2, such as `frequent_nouns` of a data set's
    captions. Raises ValueError for fewer.
    """

    def __init__(self, clip: Clip, parser: EntityParser, nouns: Sequence[str], config: NounConfig | None = None):
        if len(set(nouns)) < 2:
            raise ValueError(f"got a vocabulary of {len(set(nouns))} nouns, expected 2 or more to compare with")
        self.clip, self.parser, self.config = clip, parser, config or NounConfig()
        self.nouns = list(dict.fromkeys(nouns))
        towers = f"{clip.fingerprint()}-{clip.image_fingerprint()}"
        words = f"{len(self.nouns)} nouns " + hashlib.sha256("\n".join(self.nouns).encode()).hexdigest()[:16]
        self.name = f"nouns by {clip.name} {towers}, {parser.name}, {words}, {asdict(self.config)}"

    @torch.no_grad()
    def refine(self, images: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[str]]:
        """See `CaptionRefiner.refine`."""
        entities = [entities_of(some, self.parser) for some in captions]
        whole, places = self._seen(images)
        known = self._scores(whole, places, self.nouns)
        said = sorted({entity for some in entities for entity in some})
        theirs = self._scores(whole, places, said).tolist() if said else [[]] * len(images)
        found = []
        for row, some in enumerate(entities):
            scores = dict(zip(said, theirs[row], strict=True))
            kept = [entity for entity in some if scores[entity] >= self.config.least]
            caption = sentence_of(kept + self._added(known[row], kept))
            found.append([caption] if caption else [])
        return found

    def _added(self, scores: torch.Tensor, kept: Sequence[str]) -> list[str]:
        """Nouns of the vocabulary that are surely there and that no kept entity is about."""
        order = scores.argsort(descending=True, stable=True).tolist()
        sure = [self.nouns[k] for k in order if scores[k] >= self.config.sure]
        return [noun for noun in sure if not any(f" {one}".endswith(f" {noun}") for one in kept)][: self.config.most]

    def _seen(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, D) of whole images and (B, D, h w) of places, L2-normalised."""
        large = self.clip.preprocess(list(images), DENSE_SCALE * self.clip.image_size)
        places = F.normalize(self.clip.dense(large).float().flatten(2), dim=1)
        return self.clip.encode_image(self.clip.preprocess(list(images))).float(), places

    def _scores(self, whole: torch.Tensor, places: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        """(B, names), compared with the vocabulary."""
        texts = self.clip.text_embeddings([*self.nouns, *names], self.config.templates)
        total = torch.zeros(len(whole), len(names), device=whole.device)
        for cosines in (whole @ texts.T, torch.einsum("td,bdp->btp", texts, places).amax(2)):
            known, asked = cosines.split([len(self.nouns), len(names)], 1)
            spread = known.std(1, keepdim=True).clamp(min=1e-6)
            total += (asked - known.mean(1, keepdim=True)) / spread / 2
        return total


def entities_of(captions: Iterable[str], parser: EntityParser) -> list[str]:
    """The entities of all captions of an image, in order, each once."""
    return list(dict.fromkeys(entity for caption in captions for entity in parser.parse(caption)))


def sentence_of(entities: Sequence[str]) -> str:
    """["red truck", "dog"] -> "a photo of a red truck and a dog"; "" of none."""
    parts = [f"{'an' if one[0] in 'aeiou' else 'a'} {one}" for one in entities if one]
    listed = parts if len(parts) < 2 else [", ".join(parts[:-1]), parts[-1]]
    return f"a photo of {' and '.join(listed)}" if parts else ""


def frequent_nouns(captions: Iterable[Sequence[str]], parser: EntityParser, config: NounConfig) -> list[str]:
    """The nouns that the captions of a data set say at least `config.often` times, the commonest first."""
    counts = Counter(entity for some in captions for caption in some for entity in parser.parse(caption))
    return [noun for noun, times in counts.most_common(config.vocabulary) if times >= config.often]


def write_refined(
    source: str | Path, folder: str | Path, refiner: CaptionRefiner, limit: int | None = None, progress: bool = True,
    share: Share | None = None,
) -> bool:  # fmt: skip
    """Write a prepared split with refined captions and all else as it was to `folder`. Returns whether it is complete.

    limit: the first images only. Several processes, share, stops and what is raised: see `write_in_parts`; and
    ValueError for a split of mined pairs.
    """
    split = load_split(source)
    if "pair" in split.column_names:
        raise ValueError(f"{source}: got mined pairs of a region and a noun, expected images with captions")
    split = first(split, limit)
    creator = {"refiner": refiner.name, "limit": limit, "source": read_creator(source)}

    def refined(numbers: range) -> Iterator[dict[str, Any]]:
        for start in range(numbers.start, numbers.stop, AT_ONCE):
            records = list(iter_encoded(split.select(range(start, min(start + AT_ONCE, numbers.stop)))))
            images = [read_image(record["image"]) for record in records]
            captions = refiner.refine(images, [record["captions"] for record in records])
            yield from (record | {"captions": some} for record, some in zip(records, captions, strict=True))

    columns = "masks" if "masks" in split.column_names else "segments"
    return write_in_parts(folder, refined, len(split), creator, columns, progress, "refined captions", share)
