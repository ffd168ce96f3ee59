"""TCL's settings (Cha et al., CVPR 2023): the miniature's, a handful of steps, and the released configuration."""

from dataclasses import dataclass, field, replace

from ovs_lite.config import LoopConfig, check_choices, check_least

VARIANTS = ("released", "paper")
TERMS = ("image", "feature", "area", "smooth", "contrastive")


@dataclass(frozen=True)
class TclConfig:
    """TCL's training; the defaults are the `lite` preset. Raises ValueError for values that cannot run."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=60, lr=5e-3, muon_lr=0.0, weight_decay=0.05, warmup=10, grad_norm=5.0, checkpoint_every=500
        )
    )
    clip: str = "ViT-Lite-8"  # the frozen CLIP, an open_clip ViT
    pretrained: str = "lite"  # its weights: lite, an open_clip tag such as openai, or a file
    data: tuple[str, ...] = ("icon-lite/icon-caption/train",)  # a prepared split, shards (*.tar, a::b), or synthetic
    batch: int = 64  # image-text pairs per step, of all processes
    image_size: int = 64  # side of a training image, pixels; inference doubles it
    crop_area: tuple[float, float] = (0.6, 1.0)  # share of the image's area that a random crop keeps
    augment: str = "crop"  # crop, or strong: RandAugment and random erasing as well
    workers: int = 0  # processes that decode images ahead
    image_weight: float = 0.1  # weight of the image-level contrast, Eq. 6 in Eq. 12
    feature_weight: float = 0.1  # weight of the feature-level contrast, Eq. 9
    area_weight: float = 0.4  # weight of the area loss, Eq. 10
    smooth_weight: float = 1.0  # weight of the smoothness loss, Eq. 11
    contrastive_weight: float = 0.0  # weight of plain contrastive learning, the baseline of Table 2
    positive_area: float = 0.4  # Eq. 10: mean area that masks of an image's own text should have
    negative_area: float = 0.0  # Eq. 10: mean area that masks of other texts should have
    unfreeze: float = 0.6  # share of the steps before the copy of CLIP's last block is trained; 1: never
    variant: str = "released"  # pixel embeddings pooled as they are (released) or normalised (paper), Eq. 8 and 11

    def __post_init__(self):
        check_least(self, 1, "image_size", "batch")
        check_choices(self, variant=VARIANTS)
        if not 0 <= self.unfreeze <= 1:
            raise ValueError(f"got unfreeze={self.unfreeze}, expected a share of the steps in [0, 1]")
        if not any(self.weights().values()) or min(self.weights().values()) < 0:
            raise ValueError(f"got weights {self.weights()}, expected none negative, and not all 0")

    def weights(self) -> dict[str, float]:
        """Weight of each loss term, Eq. 12."""
        return {term: getattr(self, f"{term}_weight") for term in TERMS}


LITE = TclConfig()
PRESETS = {
    "smoke": TclConfig(loop=replace(LITE.loop, steps=3), batch=8, data=("icon-smoke/icon-caption/train",)),
    "lite": LITE,
    # The released configuration: 16 processes with 64 pairs of CC3M and CC12M. Not the same here: the cosine ends at
    # 1.5e-6 instead of 1e-5; AdamW has beta 0.98 and eps 1e-8 instead of 0.999 and 1e-6; scalars learn ten times
    # faster, and without weight decay; augmentation is torchvision's RandAugment, not timm's.
    "paper": TclConfig(
        loop=replace(LITE.loop, steps=50_000, lr=7.5e-5, warmup=15_000),
        clip="ViT-B-16", pretrained="openai", data=("downloads/cc3m/*.tar", "downloads/cc12m/*.tar"),
        batch=1024, image_size=224, crop_area=(0.08, 1.0), augment="strong", workers=8,
    ),
}  # fmt: skip
SOURCES = {
    "section 4.1, implementation details": "clip batch steps lr warmup schedule weight_decay image_size data",
    "section 4.1, loss weights": "image_weight feature_weight area_weight smooth_weight",
    "section 3.3, Eq. 12 (no term of plain contrast; it is Table 2's baseline)": "contrastive_weight",
    "appendix B, footnote 2 (30,000 of 50,000 steps)": "unfreeze",
    "section 3.2 (both encoders start from CLIP's weights)": "pretrained",
    "section 3.3, Eq. 10": "positive_area negative_area",
    "released main.py": "grad_norm",
    "released configs/default.yml and timm's training transform": "crop_area augment",
    "released models/tcl (no norm before pooling and smoothness; the paper writes one)": "variant",
    "released: no running average, no accumulation, one rate for all": "ema accumulation backbone_factor",
    "ours: AdamW on everything, as in the paper, is muon_lr 0": "muon_lr",
    "ours: single precision; released in fp16, which asks for a GPU": "precision",
    "ours, of no effect on what is learned": "seed recompute compile checkpoint_every log_every workers",
}
