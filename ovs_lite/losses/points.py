"""Mask losses on sampled points instead of all pixels: the memory of a loss then does not grow with the image.

PointRend (Kirillov et al., CVPR 2020), section 3.1, as in the released code of PointRend and Mask2Former
(`point_sample`, `get_uncertain_point_coords_with_randomness`). M masks, P points, H W pixels. Points are (x, y) in
[0, 1] of the mask's width and height.
"""

import torch
import torch.nn.functional as F

from ovs_lite.tensors import at_least_float32


def sample_points(masks: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values at points: (M, H, W), (M, P, 2) -> (M, P). Outside the image masks are 0, as released.

    So within half a pixel of the border a value fades towards 0, for logits towards a probability of 1/2: to
    `uncertain_points` the border looks uncertain. Half precision, too coarse for positions, is sampled as float32.
    """
    masks = at_least_float32(masks)
    grid = 2 * points[:, None].to(masks.dtype) - 1
    return F.grid_sample(masks[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0, 0]


def pixels_at_points(masks: torch.Tensor, chosen: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The pixel that holds each point: (M, H, W), (R,) places of masks, (R, P, 2) -> (R, P) of the masks' type.

    As `sample_points` of `masks[chosen]`, which is never made, without its interpolation. Points outside are refused by
    no check: they give the nearest pixel of the border.
    """
    height, width = masks.shape[-2:]
    x, y = ((points[..., axis] * side).long().clamp(0, side - 1) for axis, side in enumerate((width, height)))
    return masks[chosen[:, None], y, x]


@torch.no_grad()
def uncertain_points(
    mask_logits: torch.Tensor,
    num_points: int,
    oversample: float = 3.0,
    importance: float = 0.75,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Where the masks are least sure: (M, H, W) logits -> (M, num_points, 2).

    oversample * num_points random candidates; the share `importance` of the result are those with the smallest |logit|,
    the rest are new random points. Raises ValueError for settings that cannot give that many points.
    """
    if num_points < 1 or oversample < 1 or not 0 <= importance <= 1:
        given = f"num_points={num_points}, oversample={oversample}, importance={importance}"
        raise ValueError(f"got {given}, expected at least 1, at least 1, and a share in [0, 1]")
    mask_logits = at_least_float32(mask_logits)
    wanted = int(importance * num_points)
    candidates = _random_points(mask_logits, int(oversample * num_points), generator)
    certainty = sample_points(mask_logits, candidates).abs()
    chosen = certainty.topk(wanted, dim=1, largest=False).indices
    uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, _random_points(mask_logits, num_points - wanted, generator)], 1)


def _random_points(masks: torch.Tensor, number: int, generator: torch.Generator | None) -> torch.Tensor:
    device = masks.device if generator is None else generator.device
    return torch.rand(len(masks), number, 2, generator=generator, device=device).to(masks.device, masks.dtype)
