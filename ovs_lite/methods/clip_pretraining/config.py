"""Settings of the contrastive pre-training of the miniature CLIPs."""

from dataclasses import dataclass, replace

from ovs_lite.clip.lite.files import LITE_MODELS
from ovs_lite.config import RANDOM, LoopConfig, check_choices, check_least
from ovs_lite.iconworld.atlas import STYLES, TRAINING_STYLES

OWN, OWN_NUMBER = "own", -1
# What `own` stands for: the shipped ConvNet goes on from its weights; the class token starts from scratch in the joint
# space of the trained ConvNet, which it imitates.
OWN_SETTINGS = {
    "ConvNeXt-Lite": {
        "initial": "lite", "text": "", "teacher": "", "freeze": "", "curriculum": "objects",
        "closed_blocks": 0,
    },
    "ViT-Lite-8": {
        "initial": RANDOM, "text": "ConvNeXt-Lite", "teacher": "ConvNeXt-Lite", "freeze": "text",
        "curriculum": "scenes", "closed_blocks": 5,
    },
}  # fmt: skip
CURRICULA = ("objects", "scenes", "labels")
LOOP = LoopConfig(steps=6000, lr=1e-3, muon_lr=0.01, warmup=50, ema=0.998, checkpoint_every=200)


@dataclass(frozen=True)
class ClipPretrainingConfig:
    """One training run of a miniature CLIP on IconWorld's captions. Raises ValueError for values that cannot run."""

    loop: LoopConfig = LOOP
    model: str = "ViT-Lite-8"  # ViT-Lite-8 or ConvNeXt-Lite
    batch: int = 96  # pairs per step, of all processes
    initial: str = OWN  # weights to start from: a file, lite for the shipped ones, random, or the model's own recipe
    text: str = OWN  # text tower to start from instead: a shipped model's name, random, or the model's own recipe
    teacher: str = OWN  # shipped model whose embeddings of whole images are imitated too, or the model's own recipe
    freeze: str = OWN  # tower that is not trained: text or image, or the model's own recipe
    curriculum: str = OWN  # objects: single ones first; scenes: several; labels: single, named; or the model's own
    closed_blocks: int = OWN_NUMBER  # first blocks in which a ViT's class token reads late; -1: the model's own recipe
    styles: tuple[str, ...] = TRAINING_STYLES  # of drawing
    draw_on: str = "cpu"  # device that draws the images, such as cuda

    def __post_init__(self):
        texts, frozen = ("", OWN, RANDOM, *LITE_MODELS), ("", OWN, "text", "image")
        check_choices(self, model=LITE_MODELS, teacher=("", OWN, *LITE_MODELS), freeze=frozen, text=texts)
        check_choices(self, curriculum=(OWN, *CURRICULA))
        if not self.styles or set(self.styles) - set(STYLES):
            raise ValueError(f"got styles={self.styles}, expected some of {', '.join(STYLES)}")
        if self.closed_blocks > 0 and not OWN_SETTINGS[self.model]["closed_blocks"]:
            raise ValueError(f"got closed_blocks={self.closed_blocks} for {self.model}, which has no class token")
        if self.closed_blocks < OWN_NUMBER:
            raise ValueError(f"got closed_blocks={self.closed_blocks}, expected 0 or more, or -1 for the model's own")
        check_least(self, 1, "batch")

    def resolved(self) -> "ClipPretrainingConfig":
        """With what `own` stands for. Weights that were given bring their own text tower."""
        own = OWN_SETTINGS[self.model]
        if self.initial != OWN:
            own = own | {"text": ""}
        return replace(self, **{k: value for k, value in own.items() if getattr(self, k) in (OWN, OWN_NUMBER)})


LITE = ClipPretrainingConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LOOP, steps=4, warmup=1, ema=0.0), batch=16),
    "lite": LITE,
    "paper": LITE,  # the papers' CLIPs are open_clip's, trained on 400 million pairs: nothing here to reproduce
}
