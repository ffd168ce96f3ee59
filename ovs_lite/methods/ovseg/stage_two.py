"""Stage two of a two-stage method: which of an image's proposals are worth a crop, and their embeddings by CLIP.

OVSeg (Liang et al., CVPR 2023), section 3.1, and its released code: a mask is cut at a threshold, proposals without a
pixel are invalid. Here a crop that was made once is not made again. B images, N proposals, D joint embedding, H W
pixels.
"""

from collections.abc import Sequence

import torch

from ovs_lite.clip import Clip
from ovs_lite.clip.crops import cropped_masks, masked_crops

KEYS = 16  # masks that are summed together: bounds the memory
ENCODE = 256  # crops that are encoded together; see tests/benchmarks/bench_stage_two.py


@torch.no_grad()
def encode_proposals(
    clip: Clip, images: torch.Tensor, masks: torch.Tensor, smallest: int = 1, batch: int = ENCODE
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """CLIP's embeddings of the proposals of B images, all of them in one go.

    images: (B, 3, H, W) normalised. masks: (B, N, H, W) bool. smallest: pixels that a valid proposal has at the least.
    Returns regions (B, N, D), L2-normalised, zeros where invalid; valid (B, N) bool; and how many crops were encoded:
    of proposals of one image that have the same pixels one is.
    """
    valid = masks.flatten(2).sum(2) >= max(1, smallest)
    regions = images.new_zeros(*valid.shape, clip.embed_dim)
    chosen = [distinct(some, kept) for some, kept in zip(masks, valid, strict=True)]
    crops = _crops(clip, images, masks, [first for first, _ in chosen])
    if crops is None:
        return regions, valid, 0
    parts = zip(*(given.split(batch) for given in crops), strict=True)
    encoded = torch.cat([clip.encode_masked(*part) for part in parts]).to(regions.dtype)
    start = 0
    for number, (first, which) in enumerate(chosen):
        regions[number, valid[number]] = encoded[start : start + len(first)][which]
        start += len(first)
    return regions, valid, len(encoded)


def distinct(masks: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the kept masks, the first of each kind: (N, H, W) bool, (N,) bool -> their (U,) numbers, and for each kept
    mask which of these it equals.

    Masks are told apart by a random 64-bit sum of their pixels, which two different ones share once in 10^19 pairs.
    """
    numbers = kept.nonzero()[:, 0]
    if len(numbers) == 0:
        return numbers, numbers
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (masks[0].numel(),), generator=generator).to(masks.device)
    parts = masks[numbers].flatten(1).split(KEYS)
    keys = torch.cat([(part * weights).sum(1) for part in parts])  # wraps around
    order, which = keys.unique(return_inverse=True)
    places = torch.arange(len(keys), device=keys.device)
    first = places.new_full((len(order),), len(keys)).scatter_reduce(0, which, places, "amin")
    return numbers[first], which


def _crops(
    clip: Clip, images: torch.Tensor, masks: torch.Tensor, chosen: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The chosen proposals' crops and the regions' pixels in them; None where nothing is chosen."""
    size = clip.image_size
    given = [(image, some[few]) for image, some, few in zip(images, masks, chosen, strict=True) if len(few)]
    if not given:
        return None
    crops = torch.cat([masked_crops(image, some, size) for image, some in given])
    return crops, torch.cat([cropped_masks(some, size) for _, some in given])
