"""How good is a CLIP on natural pictures of IconWorld, and how much does it lose on masked crops?

Every number comes from freshly rendered scenes that no training saw (another seed). Classification is zero-shot: the
embeddings of the class names, 14 templates, are the classifier (CLIP, Radford et al. 2021, section 3.1).
"""

import argparse
import random
from dataclasses import replace

import torch

from ovs_lite.clip import Clip, load_clip
from ovs_lite.data.iconworld.atlas import glyph_atlas
from ovs_lite.data.iconworld.captions import captions_for, scene_contents, with_article
from ovs_lite.data.iconworld.nouns import load_nouns
from ovs_lite.data.iconworld.palette import COLOUR_NAMES
from ovs_lite.data.iconworld.render import Rendering, render
from ovs_lite.data.iconworld.scene import SceneBatch, SceneStyle, sample_scenes
from ovs_lite.data.vocabulary import load_vocabulary

HELD_OUT_SEED = 987_654_321
BATCH = 100
SINGLE = SceneStyle(noun_ids=tuple(range(len(load_nouns()))), things=(1, 1), size=(0.75, 1.05))


def held_out(style: SceneStyle, batch: int, size: int) -> tuple[SceneBatch, Rendering]:
    """Batch number `batch` of held-out scenes of a style: BATCH scenes at size x size pixels."""
    generator = torch.Generator().manual_seed(HELD_OUT_SEED + batch)
    scene = sample_scenes(BATCH, style, generator)
    return scene, render(scene, size, generator)


@torch.no_grad()
def noun_accuracy(clip: Clip, noun_ids: tuple[int, ...], images: int, second_font: bool = False, masked: bool = False):
    """Top-1 accuracy over the names of `noun_ids` on single-object pictures.

    masked: everything outside the object is set to the mean colour (0 after normalisation) and the object's tight box
    fills the picture, as OVSeg feeds proposals to CLIP (section 3.1).
    """
    if second_font:
        drawable = glyph_atlas("fa")[1]
        noun_ids = tuple(i for i in noun_ids if drawable[i])
    style = replace(SINGLE, noun_ids=noun_ids, second_font=float(second_font))
    texts = clip.text_embeddings([load_nouns()[i].noun for i in noun_ids])
    position = {noun: k for k, noun in enumerate(noun_ids)}
    right = total = 0
    for batch in range(max(1, images // BATCH)):
        scene, rendering = held_out(style, batch, clip.image_size)
        pictures = clip.normalise(rendering.images.to(clip.device))
        if masked:
            pictures = _object_crops(pictures, rendering.shapes[:, 0].to(clip.device))
        predicted = (clip.encode_image(pictures) @ texts.T).argmax(1).tolist()
        truth = [position[i] for i in scene.noun_ids[:, 0].tolist()]
        right += sum(p == t for p, t in zip(predicted, truth, strict=True))
        total += len(truth)
    return right / total


def _object_crops(pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    size = pictures.shape[-1]
    crops = []
    for picture, mask in zip(pictures * masks[:, None], masks, strict=True):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        crop = picture[None, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        crops.append(torch.nn.functional.interpolate(crop, size=(size, size), mode="bicubic", align_corners=False))
    return torch.cat(crops)


@torch.no_grad()
def colour_accuracy(clip: Clip, images: int) -> float:
    """How often "a photo of a red cat" beats the nine other colours, on single-object pictures."""
    right = total = 0
    for batch in range(max(1, images // BATCH)):
        scene, rendering = held_out(SINGLE, 5_000 + batch, clip.image_size)
        pictures = clip.encode_image(clip.normalise(rendering.images.to(clip.device)))
        nouns = [load_nouns()[i].noun for i in scene.noun_ids[:, 0].tolist()]
        prompts = [f"a photo of {with_article(f'{colour} {noun}')}" for noun in nouns for colour in COLOUR_NAMES]
        texts = clip.encode_text(prompts).view(len(nouns), len(COLOUR_NAMES), -1)
        predicted = torch.einsum("bd,bcd->bc", pictures, texts).argmax(1).cpu()
        right += int((predicted == scene.colour_ids[:, 0]).sum())
        total += len(nouns)
    return right / total


@torch.no_grad()
def retrieval_at_1(clip: Clip, rounds: int) -> float:
    """Image-to-text R@1 among 100 captions of multi-object scenes."""
    style = replace(SINGLE, things=(2, 4), size=(0.70, 1.05))
    hits = 0.0
    for batch in range(rounds):
        scene, rendering = held_out(style, 9_000 + batch, clip.image_size)
        captions = [c[0] for c in captions_for(scene_contents(scene, rendering), random.Random(batch), 1)]
        images = clip.encode_image(clip.normalise(rendering.images.to(clip.device)))
        similarity = images @ clip.encode_text(captions).T
        hits += (similarity.argmax(1) == torch.arange(BATCH, device=similarity.device)).float().mean().item()
    return hits / rounds


def evaluate_clip(clip: Clip, images: int = 1000) -> dict[str, float]:
    """All figures of the model card as fractions, in the card's order. images: pictures per figure."""
    every = SINGLE.noun_ids
    ade = set(load_vocabulary("icon-ade150").names)
    some = tuple(i for i, noun in enumerate(load_nouns()) if noun.noun in ade)
    return {
        f"top-1 of {len(every)} nouns": noun_accuracy(clip, every, images),
        f"top-1 of the {len(some)} nouns of icon-ade150": noun_accuracy(clip, some, images),
        "top-1, second font": noun_accuracy(clip, every, images, second_font=True),
        f"top-1 of {len(every)} nouns, masked crops": noun_accuracy(clip, every, images, masked=True),
        "colour word among 10": colour_accuracy(clip, images // 2),
        "retrieval R@1 among 100": retrieval_at_1(clip, max(1, images // 200)),
    }


def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate clip`."""
    parser = argparse.ArgumentParser(
        "ovs-lite evaluate clip", description=__doc__, epilog="example: ovs-lite evaluate clip --model ViT-Lite-8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", default="ViT-Lite-8", help="ViT-Lite-8, ConvNeXt-Lite or an open_clip name")
    parser.add_argument("--pretrained", default="lite", help="lite, an open_clip tag, or a checkpoint's path")
    parser.add_argument("--images", type=int, default=1000, help="pictures per figure")
    args = parser.parse_args(argv)
    clip = load_clip(args.model, args.pretrained)
    print(f"| {args.model}, {args.images} held-out pictures per figure | % |\n| --- | --- |")
    for name, value in evaluate_clip(clip, args.images).items():
        print(f"| {name} | {100 * value:.1f} |")


if __name__ == "__main__":
    main()
