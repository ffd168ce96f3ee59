"""How good is a CLIP on natural images of IconWorld, and how much does it lose without their background?

Every number comes from freshly rendered scenes whose seeds no training run can use. Classification is zero-shot: the
embeddings of the class names, 14 templates, are the classifier (CLIP, Radford et al. 2021, section 3.1). The fall from
unmasked to masked crops of the same objects is OVSeg's bottleneck (its section 1 and A.1).

B images, K names, n answers, D embedding. `..._hits` functions return (n,) bool: which answers were right.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from tqdm.auto import tqdm

from ovs_lite.clip import Clip
from ovs_lite.clip.crops import masked_crops
from ovs_lite.clip.dense import MODES, patch_stride
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.clip.background import CONDITIONS, background_hits
from ovs_lite.evaluation.clip.dense import VOCABULARY, segmentation_scores
from ovs_lite.evaluation.clip.held_out import (
    CHUNK,
    EVERY_NOUN,
    MULTI,
    SINGLE,
    caption_group,
    held_out_scenes,
    object_masks,
)
from ovs_lite.evaluation.clip.naming import EXTRA, dense_naming
from ovs_lite.iconworld.atlas import TRAINING_STYLES, drawable
from ovs_lite.iconworld.caption_grammar import with_article
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES
from ovs_lite.iconworld.textures import STUFF_NAMES

GROUP = 100  # captions that an image has to choose from
UNSEEN = {"Fluent 3D": ("fluent-3d",), "Fluent flat": ("fluent-flat",), "the second font": ("fa",)}
TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class Figure:
    """One line of the card. value, chance: fractions in [0, 1]. count: images, objects or scenes behind it."""

    value: float
    chance: float
    count: int

    @classmethod
    def of(cls, hits: torch.Tensor, choices: int) -> "Figure":
        """Share of right answers among (n,) bool, each a choice of one among `choices`."""
        if len(hits) == 0:
            raise ValueError("got no answer to count, expected at least one; measure more scenes")
        return cls(float(hits.double().mean()), 1 / choices, len(hits))


def top1(similarity: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(B, K) similarities, (B,) int64 columns of the right ones -> (B,) bool on the CPU: is the right one the best?

    Ties count as wrong, so a model that answers the same to everything scores nothing.
    """
    right = similarity.gather(1, truth.to(similarity.device)[:, None])
    return ((similarity >= right).sum(1) == 1).cpu()


def drawable_nouns(styles: tuple[str, ...], noun_ids: tuple[int, ...] = EVERY_NOUN) -> tuple[int, ...]:
    """Those nouns that some of the styles draw."""
    can = drawable(styles)
    return tuple(noun for noun in noun_ids if can[noun])


def vocabulary_nouns() -> tuple[int, ...]:
    """Ids of the nouns that VOCABULARY names."""
    names = set(load_vocabulary(VOCABULARY).names)
    return tuple(i for i, noun in enumerate(load_nouns()) if noun.noun in names)


@torch.no_grad()
def noun_hits(
    clip: Clip, noun_ids: tuple[int, ...], scenes: int, seed: int = 0, styles: tuple[str, ...] = TRAINING_STYLES
) -> torch.Tensor:
    """Top-1 among the names of `noun_ids` on images of one object each, drawn in the styles. (scenes,) bool."""
    if not noun_ids:
        raise ValueError("got no noun to choose from, expected at least one")
    style = replace(SINGLE, noun_ids=noun_ids, styles=styles)
    texts = _noun_texts(clip, noun_ids)
    hits = []
    for scene, rendering in held_out_scenes(style, scenes, clip.image_size, seed, "single"):
        images = clip.encode_image(clip.normalise(rendering.images.to(clip.device)))
        columns = [noun_ids.index(noun) for noun in scene.noun_ids[:, 0].tolist()]
        hits.append(top1(images @ texts.T, torch.tensor(columns)))
    return torch.cat(hits)


@torch.no_grad()
def crop_hits(clip: Clip, scenes: int, masked: bool, seed: int = 0) -> torch.Tensor:
    """Top-1 among all nouns on crops of the ground-truth objects of scenes drawn at twice CLIP's side. (n,) bool.

    masked: pixels outside the object are the mean colour, as OVSeg feeds proposals to CLIP (section 3.1); otherwise
    the same boxes keep their background (A.1). One seed gives both the same objects.
    """
    texts = _noun_texts(clip, EVERY_NOUN)
    hits = []
    for scene, rendering in held_out_scenes(MULTI, scenes, 2 * clip.image_size, seed, "crops"):
        whole = clip.normalise(rendering.images.to(clip.device))
        pairs = object_masks(scene, rendering)
        crops = torch.cat(
            [
                masked_crops(one, masks.to(clip.device), clip.image_size, masked)
                for one, (masks, _) in zip(whole, pairs, strict=True)
            ]
        )
        images = torch.cat([clip.encode_image(some) for some in crops.split(CHUNK)])
        hits.append(top1(images @ texts.T, torch.cat([nouns for _, nouns in pairs])))
    return torch.cat(hits)


@torch.no_grad()
def colour_hits(clip: Clip, scenes: int, seed: int = 0) -> torch.Tensor:
    """How often "a photo of a red cup" beats the nine other colours, on images of one object each. (n,) bool, of those
    of `scenes` objects that have a named colour."""
    hits = []
    for scene, rendering in held_out_scenes(SINGLE, scenes, clip.image_size, seed, "colour"):
        named = (scene.colour_ids[:, 0] >= 0).nonzero()[:, 0]
        if len(named) == 0:
            continue
        images = clip.encode_image(clip.normalise(rendering.images[named].to(clip.device)))
        nouns = [load_nouns()[i].noun for i in scene.noun_ids[named, 0].tolist()]
        prompts = [f"a photo of {with_article(f'{colour} {noun}')}" for noun in nouns for colour in COLOUR_NAMES]
        texts = _encode_texts(clip, prompts).view(len(nouns), len(COLOUR_NAMES), -1)
        hits.append(top1(torch.einsum("bd,bcd->bc", images, texts), scene.colour_ids[named, 0]))
    return torch.cat(hits) if hits else torch.zeros(0, dtype=torch.bool)


@torch.no_grad()
def retrieval_hits(clip: Clip, rounds: int, seed: int = 0, group: int = GROUP) -> torch.Tensor:
    """Image-to-text retrieval: does a scene find its caption among `group` different ones? (rounds * group,) bool."""
    hits = []
    for number in range(rounds):
        drawn, captions = caption_group(clip.image_size, group, seed, number)
        images = torch.cat([clip.encode_image(clip.normalise(some.to(clip.device))) for some in drawn.split(CHUNK)])
        hits.append(top1(images @ _encode_texts(clip, captions).T, torch.arange(group)))
    return torch.cat(hits) if hits else torch.zeros(0, dtype=torch.bool)


def retrieval_at_1(clip: Clip, rounds: int, seed: int = 0) -> float:
    """Image-to-text R@1 among 100 captions of scenes with several objects, averaged over `rounds` groups."""
    return Figure.of(retrieval_hits(clip, rounds, seed), GROUP).value


def _noun_texts(clip: Clip, noun_ids: tuple[int, ...]) -> torch.Tensor:
    return clip.text_embeddings([load_nouns()[i].noun for i in noun_ids])


def _encode_texts(clip: Clip, prompts: list[str]) -> torch.Tensor:
    parts = range(0, len(prompts), TEXTS_AT_ONCE)
    return torch.cat([clip.encode_text(prompts[i : i + TEXTS_AT_ONCE]) for i in parts])


def _dense_figure(clip: Clip, scenes: int, seed: int) -> Figure:
    found, guessed = segmentation_scores(clip, scenes, seed)
    return Figure(found.miou, guessed.miou, scenes)


def _naming_figures(clip: Clip, scenes: int, seed: int, mode: str) -> dict[str, Figure]:
    found = dense_naming(clip, scenes, mode, seed)
    tower = {"value": "value path", "last": "last layer"}[mode] if clip.patch_size is not None else "dense map"
    more = found.chance / (1 + EXTRA * found.chance)
    return {
        f"thing pixels among those present, {tower}": Figure(found.present, found.chance, scenes),
        f"thing pixels, {EXTRA} names more, {tower}": Figure(found.more, more, scenes),
        f"stuff pixels among {len(STUFF_NAMES)}, {tower}": Figure(found.stuff, 1 / len(STUFF_NAMES), scenes),
    }


def _background_figures(clip: Clip, scenes: int, seed: int, condition: str) -> dict[str, Figure]:
    found = background_hits(clip, scenes, condition, seed)
    return {f"{condition}: {view}": Figure.of(hits, len(EVERY_NOUN)) for view, hits in found.items()}


def _figures(clip: Clip, scenes: int, seed: int) -> list[Callable[[], dict[str, Figure]]]:
    """How to measure the lines of the card, in its order. A tower without dense embeddings lacks the last ones."""

    def share(name: str, hits: Callable[..., torch.Tensor], choices: int, *args, **options):
        return lambda: {name: Figure.of(hits(clip, *args, seed=seed, **options), choices)}

    every, some = len(EVERY_NOUN), vocabulary_nouns()
    half, rounds = max(1, scenes // 2), max(1, scenes // GROUP)
    figures = [
        share(f"top-1 of {every} nouns", noun_hits, every, EVERY_NOUN, scenes),
        share(f"top-1 of the {len(some)} nouns of {VOCABULARY}", noun_hits, len(some), some, scenes),
    ]
    for name, styles in UNSEEN.items():
        nouns = drawable_nouns(styles)
        label = f"top-1 of {len(nouns)} nouns, {name}"
        figures.append(share(label, noun_hits, len(nouns), nouns, scenes, styles=styles))
    figures += [
        share(f"top-1 of {every} nouns, unmasked crops of scenes", crop_hits, every, half, masked=False),
        share(f"top-1 of {every} nouns, masked crops of scenes", crop_hits, every, half, masked=True),
        share(f"colour word among {len(COLOUR_NAMES)}", colour_hits, len(COLOUR_NAMES), scenes),
        share(f"retrieval R@1 among {GROUP}", retrieval_hits, GROUP, rounds, group=GROUP),
        *(partial(_background_figures, clip, scenes, seed, condition) for condition in CONDITIONS),
    ]
    try:
        patch_stride(clip.network.visual)
    except ValueError as error:
        warnings.warn(f"{clip.name} is not measured on {VOCABULARY}: {error}", stacklevel=2)
        return figures
    tower, modes = ("MaskCLIP", MODES) if clip.patch_size is not None else ("last feature map", MODES[:1])
    figures += [partial(_naming_figures, clip, max(1, scenes // 5), seed, mode) for mode in modes]
    return [*figures, lambda: {f"mIoU on {VOCABULARY}, {tower}": _dense_figure(clip, half, seed)}]


def measure(clip: Clip, scenes: int = 1000, seed: int = 0, progress: bool = True) -> dict[str, Figure]:
    """All figures of the card. scenes: images behind the first ones; the slower ones take half as many or a fifth.

    Warns where a tower has no dense embeddings, and leaves those figures out.
    """
    if scenes < 1:
        raise ValueError(f"got {scenes} scenes, expected at least 1")
    bar = tqdm(_figures(clip, scenes, seed), desc=clip.name, unit="figure", disable=not progress)
    return {name: figure for part in bar for name, figure in part().items()}
