"""Score maps of many classes: enlarged, and the best class of every pixel.

On a CPU the classes of a pixel, where they are more than a few, lie side by side in memory ("channels last"): bilinear
weights are computed once for all of them, and the best one is found by vector instructions. B images, K classes, h w
cells, H W pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

FEW = 8  # classes: fewer are faster plane by plane


def enlarged(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """(B, K, h, w) -> (B, K, H, W), bilinear (align_corners=False); as they are where they have the size."""
    if maps.shape[-2:] == tuple(size):
        return maps
    if maps.device.type != "cpu":
        return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
    if maps.shape[1] < FEW:  # one class an image: of 3 PyTorch would take colours, at twice the time
        planes = maps.reshape(-1, 1, *maps.shape[-2:])
        return F.interpolate(planes, tuple(size), mode="bilinear", align_corners=False).view(*maps.shape[:2], *size)
    return F.interpolate(side_by_side(maps), tuple(size), mode="bilinear", align_corners=False)


def at_stride(maps: torch.Tensor, size: Sequence[int], stride: Sequence[int] = (4, 4)) -> torch.Tensor:
    """(B, K, h, w) with a cell for every `stride` pixels of an image of H x W = `size` that was padded at the right and
    bottom -> (B, K, H, W): enlarged to the padded image and cropped, so that a value lies where its cell was."""
    padded = [cells * step for cells, step in zip(maps.shape[-2:], stride, strict=True)]
    return enlarged(maps, padded)[..., : size[0], : size[1]]


def masks_at_stride(masks: torch.Tensor, size: Sequence[int], stride: int = 4) -> torch.Tensor:
    """As `at_stride`, for masks or their logits (B, N, h, w), of which each stays in one piece of memory."""
    padded = [cells * stride for cells in masks.shape[-2:]]
    return F.interpolate(masks, padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]


def side_by_side(maps: torch.Tensor) -> torch.Tensor:
    """(B, K, h, w), equal, laid out in memory as `enlarged` returns it."""
    if maps.device.type != "cpu" or maps.shape[1] < FEW:
        return maps
    return maps.contiguous(memory_format=torch.channels_last)


def as_planes(maps: torch.Tensor) -> torch.Tensor:
    """(B, K, H, W), equal, with each class's plane in one piece of memory."""
    if maps.is_contiguous() or maps.stride(1) != 1:
        return maps.contiguous()
    # of a matrix PyTorch makes the transpose block by block, of four dimensions pixel by pixel: six times slower
    rows = [image.permute(1, 2, 0).reshape(-1, maps.shape[1]).t() for image in maps]
    planes = [row.contiguous().view(maps.shape[1:]) for row in rows]
    return planes[0][None] if len(planes) == 1 else torch.stack(planes)


def best_of(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, K, H, W) without gradient -> the best score and its class (the first of equals), (B, H, W) each.

    Where a score is NaN so is the best one, and the class is one that is NaN.
    """
    if maps.shape[1] == 1:
        return maps[:, 0], torch.zeros_like(maps[:, 0], dtype=torch.int32)
    if maps.device.type != "cpu" or maps.stride(1) != 1 or maps.dtype not in (torch.float32, torch.float64):
        return maps.max(1)
    places = torch.from_numpy(maps.permute(0, 2, 3, 1).numpy().argmax(-1))  # torch.max is no vector instruction here
    return maps.gather(1, places[:, None])[:, 0], places
