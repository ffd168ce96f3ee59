"""Pixel-adaptive mask refinement: masks averaged over neighbours of like colour, again and again, no learning.

PAMR is section 4.3 (Eq. 5 and 6) of Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels" (CVPR
2020); TCL refines its masks with it. N = 8 neighbours times the number of dilations, K masks.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
SHARPNESS = 0.1  # of the local standard deviation: a difference of that much divides a weight by e
EPSILON = 1e-8
DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
CACHED = 2**17  # numbers that one operation writes on a CPU: they stay in its cache for all N neighbours
LAUNCHED = 2**20  # on other devices, where every operation must be launched
BLOCK = 6  # masks at least that go through all iterations together: they share one reading of the weights
GATHERED = 80  # masks at most whose values lie together for each pixel
FEW, SMALL = 4, 2**12  # below so many masks of more pixels than these, whole planes are faster

Offset = tuple[int, int]


@torch.no_grad()
def pamr(
    image: torch.Tensor,
    masks: torch.Tensor,
    dilations: Sequence[int] = DILATIONS,
    iterations: int = ITERATIONS,
    weights: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Refine masks by the colours of their image: (B, 3, H, W), (B, K, h, w) -> (B, K, H, W).

    Masks are first resized to the image (bilinear, align_corners=True). Then every iteration replaces each pixel by
    a weighted mean of its N neighbours, itself left out; beyond the border the outermost pixels repeat. Weights are
    those of `affinity`; any number of channels may stand for 3. Gradients are not tracked. Masks are computed and
    returned in their own precision, in float32 where that is less; many masks lie channels last on a CPU, so
    reshape the result, do not view it. Beyond the result, memory holds N planes of one image, on a CPU three times,
    and a block of masks. weights: `neighbour_weights` of the same image and dilations, where they are kept for
    other masks. Raises ValueError for other shapes, no dilation or one below 1, iterations below 0.
    """
    shapes = f"image {tuple(image.shape)} and masks {tuple(masks.shape)}"
    if image.ndim != 4 or masks.ndim != 4 or len(image) != len(masks):
        raise ValueError(f"got {shapes}, expected (B, 3, H, W) and (B, K, h, w)")
    if 0 in image.shape[1:] or 0 in masks.shape[2:]:
        raise ValueError(f"got {shapes}, expected at least one channel and one pixel")
    if len(dilations) == 0 or min(dilations) < 1 or iterations < 0:
        raise ValueError(f"got dilations {tuple(dilations)} and {iterations} iterations, expected >= 1 and >= 0")
    dtype = torch.promote_types(masks.dtype, torch.float32)
    height, width = image.shape[-2:]
    offsets = neighbour_offsets(height, width, dilations)
    result = masks.new_empty((*masks.shape[:2], height, width), dtype=dtype)
    if weights is None:
        used = iterations and masks.shape[1]
        weights = (affinity(pixels, offsets) if used else None for pixels in image.to(dtype))
    gathered = iterations and _is_gathered(result)
    if gathered:
        result = torch.empty_like(result, memory_format=torch.channels_last)
    at_once = GATHERED if gathered else max(BLOCK, _room(image) // (height * width))
    places = neighbour_places(height, width, offsets) if gathered else None
    for of_image, before, after in zip(weights, masks, result, strict=True):
        by_pixel = of_image.flatten(1).t().to(dtype).contiguous() if gathered else None
        for block in _spans(len(before), at_once):
            resized = _resized(before[block].to(dtype), (height, width))
            if gathered:
                after[block] = _refine_gathered(resized, by_pixel, places, iterations)
            else:
                after[block] = _refine(resized, of_image, offsets, iterations)
    return result


@torch.no_grad()
def neighbour_weights(image: torch.Tensor, dilations: Sequence[int] = DILATIONS) -> list[torch.Tensor]:
    """(B, C, H, W) -> of each image (N, H, W): what `pamr` reads of it, in float32 at least."""
    offsets = neighbour_offsets(*image.shape[-2:], dilations)
    return [affinity(pixels, offsets) for pixels in image.to(torch.promote_types(image.dtype, torch.float32))]


def neighbour_offsets(height: int, width: int, dilations: Sequence[int]) -> list[Offset]:
    """(rows, columns) from a pixel to each of its N neighbours.

    A step of H - 1 rows already ends at the border from every pixel, so no offset is longer than the image.
    """
    steps = [(min(dilation, height - 1), min(dilation, width - 1)) for dilation in dilations]
    return [(y * down, x * right) for down, right in steps for y, x in DIRECTIONS]


def neighbour_places(height: int, width: int, offsets: Sequence[Offset]) -> torch.Tensor:
    """(H * W, N) int32: where each pixel's neighbours lie among all pixels, row by row."""
    steps = torch.tensor(offsets, dtype=torch.int32)
    rows = (torch.arange(height, dtype=torch.int32)[:, None] + steps[:, 0]).clamp_(0, height - 1)
    columns = (torch.arange(width, dtype=torch.int32)[:, None] + steps[:, 1]).clamp_(0, width - 1)
    return (rows.mul_(width)[:, None] + columns).view(-1, len(offsets))


def affinity(image: torch.Tensor, offsets: Sequence[Offset]) -> torch.Tensor:
    """(C, H, W), N offsets -> (N, H, W): the weights of a pixel's neighbours, which sum to 1.

    Softmax over neighbours of -|difference| / (1e-8 + 0.1 * standard deviation), averaged over channels. The standard
    deviation is that of the 9 pixels of all dilations together, N / 8 times 9 with the centre counted N / 8 times,
    unbiased, for every pixel and channel.
    """
    height, width = image.shape[-2:]
    margin = _margin(offsets)
    padded = _padded(image, margin)
    weights = image.new_empty(len(offsets), height, width)
    for rows in _tiles(image):
        centre = image[:, rows]
        scale = _inverse_spread(padded, centre, rows, offsets) / -len(image)
        for plane, offset in zip(weights[:, rows], offsets, strict=True):
            difference = _shifted(padded, rows, width, margin, offset) - centre
            torch.sum(difference.abs_().mul_(scale), 0, out=plane)
        tile = weights[:, rows].exp_()  # their exponents are above -32 on average, see _inverse_spread: no underflow
        tile.div_(tile.sum(0))
    return weights


def _inverse_spread(padded: torch.Tensor, centre: torch.Tensor, rows: slice, offsets: Sequence[Offset]) -> torch.Tensor:
    """1 / (1e-8 + 0.1 * standard deviation) of some rows. Sums of differences from the centre, whose own are 0.

    Nothing cancels in squares minus square of the sum: the centre is a ninth of the samples, so that the variance is
    at least a ninth of the mean square.
    """
    margin, samples = _margin(offsets), len(offsets) * 9 // 8
    total, squares = torch.zeros_like(centre), torch.zeros_like(centre)
    for offset in offsets:
        difference = _shifted(padded, rows, centre.shape[-1], margin, offset) - centre
        total += difference
        squares.addcmul_(difference, difference)
    variance = squares.addcmul_(total, total, value=-1 / samples).div_(samples - 1)
    return 1 / (EPSILON + SHARPNESS * variance.clamp_(min=0).sqrt_())


def _resized(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(K, h, w) -> (K, H, W), corner to corner."""
    if masks.shape[1:] == size:
        return masks
    return F.interpolate(masks[None], size, mode="bilinear", align_corners=True)[0]


def _is_gathered(masks: torch.Tensor) -> bool:
    """Whether masks (B, K, H, W) are better refined with the values of a pixel lying together."""
    many = masks.shape[1] >= FEW or masks.shape[2] * masks.shape[3] <= SMALL
    return masks.device.type == "cpu" and masks.dtype == torch.float32 and masks.shape[1] > 0 and many


def _refine_gathered(masks: torch.Tensor, weights: torch.Tensor, places: torch.Tensor, iterations: int) -> torch.Tensor:
    """As `_refine`; weights and places: (H * W, N). PyTorch's bags of embeddings are weighted sums of rows, and keep
    the sum in registers where `_refine` goes to memory for each neighbour."""
    flat = masks.flatten(1).t()
    rows = masks.new_empty(flat.shape).copy_(flat)  # contiguous() keeps one mask's strides
    for _ in range(iterations):
        rows = F.embedding_bag(places, rows, per_sample_weights=weights, mode="sum")
    return rows.t().reshape(masks.shape)


def _refine(masks: torch.Tensor, weights: torch.Tensor, offsets: Sequence[Offset], iterations: int) -> torch.Tensor:
    """Some masks (K, H, W) through all iterations."""
    margin = _margin(offsets)
    for _ in range(iterations):
        padded, masks = _padded(masks, margin), torch.zeros_like(masks)
        for rows in _tiles(masks):
            mean = masks[:, rows]
            for plane, offset in zip(weights[:, rows], offsets, strict=True):
                mean.addcmul_(_shifted(padded, rows, masks.shape[2], margin, offset), plane)
    return masks


def _padded(planes: torch.Tensor, margin: Offset) -> torch.Tensor:
    """(K, H, W) with the outermost pixels repeated around."""
    down, right = margin
    return F.pad(planes[None], (right, right, down, down), mode="replicate")[0]


def _shifted(padded: torch.Tensor, rows: slice, width: int, margin: Offset, offset: Offset) -> torch.Tensor:
    """What the pixels of `rows` see at `offset` from them: a view of the padded buffer."""
    down, right = margin[0] + offset[0], margin[1] + offset[1]
    return padded[:, down + rows.start : down + rows.stop, right : right + width]


def _margin(offsets: Sequence[Offset]) -> Offset:
    return max(y for y, _ in offsets), max(x for _, x in offsets)


def _room(tensor: torch.Tensor) -> int:
    return CACHED if tensor.device.type == "cpu" else LAUNCHED


def _tiles(planes: torch.Tensor) -> Iterator[slice]:
    """Rows of (K, H, W) to work on at a time."""
    count, height, width = planes.shape
    return _spans(height, max(1, _room(planes) // (count * width)))


def _spans(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
