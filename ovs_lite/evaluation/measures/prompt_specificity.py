"""Does a more specific text give a better mask? TCL's appendix G (Fig. 10), counted instead of shown.

Images hold two things of one noun in two colours, the case in which "cat" is not enough and "red cat" is. For each of
the two the mask of the noun and the mask of the colour and the noun are compared with the meant thing.
N images, H W pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ovs_lite.evaluation.clip.held_out import EVERY_NOUN, held_out_scenes, object_masks
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES, NO_COLOUR
from ovs_lite.iconworld.scene import SceneStyle
from ovs_lite.matching import pairwise_iou
from ovs_lite.methods import Method

TWINS = SceneStyle(noun_ids=EVERY_NOUN, things=(2, 2), size=(0.8, 1.0), repeat=1.0, hard=0.0)


@dataclass(frozen=True)
class Twins:
    """image: (3, H, W) RGB in [0, 1]. noun: of both things. colours: of the first and the second. masks: (2, H, W)."""

    image: torch.Tensor
    noun: str
    colours: tuple[str, str]
    masks: torch.Tensor


@dataclass(frozen=True)
class Specificity:
    """noun, specific: mean IoU of the masks of "cat" and of "red cat" with the red cat, in [0, 1].

    gains: (N,) specific - noun of each image.
    shares: (N,) how much of the specific masks' mass on both things lies on the meant one, in [0, 1]. The noun's mask,
        one for both, has 0.5: it shares out between the two whatever it has.
    """

    noun: float
    specific: float
    gains: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def images(self) -> int:
        """N."""
        return len(self.gains)

    @property
    def share(self) -> float:
        """The mean of the shares."""
        return float(np.mean(self.shares))


def twin_images(count: int, size: int, seed: int = 0) -> Iterator[Twins]:
    """`count` held-out images with two things of one noun in two colours, both visible."""
    found = 0
    for scene, rendering in held_out_scenes(TWINS, 2**40, size, seed, "twins"):
        for index, (masks, nouns) in enumerate(object_masks(scene, rendering)):
            colours = scene.colour_ids[index, :2].tolist()
            if len(nouns) != 2 or nouns[0] != nouns[1] or colours[0] == colours[1] or NO_COLOUR in colours:
                continue
            names = (COLOUR_NAMES[colours[0]], COLOUR_NAMES[colours[1]])
            yield Twins(rendering.images[index], load_nouns()[int(nouns[0])].noun, names, masks)
            found += 1
            if found == count:
                return


@torch.no_grad()
def prompt_specificity(method: Method, images: Iterator[Twins], threshold: float, **options) -> Specificity:
    """Ask a method for the noun and for both specific texts. threshold: score above which a pixel is in the mask.

    options: the method's own. Raises ValueError without an image.
    """
    rows = [_one(method, twins, threshold, options) for twins in images]
    if not rows:
        raise ValueError("got no image, expected at least one")
    noun, specific, share = np.array(rows).T
    return Specificity(float(noun.mean()), float(specific.mean()), tuple(specific - noun), tuple(share))


def _one(method: Method, twins: Twins, threshold: float, options: dict) -> tuple[float, float, float]:
    texts = [twins.noun, *(f"{colour} {twins.noun}" for colour in twins.colours)]
    embeddings = method.clip.text_embeddings(texts, method.templates)
    scores = method.predict(method.clip.normalise(twins.image[None].to(method.clip.device)), embeddings, **options)[0]
    scores, masks = scores.cpu(), twins.masks
    overlaps = pairwise_iou((scores > threshold).flatten(1), masks.flatten(1))  # (3, 2)
    noun, specific = overlaps[0].mean(), overlaps[1:].diagonal().mean()
    mass = torch.einsum("thw,mhw->tm", scores[1:].clamp(min=0), masks.float())
    share = (mass.diagonal() / mass.sum(1).clamp(min=1e-9)).mean()
    return float(noun), float(specific), float(share)
