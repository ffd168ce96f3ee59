"""Settings of Uni-OVSeg's promptable segmenter: the miniature's, a handful of steps, and the paper's."""

from dataclasses import dataclass, field, replace

from ovs_lite.config import LoopConfig, check_choices, check_least
from ovs_lite.losses.prompted_masks import MATCHINGS
from ovs_lite.methods.proposer import MaskConfig
from ovs_lite.models.positions import POSITIONS

QUALITIES = ("matched", "all")


@dataclass(frozen=True)
class PromptConfig(MaskConfig):
    """The promptable segmenter and its training; the defaults are the `lite` preset. Raises ValueError for what cannot
    be."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=600, lr=1e-3, muon_lr=0.01, weight_decay=0.01, warmup=20, backbone_factor=0.0
        )
    )
    data: str = "icon-lite/icon-sa/train"  # prepared split with masks: a folder, or one below data/
    batch: int = 8  # images per step, of all processes
    layers: int = 3  # of the mask decoder
    pixel_layers: int = 2  # of the deformable encoder; 0: the feature pyramid alone
    sampled: int = 4  # places that a query of that encoder reads in each level and head
    granularities: int = 4  # masks per point
    positions: str = "sine"  # encoding of places: sine (paper), or fourier (released model)
    point_side: float = 4 / 1024  # of the box that a point becomes, as a share of the image's side
    points: int = 24  # points per training image
    boxes: int = 12  # boxes per training image
    jitter: float = 0.05  # how far a box's edge is moved at the most, as a share of the box
    areas: tuple[float, float] = (0.004, 0.8)  # masks outside are not asked for, as shares of the training image
    most_masks: int = 40  # of a training image; of more, as many at random
    matching: str = "many-to-many"  # of a point's masks and targets: many-to-many, one-to-one, or best-of-k
    positive: float = 0.7  # IoU from which many-to-many also matches; above 1: never
    num_points: int = 384  # points per mask that the mask losses sample; 0: all pixels
    quality_weight: float = 1.0  # of the loss of the predicted IoU: 1 in the released settings; the paper has none, 0
    quality_of: str = "all"  # whose IoU is learned: matched predictions, or all whose prompt has a target
    grid: int = 20  # points per side of the grid that `propose` asks
    duplicate: float = 0.5  # `propose` leaves out a mask whose IoU with a better one is at least this; above 1: none
    contained: float = 0.7  # or that lies in a better one with at least this share of its area; above 1: none

    def __post_init__(self):
        super().__post_init__()
        check_choices(self, positions=POSITIONS, matching=MATCHINGS, quality_of=QUALITIES)
        check_least(self, 1, "granularities", "sampled", "grid", "most_masks")
        if self.points + self.boxes < 1:
            raise ValueError(f"got points={self.points} and boxes={self.boxes}, expected 1 or more of them together")
        check_least(self, 0, "points", "boxes", "pixel_layers", "num_points", "jitter", "quality_weight")
        check_least(self, 0, "positive", "duplicate", "contained")
        if not 0 <= self.areas[0] < self.areas[1]:
            raise ValueError(f"got areas={self.areas}, expected a range of shares of the image")
        if not 0 < self.point_side < 1:
            raise ValueError(f"got point_side={self.point_side}, expected a share of the side between 0 and 1")


LITE = PromptConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=4), batch=4, data="icon-smoke/icon-sa/train", grid=6),
    "lite": LITE,
    # Section 4.1 and appendix A; the released settings where the paper is silent (scale, clipping, points, areas, the
    # quality's weight). Not public: how many prompts an image has in training; 10 x 10 points is the released grid.
    "paper": PromptConfig(
        loop=LoopConfig(
            steps=60_000, lr=1e-4, muon_lr=0.0, weight_decay=0.05, schedule="step", warmup=10, grad_norm=1.0,
            backbone_factor=0.0, precision="bf16",
        ),
        data="sa1b/train", batch=56, image_size=1024,
        backbone="convnext_large_mlp.clip_laion2b_ft_soup_320", backbone_pretrained=True,
        channels=256, layers=6, heads=8, pixel_layers=6, points=100, boxes=40, areas=(1e-3, 0.8),
        num_points=12_544,
    ),
}  # fmt: skip
SOURCES = {
    "section 4.1": "steps schedule batch",
    "section 4.1, its variant by the released lib/models": "backbone backbone_pretrained",
    "section 4.1 (a random 30 % of SA-1B; here all that was prepared)": "data",
    "section 3.3 (a point's predictions and all masks that hold it)": "matching",
    "section 4.1, its numbers by the released Base.yaml (110,000 steps there)": "lr weight_decay image_size",
    "appendix A": "channels layers pixel_layers positions",
    "released Base.yaml": "warmup grad_norm rescale areas",
    "released lib/utils/config.py": "most_masks num_points positive quality_weight",
    "released Base.yaml (10 x 10 points in training, 20 x 20 in tests)": "points grid",
    "released lib/models (frozen backbone)": "backbone_factor",
    "released lib/models (8 heads, 4 masks of a point, a point is a box of 4 pixels of 1024)": "heads granularities "
    "point_side",
    "ours: Mask2Former's usual number, whose recipe section 4.1 follows; not looked up": "sampled",
    "released post-processing": "duplicate contained",
    "ours: bf16; the released settings say AMP, the demo runs in bf16": "precision",
    "section 3 (SA-1B's masks as they are)": "per",
    "ours: not public (a box for each of the 40 masks)": "boxes jitter quality_of",
    "ours: AdamW on everything, as in the paper, is muon_lr 0": "muon_lr ema accumulation",
    "ours, of no effect on what is learned": "seed recompute compile checkpoint_every log_every",
}
