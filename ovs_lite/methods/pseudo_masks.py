"""Masks for images that have captions only: a teacher's proposals, as a data set of the same record.

OpenSeg (Ghiasi et al., ECCV 2022), section 3.3: a model trained on masks alone annotates the images of captions. Which
proposals become masks is left open there; here those that enough other proposals agree with, duplicates left out.
Images are taken in parts, each a small data set of its own, so that any number of processes can work at once, each on
what no other has, and a run that was stopped resumes. N proposals, H W pixels.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ovs_lite.data.images import read_image
from ovs_lite.data.record import is_made, load_split, read_creator, write_split
from ovs_lite.data.rle import encode_rle
from ovs_lite.files import file_digest
from ovs_lite.locks import exclusive
from ovs_lite.matching import pairwise_iou
from ovs_lite.methods.proposer import MaskProposer, load_proposer
from ovs_lite.regions.ranking import DUPLICATE_IOU

PART = 64  # images
LEAST = 3.0  # proposals that find a region, each counted by its IoU, times how sure the best one is of its pixels
MOST = 24  # masks per image


def write_pseudo_masks(
    teacher: str | Path, source: str | Path, folder: str | Path, least: float = LEAST, most: int = MOST,
    limit: int | None = None, progress: bool = True, device: str | torch.device = "cpu",
) -> bool:  # fmt: skip
    """Annotate a prepared split with a teacher's masks and write it to `folder`. Returns whether it is complete.

    teacher: file of `ovs-lite train openseg-proposals`. source: a prepared split with captions. least, most: see
    `pseudo_masks`. limit: the first images only.
    Start it several times to share the work; the one that ends last puts the parts together, and False means that
    others still work. Parts that lie there from a run that was stopped are kept, unless teacher or settings differ.
    Nothing is done where `folder` is complete. Raises FileExistsError where it comes from elsewhere, ValueError and
    FileNotFoundError for what cannot be read.
    """
    folder, split = Path(folder), load_split(source)
    split = split if limit is None else split.select(range(min(limit, len(split))))
    proposer = load_proposer(teacher).to(device)
    creator = {"teacher": file_digest(teacher), "least": least, "most": most, "limit": limit}
    creator["source"] = read_creator(source)
    if folder.exists():
        if is_made(folder, creator):
            return True
        raise FileExistsError(f"{folder} exists, and comes from other settings; remove it to make it again")
    home, starts = folder.with_name(f".{folder.name}.parts"), range(0, len(split), PART)
    parts = [home / f"{start:09d}" for start in starts]
    for start, part in zip(tqdm(starts, "pseudo masks", unit=" parts", disable=not progress), parts, strict=True):
        rows = split.select(range(start, min(start + PART, len(split))))
        with suppress(BlockingIOError), exclusive(part.parent, f".{part.name}.work.lock"):
            if not is_made(part, creator):
                annotated = (_annotated(record, proposer, least, most) for record in rows)
                write_split(annotated, part, creator=creator, masks=True, overwrite=True, progress=False)
    return _joined(parts, folder, creator, len(split), progress)


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


def _joined(parts: Sequence[Path], folder: Path, creator: dict[str, Any], total: int, progress: bool) -> bool:
    """Put all parts together, once; False where another process still works, or puts them together."""
    with suppress(BlockingIOError), exclusive(folder.parent, f".{folder.name}.join.lock"):
        if folder.exists():
            return True
        if not all(is_made(part, creator) for part in parts):
            return False
        records = chain.from_iterable(map(load_split, parts))
        write_split(records, folder, creator=creator, masks=True, total=total, progress=progress)
        rmtree(parts[0].parent)
        return True
    return False
