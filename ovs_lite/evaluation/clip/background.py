"""What is a thing's background worth to a CLIP? The same things in the same images, with it and without.

OVSeg's bottleneck (its section 1 and A.1): CLIP names a thing in a natural image, and no longer once the background is
blank. Where that comes from can be asked of a made world: from company that tells, and from things that are small,
blurred or hidden. n things, H W pixels.
"""

from dataclasses import replace

import torch

from ovs_lite.clip import Clip
from ovs_lite.clip.crops import masked_crops
from ovs_lite.evaluation.clip.held_out import EVERY_NOUN, SINGLE, held_out_scenes
from ovs_lite.iconworld.nouns import load_nouns

MIN_PIXELS = 12  # a thing of fewer visible pixels is left out, at CLIP's own side
HARD = replace(SINGLE, hard=1.0)
CONDITIONS = {
    "in company": HARD,
    "strange company": replace(HARD, company=1.0, odd=True),
    "large and sharp": SINGLE,
}
VIEWS = ("natural", "background blanked", "masked crop", "unmasked crop")


@torch.no_grad()
def background_hits(clip: Clip, scenes: int, condition: str = "in company", seed: int = 0) -> dict[str, torch.Tensor]:
    """Top-1 among all nouns for each of VIEWS: (n,) bool each, of the same n things in images of one thing.

    condition: a key of CONDITIONS. Blank is the mean colour, as OVSeg masks.
    """
    texts = clip.text_embeddings([load_nouns()[i].noun for i in EVERY_NOUN])
    hits: dict[str, list[torch.Tensor]] = {view: [] for view in VIEWS}
    for scene, rendering in held_out_scenes(CONDITIONS[condition], scenes, clip.image_size, seed, condition):
        masks = (rendering.ids == scene.stuff_ids.shape[1] + 1).to(clip.device)
        kept = (masks.flatten(1).sum(1) >= MIN_PIXELS).nonzero()[:, 0]
        if len(kept) == 0:
            continue
        images = clip.normalise(rendering.images.to(clip.device))[kept]
        masks, nouns = masks[kept], scene.noun_ids[kept.cpu(), 0].to(clip.device)
        crops = [_crops(images, masks, clip.image_size, masked) for masked in (True, False)]
        for view, shown in zip(VIEWS, (images, images * masks[:, None], *crops), strict=True):
            similarity = clip.encode_image(shown) @ texts.T
            hits[view].append((similarity.argmax(1) == nouns).cpu())
    return {view: torch.cat(some) if some else torch.zeros(0, dtype=torch.bool) for view, some in hits.items()}


def _crops(images: torch.Tensor, masks: torch.Tensor, size: int, masked: bool) -> torch.Tensor:
    pairs = zip(images, masks[:, None], strict=True)
    return torch.cat([masked_crops(image, mask, size, masked) for image, mask in pairs])
