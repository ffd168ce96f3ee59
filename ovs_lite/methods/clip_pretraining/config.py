"""Settings of the contrastive pre-training of the miniature CLIPs."""

from dataclasses import dataclass, field, replace

from ovs_lite.clip.lite.files import SHIPPED
from ovs_lite.config import LoopConfig

TEXT = "text"
RANDOM = "random"
CURRICULA = ("from-scratch", "polish", "scenes")


@dataclass(frozen=True)
class ClipPretrainingConfig:
    """One training run of a miniature CLIP on IconWorld's captions. Raises ValueError for values that cannot run."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=8000))
    model: str = "ViT-Lite-8"  # ViT-Lite-8, ConvNeXt-Lite, or text: the text tower that both share, on captions alone
    batch: int = 128  # pairs per step, of all processes; their nouns all differ
    initial: str = ""  # weights of the model to start from: a file, or lite for the shipped ones
    text: str = ""  # text tower to start from instead: text.safetensors of a run, or random
    freeze: str = ""  # tower that is not trained: text or image
    teacher: str = ""  # shipped CLIP whose dense embeddings the image tower imitates, and whose text tower it takes
    curriculum: str = "from-scratch"  # from-scratch: nouns alone first; polish: colours and scenes; scenes: these only
    alone: float = 0.4  # from-scratch: share of the steps with one noun per image
    free_steps: int = 0  # first steps, in which image embeddings are not normalised

    def __post_init__(self):
        known = {
            "model": (TEXT, *SHIPPED),
            "freeze": ("", "text", "image"),
            "teacher": ("", *SHIPPED),
            "curriculum": CURRICULA,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                expected = ", ".join(value or "nothing" for value in values)
                raise ValueError(f"got {name}={getattr(self, name)!r}, expected one of {expected}")
        if self.batch < 1 or not 0 <= self.alone <= 1 or self.free_steps < 0:
            raise ValueError(f"got {self}, expected batch >= 1, alone in [0, 1] and free_steps >= 0")


LITE = ClipPretrainingConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=4), batch=16),
    "lite": LITE,
    "paper": LITE,  # the papers' CLIPs are open_clip's, trained on 400 million pairs: nothing here to reproduce
}
