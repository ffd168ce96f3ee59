"""How Uni-OVSeg's mask-text alignment is trained: masks and entities are matched in CLIP's space, and an adapter brings
the matched ones nearer to each other.

Paper: see the folder; section 3.3, Eq. 5-8, appendix A. CLIP is frozen, and the pairs come from it alone, before the
adapter: so what it sees of an image and who is matched to whom never change, and both are kept.
Departures: images are seen whole and unmirrored, which is what makes keeping them possible. By default each region is
contrasted with the other entities of the batch, too (`losses.alignment`): nothing in Eq. 8 tells regions apart, and the
shortest way down moves all of them to the mean of all texts. Notebook 06 measures both.
B images of all processes, b of this one, N masks, E entities, P pairs, S input scales, D joint embedding.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.model import MAX_SCALE
from ovs_lite.config import SHIPPED
from ovs_lite.data.images import read_image
from ovs_lite.data.record import first, load_split
from ovs_lite.distributed import gather_with_gradient, largest, total_count, world_size
from ovs_lite.files import data_path, file_digest
from ovs_lite.losses.alignment import contrastive_alignment_loss, cosine_alignment_loss
from ovs_lite.matching import match_masks_to_entities
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.methods.recipe import Task
from ovs_lite.methods.trained import check_checkpoint, load_method
from ovs_lite.methods.uniovseg.alignment_config import AlignmentConfig
from ovs_lite.methods.uniovseg.alignment_data import EntityBatch, EntityBatches, RecordMasks, entity_parser, mask_source
from ovs_lite.methods.uniovseg.method import UniOVSeg
from ovs_lite.methods.uniovseg.regions import mask_weights, pooled_regions
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter
from ovs_lite.methods.word_table import WordTable
from ovs_lite.regions.classifiers import inside


@dataclass(frozen=True)
class SeenImage:
    """What the frozen parts say of an image, in half precision.

    pixels: S times (h w, D), CLIP's maps. weights: S times (N, h w), of `mask_weights`. regions: (S, N, D), what both
    give without the adapter.
    """

    pixels: list[torch.Tensor]
    weights: list[torch.Tensor]
    regions: torch.Tensor


Pairs = tuple[SeenImage, torch.Tensor, list[str]]


class AlignmentTraining(Task):
    """Train a method's adapter on matched pairs. One term, alignment: Eq. 8 or the contrast of a batch's entities.

    method: whose adapter is trained, as its configuration says (loss, threshold, kept). batches: index -> EntityBatch.
    split: the records that they number. masks: record and its (H, W, 3) RGB -> its masks (N, H, W).
    """

    weights = {"alignment": 1.0}

    def __init__(
        self, method: UniOVSeg, batches: Callable[[int], EntityBatch], split: Any, masks: RecordMasks,
        found: dict[str, Any] | None = None,
    ):  # fmt: skip
        moved = nn.ModuleList([method, masks]) if isinstance(masks, nn.Module) else method
        super().__init__(moved, method.aligned.adapter, batches, found)
        self.method, self.aligned, self.config = method, method.aligned, method.config
        self.split, self.masks = split, masks
        self.kept: dict[int, SeenImage] = {}
        self.words = WordTable(self.clip, self.aligned.templates)

    @property
    def clip(self) -> Clip:
        """The frozen CLIP."""
        return self.aligned.clip

    def losses(self, batch: EntityBatch) -> dict[str, torch.Tensor]:
        """The term over the pairs of all processes; 0 where none is matched."""
        pairs = list(self._pairs(batch))
        empty = torch.zeros(0, self.clip.embed_dim, device=self.clip.device)
        texts = torch.cat([empty, *(self.words.embedded(words) for *_, words in pairs)])
        regions = self._adapted(pairs) if pairs else empty
        # every weight takes part, so that a batch without pairs has gradients, of 0
        regions = regions + 0 * sum(value.sum() for value in self.model.parameters())
        count = max(1, total_count(len(regions), self.clip.device)) / world_size()
        if self.config.loss == "cosine":
            return {"alignment": cosine_alignment_loss(regions, texts, count)}
        distinct, which = _distinct(texts, [word for *_, words in pairs for word in words])
        scale = float(self.clip.logit_scale.exp().clamp(max=MAX_SCALE))
        return {"alignment": contrastive_alignment_loss(regions, distinct, which, scale, count)}

    def _pairs(self, batch: EntityBatch) -> Iterator[Pairs]:
        """Each image with pairs, the masks of its pairs (P,) and their P words."""
        self.words.learn(entity for entities in batch.entities for entity in entities)
        for number, entities in zip(batch.numbers, batch.entities, strict=True):
            if entities:
                seen, texts = self.seen(number), self.words.embedded(entities)
                rows, cols = self.matched(seen, texts)
                if len(rows):
                    yield seen, rows, [entities[place] for place in cols.tolist()]

    def _adapted(self, pairs: Sequence[Pairs]) -> torch.Tensor:
        """The regions of all pairs in order, (P, D), as `region_embeddings` has them; each scale's pixels at once."""
        scales = []
        for scale, adapter in enumerate(self.model):
            pixels = [seen.pixels[scale].float() for seen, *_ in pairs]  # kept in half precision
            parts = adapter(torch.cat(pixels)).split([len(some) for some in pixels])
            shares = (seen.weights[scale][rows].float() for seen, rows, _ in pairs)
            scales.append(F.normalize(torch.cat([w @ part for w, part in zip(shares, parts, strict=True)]), dim=1))
        return torch.stack(scales).mean(0)

    def matched(self, seen: SeenImage, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Confident pairs of an image's masks and (E, D) texts by CLIP alone; see `match_masks_to_entities`."""
        return match_masks_to_entities([-(one.float() @ texts.T) for one in seen.regions], self.config.threshold)

    @torch.no_grad()
    def seen(self, number: int) -> SeenImage:
        """What the frozen parts say of a record. At most `config.kept` are kept, the latest."""
        if number in self.kept:
            return self.kept[number]
        record = self.split[number]
        image = np.array(read_image(record["image"]))
        masks = inside(self.masks(record, image)).to(self.clip.device)
        masks = masks[masks.flatten(1).any(1)]
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.clip.device) / 255
        maps = self.aligned.maps(self.clip.normalise(pixels))
        weights = [mask_weights(masks, one.shape[-2:]) for one in maps]
        regions = torch.cat(pooled_regions(maps, [one[None] for one in weights])).half()
        pixels = [one[0].flatten(1).T.half().contiguous() for one in maps]
        found = SeenImage(pixels, [one.flatten(1).half() for one in weights], regions)
        if self.config.kept:
            if len(self.kept) >= self.config.kept:
                self.kept.pop(next(iter(self.kept)))
            self.kept[number] = found
        return found

    def notes(self) -> list[str]:
        """Where entities and masks came from."""
        return [f"entities: {self.found['parser']}; masks: {self.config.masks}"]


class RandomPairs(AlignmentTraining):
    """A control, to tell matching from training: the entities are those that matching keeps, their masks are drawn.

    Each gets any mask of its image, all as likely and none twice, drawn anew at every step. Steps, captions, images and
    the number of pairs are those of `AlignmentTraining`. By torch's generator, which the loop seeds for every batch, so
    that a run can resume.
    """

    def matched(self, seen: SeenImage, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The matched entities of (E, D) texts, with masks by chance; rows in no order."""
        _, cols = super().matched(seen, texts)
        return torch.randperm(seen.regions.shape[1], device=cols.device)[: len(cols)], cols


def _distinct(texts: torch.Tensor, words: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """This process's (P, D) of P words -> the distinct texts of all processes (U, D), and which of them each P is.

    Words are known by their letters: processes that embedded one in different batches may have other last bits of it.
    """
    keys = torch.tensor([_key(word) for word in words], dtype=torch.long, device=texts.device)
    most = largest(len(texts), texts.device)
    padded, known = texts.new_zeros(most, texts.shape[1]), keys.new_zeros(most, 2)
    padded[: len(texts)], known[: len(texts), 0], known[: len(texts), 1] = texts, keys, 1
    everyones, known = gather_with_gradient(padded), gather_with_gradient(known)
    everyones, known = everyones[known[:, 1] > 0], known[known[:, 1] > 0, 0]
    kinds, kind = torch.unique(known, return_inverse=True)
    places = torch.arange(len(known), device=known.device)
    firsts = places.new_full(kinds.shape, len(known)).scatter_reduce(0, kind, places, "amin")
    distinct, row = torch.unique(everyones[firsts], dim=0, return_inverse=True) if len(known) else (everyones, firsts)
    return distinct, row[torch.searchsorted(kinds, keys)]


def _key(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big", signed=True)


def build(config: AlignmentConfig) -> AlignmentTraining:
    """A method whose adapter starts as the configuration's CLIP, and its images, masks and entities.

    Raises FileNotFoundError for data or weights that are not there, ValueError for others.
    """
    split = first(load_split(data_path(config.data)), config.limit or None)
    clip, (segmenter, digest) = load_clip(config.clip, config.pretrained), joined_segmenter(config)
    parser, (masks, masks_name) = entity_parser(config), mask_source(config, segmenter)
    batches = EntityBatches(split, config.batch, config.loop.seed, parser)
    found = {"records": len(split), "parser": parser.name, "segmenter": digest, "masks": masks_name}
    found |= {"text_tower": clip.fingerprint(), "image_tower": clip.image_fingerprint()}
    return AlignmentTraining(UniOVSeg(clip, segmenter, config), batches, split, masks, found)


def joined_segmenter(config: AlignmentConfig) -> tuple[PromptSegmenter, str]:
    """The segmenter that joins the adapter in one file, and the digest of its weights. Raises as `build`."""
    if config.segmenter == SHIPPED:
        path = check_checkpoint(UniOVSeg.name, None)
        return load_method(UniOVSeg.name, checkpoint=path).network["segmenter"], file_digest(path)
    found = load_proposer(config.segmenter)
    if not isinstance(found, PromptSegmenter):
        given = f"{config.segmenter}: weights of {found.recipe}"
        raise ValueError(f"{given}, expected those of {PromptSegmenter.recipe}, which answer prompts")
    return found, file_digest(config.segmenter)
