"""What the alignment is trained on: images by number with the entities of a caption, and masks of records.

B images of all processes, b of this one, N masks, H W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from ovs_lite.data.chat_entities import ChatParser
from ovs_lite.data.entities import EntityParser, tagged_parser
from ovs_lite.data.loaders.places import Places
from ovs_lite.data.segments import record_masks
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import names_of
from ovs_lite.files import file_digest
from ovs_lite.methods.proposer import MaskProposer, load_proposer
from ovs_lite.methods.uniovseg.alignment_config import CLASSICAL, OWN, SEGMENTER, AlignmentConfig
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter, soft_masks
from ovs_lite.regions.sources import BASELINES

RecordMasks = Callable[[Mapping[str, Any], np.ndarray], torch.Tensor]


@dataclass(frozen=True)
class EntityBatch:
    """This process's share of a batch: b records by number, the entities of one caption of each, and B as `total`."""

    numbers: list[int]
    entities: list[tuple[str, ...]]
    image_ids: list[str]
    total: int


class EntityBatches:
    """index -> EntityBatch of this process's share; every image comes once per epoch, with one of its captions by the
    seed. split: records of `load_split`. parser: finds the entities, once of each caption."""

    def __init__(self, split: Any, batch_size: int, seed: int, parser: EntityParser):
        self.texts = split.select_columns(["captions", "image_id"])
        self.entities = lru_cache(maxsize=1 << 18)(lambda caption: tuple(parser.parse(caption)))
        self.places, self.batch_size, self.seed = Places(len(split), batch_size, seed), batch_size, seed

    def __call__(self, index: int) -> EntityBatch:
        places = self.places(index)
        rows = [row for *_, row in places]
        texts = self.texts[rows]  # one read for the batch: a read of one row costs as much
        chosen = zip(places, texts["captions"], strict=True)
        entities = [self._of(epoch, number, captions) for (epoch, number, _), captions in chosen]
        return EntityBatch(rows, entities, texts["image_id"], self.batch_size)

    def _of(self, epoch: int, number: int, captions: Sequence[str]) -> tuple[str, ...]:
        if not captions:
            return ()
        return self.entities(captions[np.random.default_rng((self.seed, epoch, number)).integers(len(captions))])


class ProposedMasks(nn.Module):
    """A trained proposer as a source of masks of records, at most `budget` of each."""

    def __init__(self, proposer: MaskProposer, budget: int):
        super().__init__()
        self.proposer, self.budget = proposer, budget

    def forward(self, record: Mapping[str, Any], image: np.ndarray) -> torch.Tensor:
        """A record and its (H, W, 3) uint8 RGB -> (N, H, W) soft masks."""
        return self.proposer.propose(image, self.budget)


class GridMasks(nn.Module):
    """A segmenter's masks of a grid of `side` x `side` points as a source of masks of records, as `ProposedMasks`."""

    def __init__(self, segmenter: PromptSegmenter, budget: int, side: int):
        super().__init__()
        self.segmenter, self.budget, self.side = segmenter, budget, side

    def forward(self, record: Mapping[str, Any], image: np.ndarray) -> torch.Tensor:
        """A record and its (H, W, 3) uint8 RGB -> (N, H, W) soft masks."""
        ((logits, _),) = self.segmenter.grid_masks(self.segmenter.look(image), self.side)
        return soft_masks(logits[: self.budget][None], image.shape[:2])[0]


def mask_source(config: AlignmentConfig, segmenter: PromptSegmenter) -> tuple[RecordMasks, str]:
    """Where masks come from, as `config.masks` says, and what names it. segmenter: the one that finds masks later.

    The source raises ValueError for a record without masks of its own where it is asked for them.
    """
    if config.masks == OWN:
        return _own_masks, OWN
    if config.masks == CLASSICAL:
        source = BASELINES["classical proposals"]
        return lambda record, image: source(image, config.budget), CLASSICAL
    if config.masks == SEGMENTER:
        return GridMasks(segmenter, config.budget, config.grid), SEGMENTER
    return ProposedMasks(load_proposer(config.masks), config.budget), file_digest(config.masks)


def _own_masks(record: Mapping[str, Any], image: np.ndarray) -> torch.Tensor:
    if record["segments"] is None and record.get("masks") is None:
        name = f"record {record['image_id']!r} has no masks of its own"
        raise ValueError(f"{name}; give a file of proposals as --masks, or classical")
    return torch.from_numpy(record_masks(record)[0])


def entity_parser(config: AlignmentConfig) -> EntityParser:
    """The parser that the configuration names."""
    if config.parser == "chat":
        return ChatParser(config.url, config.chat_model)
    names = names_of(config.compounds)
    return tagged_parser(config.parser, names, load_tagger(config.tagger))
