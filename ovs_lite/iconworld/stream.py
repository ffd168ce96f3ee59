"""An endless stream of (picture, caption) batches for contrastive pre-training. No masks and no labels leave it.

Batch t is a function of (seed, t) alone, so a resumed run sees what the uninterrupted one would have seen. The lead
nouns of a batch all differ; otherwise two captions "a photo of a cat" would be each other's negatives.
"""

import math
import random
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ovs_lite.iconworld.caption_grammar import (
    SceneContent,
    SeenThing,
    scene_contents,
    sentence,
    short_caption,
    stuff_caption,
)
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES, allowed_colours
from ovs_lite.iconworld.render import render
from ovs_lite.iconworld.scene import SceneBatch, SceneStyle, sample_scenes
from ovs_lite.iconworld.textures import STUFF_NAMES

# Training renders from seeds below this one, evaluation from it upwards; a CPU generator reads 32 bits of its seed.
FIRST_HELD_OUT_SEED = 2**31


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum: single objects with bare nouns first, whole scenes with sentences later.

    until: last step of the stage (exclusive). things: fewest and most things per picture. size: see SceneStyle.
    bare: share of captions that are only a template around the lead noun. colour: chance of a colour word.
    twins: how many pictures of a batch share their lead noun; more than 1 makes the colour words matter.
    warp: how far pictures are bent, as a share of their side; a noun is then no longer one rigid outline.
    stroke: how much thicker or thinner lines may become; 1 is a pixel at both edges of a line.
    stuff: share of captions that name only the background, as pictures of landscapes do.
    variants: see SceneStyle.
    double: share of the steps with pictures of twice the side, and a quarter as many: dense inference doubles it too.
    blur: largest deviation of a Gaussian blur, in pixels; half of the pictures stay sharp.
    """

    until: int
    things: tuple[int, int]
    size: tuple[float, float]
    bare: float
    colour: float
    twins: int = 1
    warp: float = 0.0
    stroke: float = 0.0
    blur: float = 0.0
    stuff: float = 0.0
    variants: float = 0.0
    double: float = 0.0


def default_stages(steps: int, alone: float = 0.4) -> tuple[Stage, ...]:
    """Nouns alone for a share `alone` of the run; then with a neighbour, then one noun in two colours, then scenes."""
    ends = [round(steps * (alone + (1 - alone) * third / 3)) for third in range(4)]
    return (
        Stage(ends[0], (1, 1), (0.70, 1.10), 0.95, 0.0),
        Stage(ends[1], (1, 2), (0.70, 1.05), 0.70, 0.4),
        Stage(ends[2], (1, 2), (0.70, 1.05), 0.80, 1.0, twins=2),
        Stage(ends[3], (1, 4), (0.70, 1.05), 0.40, 0.5),
    )


def polish_stages(steps: int) -> tuple[Stage, ...]:
    """The late stages alone, for both towers together: one noun in two colours, then scenes, all with jitter."""
    jitter = {"warp": 0.45, "stroke": 0.8, "blur": 0.7, "stuff": 0.1, "variants": 0.4}
    return (
        Stage(round(0.50 * steps), (1, 2), (0.70, 1.05), 0.70, 0.5, twins=2, **jitter),
        Stage(steps, (1, 4), (0.70, 1.05), 0.40, 0.5, double=0.5, **jitter),
    )


class CaptionStream:
    """step -> (images (B, 3, size, size) RGB in [0, 1], captions: list of B strings). First font, usual style only.

    batch_size: at most the number of nouns, because the lead nouns of a batch all differ (but for a stage's twins).
    """

    def __init__(self, batch_size: int, size: int = 64, seed: int = 0, stages: tuple[Stage, ...] | None = None):
        self.num_nouns = len(load_nouns())
        if not 0 < batch_size <= self.num_nouns:
            raise ValueError(f"got batch_size {batch_size}, expected 1..{self.num_nouns}: the nouns of a batch differ")
        self.batch_size, self.size, self.seed = batch_size, size, seed
        self.stages = stages or default_stages(10_000)
        self.style = SceneStyle(noun_ids=tuple(range(self.num_nouns)), repeat=0.15)

    def stage(self, step: int) -> Stage:
        """The curriculum stage of a step; the last one goes on for ever."""
        return next((stage for stage in self.stages if step < stage.until), self.stages[-1])

    def shape(self, step: int) -> tuple[int, int]:
        """How many pictures a step has, and their side in pixels; see Stage.double."""
        double = self.stage(step).double
        if double > 0 and random.Random(f"double-{self.seed}-{step}").random() < double:
            return max(1, self.batch_size // 4), 2 * self.size
        return self.batch_size, self.size

    def __call__(self, step: int) -> tuple[torch.Tensor, list[str]]:
        stage = self.stage(step)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % FIRST_HELD_OUT_SEED)
        batch, size = self.shape(step)
        lead = torch.randperm(self.num_nouns, generator=generator)[: -(-batch // stage.twins)]
        lead = lead.repeat_interleave(stage.twins)[:batch]
        style = replace(self.style, things=stage.things, size=stage.size, variants=stage.variants)
        scene = sample_scenes(batch, style, generator, lead)
        _part_twins(scene, stage.twins, generator)
        rendering = render(scene, size, generator)
        rng = random.Random(f"{self.seed}-{step}")
        captions = [self._caption(content, stage, rng) for content in scene_contents(scene, rendering)]
        images = rendering.images
        for change, amount in ((_warp, stage.warp), (_restroke, stage.stroke), (_blur, stage.blur)):
            images = images if amount == 0 else change(images, amount, generator)
        return _jitter(images, generator), captions

    def _caption(self, content: SceneContent, stage: Stage, rng: random.Random) -> str:
        if stage.stuff and rng.random() < stage.stuff:  # without it no number is drawn: the same captions as ever
            return stuff_caption(content, rng)
        if rng.random() < stage.bare:
            return short_caption(content, rng, stage.colour)
        return sentence(content, rng, stage.colour)


class CaptionPairStream:
    """step -> two lists of B captions; entry b of both describes the same imagined scene. Nothing is rendered.

    The first thing of every scene of a batch is another noun. The first caption names that thing alone; the second is
    as short half of the time and otherwise a sentence about some of the scene's things, as web captions differ.
    """

    def __init__(self, batch_size: int, seed: int = 0):
        self.nouns = load_nouns()
        self.batch_size, self.seed = min(batch_size, len(self.nouns)), seed

    def __call__(self, step: int) -> tuple[list[str], list[str]]:
        rng = random.Random(f"pairs-{self.seed}-{step}")
        contents = [self._imagine(lead, rng) for lead in rng.sample(self.nouns, self.batch_size)]
        first = [short_caption(content, rng, 0.3) for content in contents]
        second = [short_caption(c, rng, 0.3) if rng.random() < 0.5 else sentence(c, rng) for c in contents]
        return first, second

    def _imagine(self, lead, rng: random.Random) -> SceneContent:
        nouns = [lead, *rng.choices(self.nouns, k=rng.choice((0, 0, 1, 2)))]
        things = tuple(SeenThing(noun, rng.choice(COLOUR_NAMES), rng.random(), rng.random()) for noun in nouns)
        return SceneContent(things, tuple(rng.sample(STUFF_NAMES, 2)))


def _part_twins(scene: SceneBatch, twins: int, generator: torch.Generator) -> None:
    """Give the lead things of twins different colours, in place, as far as their backgrounds allow it."""
    allowed, colours = allowed_colours(scene.stuff_ids, scene.stuff_valid), scene.colour_ids[:, 0]
    for row in range(len(scene)):
        taken = colours[row - row % twins : row]
        if (taken == colours[row]).any():
            free = allowed[row].index_fill(0, taken, False).float()
            if free.any():
                colours[row] = torch.multinomial(free, 1, generator=generator)


def _warp(images: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Geometric jitter: shear, aspect ratio and scale per picture, and a smooth bend; the border is mirrored."""
    batch, side = len(images), images.shape[-1]
    linear = torch.eye(2) + amount * (2 * torch.rand(batch, 2, 2, generator=generator) - 1)
    grid = F.affine_grid(F.pad(linear, (0, 1)), [batch, 1, side, side], align_corners=False)
    bend = amount * (torch.rand(batch, 2, 4, 4, generator=generator) - 0.5)
    bend = F.interpolate(bend, (side, side), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid + bend, padding_mode="reflection", align_corners=False)


def _restroke(images: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Let what is bright, or what is dark, grow by up to `amount` pixels, per picture: thicker or thinner lines."""
    share = amount * (2 * torch.rand(len(images), 1, 1, 1, generator=generator) - 1)
    bright, dark = F.max_pool2d(images, 3, 1, 1), -F.max_pool2d(-images, 3, 1, 1)
    return torch.lerp(images, torch.where(share > 0, bright, dark), share.abs())


def _blur(images: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Blur every second picture, on average, by a deviation of up to `amount` pixels of its own."""
    sigma = amount * (2 * torch.rand(len(images), generator=generator) - 1).clamp(min=0.02)
    reach = math.ceil(2 * amount)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma[:, None]) ** 2)  # (B, taps)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)[:, None, :, None]
    planes = F.pad(images, (reach,) * 4, mode="reflect").flatten(0, 1)[None]  # every plane with its own kernel
    planes = F.conv2d(planes, kernel, groups=planes.shape[1])
    return F.conv2d(planes, kernel.transpose(2, 3), groups=planes.shape[1]).view_as(images)


def _jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Photometric jitter: brightness and contrast per picture, a little sensor noise."""
    batch = len(images)
    brightness = 0.9 + 0.2 * torch.rand(batch, 1, 1, 1, generator=generator)
    contrast = 0.85 + 0.3 * torch.rand(batch, 1, 1, 1, generator=generator)
    mean = images.mean((1, 2, 3), keepdim=True)
    noise = torch.randn(images.shape, generator=generator) * 0.01
    return ((images - mean) * contrast + mean * brightness + noise).clamp_(0, 1)
