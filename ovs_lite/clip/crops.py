"""Regions as images: every region's box cropped from an image, with or without its background, in one batch.

N regions, C channels, H W pixels of the image, S side of a crop, D embedding.
"""

import torch

from ovs_lite.clip.model import Clip

AT_ONCE = 64  # regions resampled together: bounds the memory at AT_ONCE masked copies of the image
CUBIC = -0.75  # the free parameter of the bicubic kernel, as in PyTorch's F.interpolate


def mask_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Tight boxes of (N, H, W) bool masks: (N, 4) int64 XYXY, right and bottom exclusive; zeros for an empty mask."""
    height, width = masks.shape[1:]
    rows, columns = masks.any(2).int(), masks.any(1).int()
    box = torch.stack(
        [columns.argmax(1), rows.argmax(1), width - columns.flip(1).argmax(1), height - rows.flip(1).argmax(1)], 1
    )
    return box * masks.flatten(1).any(1)[:, None]


def masked_crops(image: torch.Tensor, masks: torch.Tensor, size: int, masked: bool = True) -> torch.Tensor:
    """(C, H, W) normalised, (N, H, W) bool -> (N, C, size, size): the tight box of each region, warped to a square.

    OVSeg, section 3.1 (its released code: no margin, aspect ratio given up, bicubic without antialiasing). masked: set
    what lies outside the region to 0, the mean colour; otherwise the box keeps its background (A.1). An empty mask
    gives zeros. Bicubic resampling is linear in rows and in columns, so a crop is two matrix products, and all regions
    are cropped together on the image's device; differentiable in the image.
    Raises ValueError for masks of another size than the image.
    """
    if masks.ndim != 3 or masks.shape[1:] != image.shape[1:] or masks.dtype != torch.bool:
        raise ValueError(f"got masks {tuple(masks.shape)} {masks.dtype}, expected bool (N, {tuple(image.shape[1:])})")
    return torch.cat([_crop_some(image, some, size, masked) for some in masks.split(AT_ONCE)])


def cropped_masks(masks: torch.Tensor, size: int) -> torch.Tensor:
    """The regions themselves in the crops of `masked_crops`: (N, H, W) bool -> (N, size, size) bool, nearest pixel.

    An empty mask stays empty.
    """
    left, top, right, bottom = mask_boxes(masks).unbind(1)
    steps = torch.arange(size, device=masks.device)
    rows = top[:, None] + steps * (bottom - top)[:, None] // size  # (N, S), as F.interpolate's "nearest"
    columns = left[:, None] + steps * (right - left)[:, None] // size
    return masks[torch.arange(len(masks), device=masks.device)[:, None, None], rows[:, :, None], columns[:, None]]


def encode_regions(
    clip: Clip, image: torch.Tensor, masks: torch.Tensor, masked: bool = True, batch: int = 128
) -> torch.Tensor:
    """CLIP's embedding of each region's crop: (3, H, W) normalised, (N, H, W) bool -> (N, D), L2-normalised.

    A CLIP with mask prompts is told which pixels of a masked crop are the region's.
    """
    if len(masks) == 0:
        return image.new_zeros(0, clip.embed_dim)
    parts = []
    for some in masks.split(batch):
        crops = masked_crops(image, some, clip.image_size, masked)
        inside = cropped_masks(some, clip.image_size)
        parts.append(clip.encode_masked(crops, inside) if masked else clip.encode_image(crops))
    return torch.cat(parts)


def _crop_some(image: torch.Tensor, masks: torch.Tensor, size: int, masked: bool) -> torch.Tensor:
    height, width = masks.shape[1:]
    left, top, right, bottom = mask_boxes(masks).unbind(1)
    rows = _resampling(top, bottom, height, size).to(image.dtype)  # (N, S, H)
    columns = _resampling(left, right, width, size).to(image.dtype)  # (N, S, W)
    if masked:
        squeezed = rows[:, None] @ (image * masks[:, None])  # (N, C, S, W)
    else:
        squeezed = torch.einsum("nsh,chw->ncsw", rows, image)
    return squeezed @ columns[:, None].transpose(2, 3)


def _resampling(start: torch.Tensor, stop: torch.Tensor, length: int, size: int) -> torch.Tensor:
    """Matrices that stretch pixels start..stop-1 of `length` to `size` samples: (N,), (N,) int64 -> (N, size, length).

    align_corners=False; taps beyond the box repeat its border pixel. An empty box (stop = start) gives zeros.
    """
    extent = (stop - start)[:, None]
    centre = (torch.arange(size, device=start.device) + 0.5) * extent / size - 0.5  # (N, size)
    first = centre.floor()
    offset = torch.arange(-1, 3, device=start.device)
    distance = (centre - first)[..., None] - offset
    taps = (first.long()[..., None] + offset).clamp(min=0).minimum((extent[..., None] - 1).clamp(min=0))
    weights = _cubic(distance.abs()) * (extent > 0)[..., None]
    matrix = weights.new_zeros(len(start), size, length)
    return matrix.scatter_add_(2, (taps + start[:, None, None]).clamp(max=length - 1), weights)


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' cubic convolution kernel (1981) at distances of 0 to 2 pixels."""
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance**2 + 1
    far = CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)
