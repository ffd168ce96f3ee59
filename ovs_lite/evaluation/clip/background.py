"""What is a thing's background worth to a CLIP? The same things in the same images, with it and without.

OVSeg's bottleneck (its section 1 and A.1): CLIP names a thing in a natural image, and no longer once the background is
blank. Where that comes from can be asked of a made world: from company that tells, and from things that are small,
blurred or hidden. n things, H W pixels.
"""

from dataclasses import replace

import torch

from ovs_lite.clip import Clip
from ovs_lite.clip.crops import cropped_masks, masked_crops
from ovs_lite.evaluation.clip.held_out import EVERY_NOUN, SINGLE, held_out_scenes
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.textures import STUFF_NAMES

MIN_PIXELS = 12  # a thing of fewer visible pixels is left out, at CLIP's own side
HARD = replace(SINGLE, hard=1.0)
CONDITIONS = {
    "in company": HARD,
    "strange company": replace(HARD, company=1.0, odd=True),
    "large and sharp": SINGLE,
}  # of the card
NO_COMPANY = "large and sharp, no company"
_STYLES = CONDITIONS | {NO_COMPANY: replace(SINGLE, company=0.0)}
VIEWS = ("natural", "background blanked", "masked crop", "unmasked crop")


@torch.no_grad()
def background_views(
    clip: Clip, scenes: int, condition: str = "in company", seed: int = 0
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Nouns of n things (n,), places in `EVERY_NOUN`, and each of VIEWS of them as (n, D) of unit length.

    condition: a key of CONDITIONS, or NO_COMPANY. An image holds one thing. Blank is the mean colour, as OVSeg masks. A
    CLIP with mask prompts sees them in the blanked views.
    """
    nouns = [torch.zeros(0, dtype=torch.long)]
    views: dict[str, list[torch.Tensor]] = {view: [] for view in VIEWS}
    for scene, rendering in held_out_scenes(_STYLES[condition], scenes, clip.image_size, seed, condition):
        masks = (rendering.ids == scene.stuff_ids.shape[1] + 1).to(clip.device)
        kept = (masks.flatten(1).sum(1) >= MIN_PIXELS).nonzero()[:, 0]
        if len(kept) == 0:
            continue
        images = clip.normalise(rendering.images.to(clip.device))[kept]
        masks = masks[kept]
        found = [
            clip.encode_image(images),
            clip.encode_masked(images * masks[:, None], masks),
            *(_crops(clip, images, masks, masked) for masked in (True, False)),
        ]
        nouns.append(scene.noun_ids[kept.cpu(), 0])
        for some, embeddings in zip(views.values(), found, strict=True):
            some.append(embeddings.float().cpu())
    return torch.cat(nouns), {view: torch.cat(some) if some else torch.zeros(0, 0) for view, some in views.items()}


@torch.no_grad()
def named_right(
    clip: Clip, nouns: torch.Tensor, views: dict[str, torch.Tensor], stuff: bool = False
) -> dict[str, torch.Tensor]:
    """Top-1 among all nouns of what `background_views` saw: (n,) bool for each view.

    stuff: whether kinds of stuff compete, too; a thing on blank ground may be taken for one.
    """
    if len(nouns) == 0:
        return {view: torch.zeros(0, dtype=torch.bool) for view in views}
    names = [load_nouns()[i].noun for i in EVERY_NOUN]
    texts = clip.text_embeddings([*names, *(kind for kind in STUFF_NAMES if stuff and kind not in names)])
    texts = texts.float().cpu()
    return {view: (embeddings @ texts.T).argmax(1) == nouns for view, embeddings in views.items()}


def background_hits(
    clip: Clip, scenes: int, condition: str = "in company", seed: int = 0, stuff: bool = False
) -> dict[str, torch.Tensor]:
    """`named_right` of `background_views`: (n,) bool for each of VIEWS, of the same n things."""
    return named_right(clip, *background_views(clip, scenes, condition, seed), stuff)


def _crops(clip: Clip, images: torch.Tensor, masks: torch.Tensor, masked: bool) -> torch.Tensor:
    """Embeddings of the crops of one region of each image."""
    size, pairs = clip.image_size, zip(images, masks[:, None], strict=True)
    crops = torch.cat([masked_crops(image, mask, size, masked) for image, mask in pairs])
    return clip.encode_masked(crops, cropped_masks(masks, size)) if masked else clip.encode_image(crops)
