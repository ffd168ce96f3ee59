"""Settings of LSeg+: the miniature's, a handful of steps, and OpenSeg's for its own LSeg+."""

from dataclasses import dataclass, field, replace

from ovs_lite.config import LoopConfig, check_least
from ovs_lite.methods.proposer import LITE_TRUNK, check_sides


@dataclass(frozen=True)
class LSegConfig:
    """LSeg+'s network and its training; the defaults are the `lite` preset. Raises ValueError for what cannot run."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=60, lr=1e-3, muon_lr=0.01, weight_decay=1e-5, warmup=10)
    )
    data: str = "icon-lite/icon-coco/train"  # prepared split with classes: a folder, or one below data/
    vocabulary: str = "icon-coco"  # names of its categories
    clip: str = "ConvNeXt-Lite"  # whose frozen text tower embeds these names
    pretrained: str = "lite"  # its weights: lite, an open_clip tag, or a file
    templates: str = "bare"  # sentences that a name is put into; bare: none
    batch: int = 16  # images per step, of all processes
    image_size: int = 128  # side of a training image, a multiple of 32 pixels
    rescale: tuple[float, float] = (0.8, 1.2)  # range of the random rescaling of the image's long side
    backbone: str = LITE_TRUNK  # timm name; convnext_lite starts from the shipped CLIP's image tower
    backbone_pretrained: bool = False  # start from timm's weights (a download)
    channels: int = 64  # of the pyramid

    def __post_init__(self):
        check_least(self, 1, "batch", "image_size", "channels")
        check_sides(self)
        if self.channels % 8:
            raise ValueError(f"got channels={self.channels}, expected a number that 8 divides")


LITE = LSegConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=4), batch=4, data="icon-smoke/icon-coco/train"),
    "lite": LITE,
    # OpenSeg, section 4.1 and 4.3: its own settings, 133 classes of COCO panoptic (the paper counts 134).
    "paper": LSegConfig(
        loop=LoopConfig(steps=30_000, lr=0.005, muon_lr=0.0, weight_decay=1e-5, warmup=500),
        data="coco-panoptic/train", vocabulary="coco-panoptic", clip="ViT-L-14-336", pretrained="openai",
        batch=1024, image_size=640, channels=640,
        backbone="tf_efficientnet_b7.ns_jft_in1k", backbone_pretrained=True,
    ),
}  # fmt: skip
SOURCES = {
    "OpenSeg, section 4.1 and 4.3 (as OpenSeg)": "image_size rescale weight_decay schedule steps batch channels",
    "OpenSeg, section 4.1, for ALIGN's weights (section 4.4 tuned 0.08 for NoisyStudent's; not tried here)": "lr",
    "OpenSeg, section 4.1; Table 3 for NoisyStudent, as ALIGN's weights are not public": "backbone backbone_pretrained",
    "OpenSeg, section 4.3 (COCO's class names; encoder and pyramid are fine-tuned)": "data vocabulary backbone_factor",
    "OpenSeg, released model: names by CLIP's ViT-L/14 at 336 pixels instead of ALIGN's BERT": "clip pretrained",
    "OpenSeg, released notebook: names as they are": "templates",
    "ours: not in the paper": "grad_norm warmup",
    "ours: AdamW on everything; the paper does not name its optimiser": "muon_lr ema accumulation",
    "ours: single precision; the paper ran on TPUs": "precision",
    "ours, of no effect on what is learned": "seed recompute compile checkpoint_every log_every",
}
