"""Pair mining: every noun of a caption finds the region of the image that CLIP thinks it means.

OVSeg (Liang et al., CVPR 2023), section 3.2. Its code was never released; the paper says: nouns of a caption by a
parser, masks by the proposal model, "for each noun the mask proposal that matches it best" by a pre-trained CLIP. Left
open there, and chosen here: words are `extract_words`' nouns, compounds of a vocabulary together; regions are compared
as masked crops; the least cosine of a pair is an option, by default none; a region may get several nouns; of a noun
that several captions say, the first one counts. N masks, K nouns, H W pixels.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovs_lite.clip import Clip
from ovs_lite.clip.crops import mask_boxes
from ovs_lite.config import check_least
from ovs_lite.data.captions import extract_words
from ovs_lite.data.images import read_image
from ovs_lite.data.parts import Share, write_in_parts
from ovs_lite.data.record import first, load_split, read_creator
from ovs_lite.data.rle import encode_rle
from ovs_lite.data.segments import record_masks
from ovs_lite.data.tagging import Tagger, load_tagger
from ovs_lite.data.vocabulary import load_vocabulary, names_of
from ovs_lite.regions.classifiers import inside, region_scores
from ovs_lite.regions.sources import ground_truth
from ovs_lite.tensors import tensors_digest

TRUTH = "truth"  # in place of a proposal model: the record's own segments


@dataclass(frozen=True)
class MiningConfig:
    """What decides which pairs are mined. Raises ValueError for values that cannot be."""

    captions: int = 1  # of an image, the first ones; the paper's Table 2 has one and five
    least: float = -1.0  # cosine of a pair at the least; -1: any
    budget: int = 100  # proposals per image, the best first
    templates: str = "vild14"  # sentences that a noun is put into
    compounds: tuple[str, ...] = ("icon-coco",)  # vocabularies whose names of several words are kept together
    tagger: str = "auto"  # parts of speech: shipped, nltk, or nltk where its data is found
    classes: str = ""  # vocabulary: then the words are the classes of the split's own segments, and no caption is read

    def __post_init__(self):
        check_least(self, 1, "captions", "budget")
        if not -1 <= self.least <= 1:
            raise ValueError(f"got least={self.least}, expected a cosine in [-1, 1]")


def mine(
    source: str | Path, folder: str | Path, clip: Clip, proposer: Any | None, config: MiningConfig | None = None,
    limit: int | None = None, progress: bool = True, share: Share | None = None,
) -> bool:  # fmt: skip
    """Mine the pairs of a prepared split into a split of `schema.COLUMNS["pairs"]`. Returns whether it is complete.

    Each record is a pair: the tight crop of the region with its background, the region's mask in it, the noun as its
    caption, and in `pair` where it comes from. proposer: a `MaskProposer`, or None for the split's own segments.
    limit: the first images only. Several processes, share, stops and what is raised: see `write_in_parts`.
    """
    config, split = config or MiningConfig(), first(load_split(source), limit)
    tagger = load_tagger(config.tagger)
    names = names_of(config.compounds)
    creator = {**asdict(config), "compounds": list(config.compounds), "tagger": tagger.name, "limit": limit}
    creator |= {"clip": f"{clip.fingerprint()}-{clip.image_fingerprint()}", "source": read_creator(source)}
    creator["masks"] = TRUTH if proposer is None else tensors_digest(proposer.recipe, proposer.state_dict().values())

    def mined(numbers: range) -> Iterator[dict[str, Any]]:
        for record in split.select(numbers):
            if config.classes:
                yield from labelled_record(record, load_vocabulary(config.classes).names, clip, config)
                continue
            nouns = caption_nouns(record["captions"][: config.captions], names, tagger)
            yield from mine_record(record, nouns, clip, proposer, config)

    return write_in_parts(folder, mined, len(split), creator, "pairs", progress, "mining", share)


def caption_nouns(captions: Sequence[str], compounds: Sequence[str], tagger: Tagger) -> dict[str, str]:
    """Nouns of some captions, in order, each with the first caption that says it."""
    found: dict[str, str] = {}
    for caption in captions:
        for noun in extract_words(caption, ("noun",), compounds, tagger):
            found.setdefault(noun, caption)
    return found


@torch.no_grad()
def mine_record(
    record: Mapping[str, Any], nouns: Mapping[str, str], clip: Clip, proposer: Any | None, config: MiningConfig
) -> list[dict[str, Any]]:
    """The pairs of one image, in the order of its nouns. nouns: see `caption_nouns`."""
    image = np.array(read_image(record["image"]))
    source = ground_truth(record) if proposer is None else proposer.propose
    masks = inside(source(image, config.budget)) if nouns else torch.zeros(0, *image.shape[:2], dtype=torch.bool)
    there = masks.flatten(1).any(1).nonzero()[:, 0].tolist()
    if not there:
        return []
    pixels = clip.normalise(torch.from_numpy(image).permute(2, 0, 1).to(clip.device) / 255)
    text = clip.text_embeddings(list(nouns), config.templates)
    best, which = region_scores("masked crops", clip, pixels, masks[there].to(clip.device), text).max(0)
    found = []
    for (noun, caption), score, row in zip(nouns.items(), best.tolist(), which.tolist(), strict=True):
        if score >= config.least:
            origin = {"source": record["image_id"], "caption": caption, "mask": there[row], "score": score}
            found.append(_pair(image, masks[there[row]], noun, len(found), origin))
    return found


@torch.no_grad()
def labelled_record(
    record: Mapping[str, Any], names: Sequence[str], clip: Clip, config: MiningConfig
) -> list[dict[str, Any]]:
    """Every segment of one image with the name of its class: OVSeg's first source (Table 2, case 1). No region is
    looked for; the score is what CLIP says of it."""
    image, (masks, labels) = np.array(read_image(record["image"])), record_masks(record)
    if not len(masks):
        return []
    pixels = clip.normalise(torch.from_numpy(image).permute(2, 0, 1).to(clip.device) / 255)
    words = [names[label] for label in labels]
    text, masks = clip.text_embeddings(words, config.templates), torch.from_numpy(masks)
    scores = region_scores("masked crops", clip, pixels, masks.to(clip.device), text).diagonal().tolist()
    found = []
    for row, (word, score) in enumerate(zip(words, scores, strict=True)):
        if score >= config.least:
            origin = {"source": record["image_id"], "caption": "", "mask": row, "score": score}
            found.append(_pair(image, masks[row], word, len(found), origin))
    return found


def _pair(image: np.ndarray, mask: torch.Tensor, noun: str, number: int, origin: dict[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = box = mask_boxes(mask[None])[0].tolist()
    return {
        "image_id": f"{origin['source']}-{number:03d}", "image": image[top:bottom, left:right],
        "segments": None, "segments_info": None, "captions": [noun],
        "masks": [encode_rle(mask[top:bottom, left:right].cpu().numpy())], "pair": origin | {"box": box},
    }  # fmt: skip


def pair_statistics(pairs: Any) -> dict[str, float]:
    """Of mined pairs: how many, how many nouns, images, and the mean cosine (OVSeg, Table 2)."""
    nouns = Counter(captions[0] for captions in pairs["captions"])
    origins = pairs["pair"]
    return {
        "pairs": len(pairs), "nouns": len(nouns), "images": len({pair["source"] for pair in origins}),
        "mean cosine": float(np.mean([pair["score"] for pair in origins])),
    }  # fmt: skip
