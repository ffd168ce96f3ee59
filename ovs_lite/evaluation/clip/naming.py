"""Does a CLIP's dense map know where things are? Pixels named right, among few names and among many.

A weaker question than mean IoU, and so a sharper one for a weak map: every pixel of a thing has to choose among the
names of the three or four things of its image, then among these and EXTRA others; every pixel of stuff among all kinds
of stuff. An untouched class-token CLIP answers at chance, its value path (MaskCLIP) does not.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.evaluation.clip.held_out import EVERY_NOUN, MULTI, held_out_scenes
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.textures import STUFF_NAMES

SCENES = replace(MULTI, things=(3, 4), repeat=0.0)
EXTRA = 20  # further names, of things that the image does not show
AT_ONCE = 8


@dataclass(frozen=True)
class Naming:
    """Shares of pixels named right, in [0, 1]. present: things among the image's own. more: things, EXTRA names added.
    stuff: stuff among all kinds. chance: of `present`, as the pixels are spread over the images."""

    present: float
    more: float
    stuff: float
    chance: float


@torch.no_grad()
def dense_naming(clip: Clip, scenes: int, mode: str = "value", seed: int = 0) -> Naming:
    """Over `scenes` held-out scenes at twice CLIP's side. mode: of the dense map, see `Clip.dense`."""
    nouns = clip.text_embeddings([load_nouns()[i].noun for i in EVERY_NOUN])
    stuffs = clip.text_embeddings(list(STUFF_NAMES))
    dice = torch.Generator().manual_seed(seed % 2**32)
    counts = torch.zeros(6, dtype=torch.float64)
    for scene, rendering in held_out_scenes(SCENES, scenes, 2 * clip.image_size, seed, "naming", AT_ONCE):
        maps = F.normalize(clip.dense(clip.normalise(rendering.images.to(clip.device)), mode), dim=1)
        regions = scene.stuff_ids.shape[1]
        for index, ids in enumerate(rendering.ids.to(clip.device)):
            shown = scene.noun_ids[index][scene.thing_valid[index]].to(clip.device)
            others = torch.randperm(len(nouns), generator=dice)[: EXTRA + len(shown)].to(clip.device)
            others = others[~torch.isin(others, shown)][:EXTRA]
            scores = _scores(maps[index], nouns[torch.cat([shown, others])], ids.shape)
            thing, is_thing = ids - regions - 1, ids > regions
            right = (scores[: len(shown)].argmax(0) == thing) & is_thing
            more = (scores.argmax(0) == thing) & is_thing
            stuff = scene.stuff_ids[index].to(clip.device)[(ids - 1).clamp(max=regions - 1)]
            named = (_scores(maps[index], stuffs, ids.shape).argmax(0) == stuff) & ~is_thing
            sums = [
                right.sum(),
                more.sum(),
                is_thing.sum() / len(shown),
                is_thing.sum(),
                named.sum(),
                (~is_thing).sum(),
            ]
            counts += torch.stack([value.double().cpu() for value in sums])
    present, more, guessed, things, named, stuff = counts.tolist()
    return Naming(present / max(things, 1), more / max(things, 1), named / max(stuff, 1), guessed / max(things, 1))


def _scores(features: torch.Tensor, texts: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """(D, h, w) normalised, (K, D) -> (K, H, W) cosines at the image's size."""
    cosines = torch.einsum("dhw,kd->khw", features, texts)
    return F.interpolate(cosines[None], tuple(size), mode="bilinear", align_corners=False)[0]
