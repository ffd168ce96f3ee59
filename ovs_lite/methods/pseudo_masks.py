"""Masks for images that have captions only: a teacher's proposals, as a data set of the same record.

OpenSeg (Ghiasi et al., ECCV 2022), section 3.3: a model trained on masks alone annotates the images of captions. Which
proposals become masks is left open there; here those that enough other proposals agree with, duplicates left out.
N proposals, H W pixels.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ovs_lite.data.images import read_image
from ovs_lite.data.parts import Share, write_in_parts
from ovs_lite.data.record import first, iter_encoded, load_split, read_creator
from ovs_lite.data.rle import encode_rle
from ovs_lite.files import file_digest
from ovs_lite.matching import pairwise_iou
from ovs_lite.methods.proposer import MaskProposer, load_proposer
from ovs_lite.regions.ranking import DUPLICATE_IOU

LEAST = 3.0  # proposals that find a region, each counted by its IoU, times how sure the best one is of its pixels
MOST = 24  # masks per image


def write_pseudo_masks(
    teacher: str | Path, source: str | Path, folder: str | Path, least: float = LEAST, most: int = MOST,
    limit: int | None = None, progress: bool = True, device: str | torch.device = "cpu",
    share: Share | None = None,
) -> bool:  # fmt: skip
    """Annotate a prepared split with a teacher's masks and write it to `folder`. Returns whether it is complete.

    teacher: file of `ovs-lite train openseg-proposals`. source: a prepared split with captions. least, most: see
    `pseudo_masks`. limit: the first images only.
    Several processes, share, stops and what is raised: see `write_in_parts`; and FileNotFoundError and ValueError for
    what cannot be read.
    """
    split = first(load_split(source), limit)
    proposer = load_proposer(teacher).to(device)
    creator = {"teacher": file_digest(teacher), "least": least, "most": most, "limit": limit}
    creator["source"] = read_creator(source)

    def annotated(numbers: range) -> Iterator[dict[str, Any]]:
        return (_annotated(record, proposer, least, most) for record in iter_encoded(split.select(numbers)))

    return write_in_parts(folder, annotated, len(split), creator, "masks", progress, "pseudo masks", share)


def pseudo_masks(proposer: MaskProposer, image: np.ndarray, least: float = LEAST, most: int = MOST) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (N, H, W) bool, best first, N <= `most`: proposals whose score (see
    `MaskProposer.ranked`) is at least `least`, none empty, none a duplicate of a better one."""
    masks, scores = proposer.ranked(image)
    masks = masks[scores >= least]
    full = F.interpolate(masks[:, None], image.shape[:2], mode="bilinear", align_corners=False)[:, 0] > 0.5
    flat = full.flatten(1).float()
    duplicates = (pairwise_iou(flat, flat) > DUPLICATE_IOU).triu(1).any(0)
    return full[flat.any(1) & ~duplicates][:most].cpu().numpy()


def _annotated(record: Mapping[str, Any], proposer: MaskProposer, least: float, most: int) -> dict[str, Any]:
    masks = pseudo_masks(proposer, np.array(read_image(record["image"])), least, most)
    found = {"segments": None, "segments_info": None, "masks": [encode_rle(mask) for mask in masks]}
    return {"image_id": record["image_id"], "image": record["image"], "captions": record["captions"], **found}
