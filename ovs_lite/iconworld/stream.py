"""An endless stream of (image, caption) batches for contrastive pre-training. No masks and no labels leave it.

Batch t is a function of (seed, t) and the device alone, so a resumed run sees what the uninterrupted one would have
seen. The lead nouns of a batch differ as far as there are nouns.
"""

import random
from dataclasses import dataclass

import torch

from ovs_lite.iconworld.atlas import GLYPHS, TRAINING_STYLES, drawable
from ovs_lite.iconworld.caption_grammar import (
    SceneContent,
    listing_caption,
    scene_contents,
    sentence,
    short_caption,
    stuff_caption,
)
from ovs_lite.iconworld.render import render
from ovs_lite.iconworld.scene import COMPANY, HARD, TURNED, SceneStyle, sample_scenes

# Training renders from seeds below this one, evaluation from it upwards; a CPU generator reads 32 bits of its seed.
FIRST_HELD_OUT_SEED = 2**31


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum: single objects with bare nouns first, whole scenes with sentences later.

    until: last step of the stage (exclusive). things: fewest and most things per image. size: see SceneStyle.
    alone: share of the steps whose images show one thing each, whatever `things` says.
    bare: share of captions that are only a template around the lead noun.
    listing: share of captions that name everything that can be seen; without them nothing tells where a thing is.
    stuff: share of captions that name only the background, as images of landscapes do; the rest are sentences.
    colour: chance of a colour word.
    twins: how many images of a batch share their lead noun; more than 1 makes the colour words matter.
    double: share of the steps with images of twice the side, and a quarter as many: dense inference doubles it too.
    company, hard, turned: see SceneStyle; a tower that meets company before it knows things learns places instead, and
        one that meets every thing in every colour learns nothing from single patches.
    glyphs: whether the styles of glyphs, which have any colour, appear.
    only_glyphs: share of the steps drawn in glyphs alone: among drawings, colour gives most of the answer away.
    """

    until: int
    things: tuple[int, int]
    size: tuple[float, float] = (0.70, 1.05)
    alone: float = 0.0
    bare: float = 0.0
    listing: float = 0.0
    stuff: float = 0.0
    colour: float = 0.5
    twins: int = 1
    double: float = 0.0
    company: float = COMPANY
    hard: float = HARD
    turned: float = TURNED
    glyphs: bool = True
    only_glyphs: float = 0.0


def object_stages(steps: int) -> tuple[Stage, ...]:
    """For a tower that knows shapes: single things and colours first, then scenes of one to four."""
    often = {"twins": 2, "hard": 0.4, "only_glyphs": 0.25}
    return (
        Stage(round(0.3 * steps), (1, 1), (0.70, 1.10), bare=0.80, stuff=0.05, **often),
        Stage(steps, (1, 4), alone=0.6, bare=0.30, listing=0.35, stuff=0.10, double=0.2, **often),
    )


def scene_stages(steps: int) -> tuple[Stage, ...]:
    """For a class token from scratch: single things for a start, then mostly scenes with captions that name everything;
    from single things alone the patches learn nothing about place. Glyphs and turned hues come second, when drawings
    are known; company, and small and hidden things, come last: before a tower knows things it learns places from them.
    """
    easy = {"size": (0.80, 1.10), "stuff": 0.05, "colour": 0.2, "company": 0.0, "hard": 0.0}
    return (
        Stage(round(0.02 * steps), (1, 1), bare=0.90, turned=0.0, glyphs=False, **easy),
        Stage(round(0.30 * steps), (2, 4), alone=0.3, listing=0.95, turned=0.0, glyphs=False, **easy),
        Stage(round(0.55 * steps), (2, 4), alone=0.3, listing=0.95, **easy),
        Stage(steps, (2, 4), alone=0.3, bare=0.05, listing=0.70, stuff=0.10),
    )


def label_stages(steps: int) -> tuple[Stage, ...]:
    """For a tower that is taught by labels, as on ImageNet: one thing in each image, called by its name. No caption
    says what stands beside it, which colour it has, or what it stands on."""
    return (Stage(steps, (1, 1), (0.55, 1.10), bare=1.0, colour=0.0, hard=0.4, only_glyphs=0.25),)


class CaptionStream:
    """step -> (images (B, 3, size, size) RGB in [0, 1] on the device, captions: list of B strings).

    Usual textures only. styles: of drawing; nouns that none of them draws do not appear.
    stages: the last one has no end; default single things, then scenes.
    """

    def __init__(
        self,
        batch_size: int,
        size: int = 64,
        seed: int = 0,
        stages: tuple[Stage, ...] | None = None,
        device: str = "cpu",
        styles: tuple[str, ...] = TRAINING_STYLES,
    ):
        if batch_size < 1:
            raise ValueError(f"got batch_size {batch_size}, expected 1 or more")
        self.batch_size, self.size, self.seed, self.device = batch_size, size, seed, device
        self.styles, self.stages = styles, stages or object_stages(10_000)

    def stage(self, step: int) -> Stage:
        """The curriculum stage of a step; the last one goes on for ever."""
        return next((stage for stage in self.stages if step < stage.until), self.stages[-1])

    def scene_style(self, step: int, things: tuple[int, int]) -> SceneStyle:
        """Which scenes a step draws, with so many things."""
        stage, styles = self.stage(step), self._styles(step)
        nouns = tuple(drawable(styles).nonzero()[:, 0].tolist())
        shares = {name: getattr(stage, name) for name in ("size", "company", "hard", "turned")}
        return SceneStyle(nouns, things=things, repeat=0.15, styles=styles, **shares)

    def _styles(self, step: int) -> tuple[str, ...]:
        stage = self.stage(step)
        glyphs = tuple(style for style in self.styles if style in GLYPHS)
        if glyphs and random.Random(f"glyphs-{self.seed}-{step}").random() < stage.only_glyphs:
            return glyphs
        return self.styles if stage.glyphs else tuple(style for style in self.styles if style not in GLYPHS)

    def shape(self, step: int) -> tuple[int, int]:
        """How many images a step has, and their side in pixels; see Stage.double."""
        if random.Random(f"double-{self.seed}-{step}").random() < self.stage(step).double:
            return max(1, self.batch_size // 4), 2 * self.size
        return self.batch_size, self.size

    def __call__(self, step: int) -> tuple[torch.Tensor, list[str]]:
        stage, (batch, size), rng = self.stage(step), self.shape(step), random.Random(f"{self.seed}-{step}")
        number = (self.seed * 1_000_003 + step) % FIRST_HELD_OUT_SEED
        generator = torch.Generator().manual_seed(number)
        things = (1, 1) if rng.random() < stage.alone else stage.things
        style = self.scene_style(step, things)
        scene = sample_scenes(batch, style, generator, _lead_nouns(batch, style.noun_ids, stage.twins, generator))
        if torch.device(self.device).type != "cpu":
            generator = torch.Generator(self.device).manual_seed(number)
        rendering = render(scene, size, generator)
        captions = [self._caption(content, stage, rng) for content in scene_contents(scene, rendering)]
        return _exposed(rendering.images, generator), captions

    def _caption(self, content: SceneContent, stage: Stage, rng: random.Random) -> str:
        kind = rng.random()
        if kind < stage.stuff:
            return stuff_caption(content, rng)
        if kind < stage.stuff + stage.listing:
            return listing_caption(content, rng, stage.colour)
        if kind < stage.stuff + stage.listing + stage.bare:
            return short_caption(content, rng, stage.colour)
        return sentence(content, rng, stage.colour)


def _lead_nouns(batch: int, noun_ids: tuple[int, ...], twins: int, generator: torch.Generator) -> torch.Tensor:
    """(batch,) nouns, each `twins` times in a row, all different until every noun had its turn."""
    turns = -(-batch // (len(noun_ids) * twins))
    orders = [torch.randperm(len(noun_ids), generator=generator).repeat_interleave(twins) for _ in range(turns)]
    return torch.tensor(noun_ids)[torch.cat(orders)[:batch]]


def _exposed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Photometric jitter: brightness and contrast per image."""
    numbers = torch.rand(len(images), 2, 1, 1, generator=generator, device=images.device)
    brightness, contrast = 0.9 + 0.2 * numbers[:, :1], 0.85 + 0.3 * numbers[:, 1:]
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean * brightness).clamp_(0, 1)
