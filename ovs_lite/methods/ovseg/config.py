"""Settings of OVSeg: how its CLIP is adapted to masked crops, and what two-stage inference does with both parts."""

from dataclasses import dataclass, field, replace

from ovs_lite.config import SHIPPED, LoopConfig, check_choices, check_least

TUNED = ("prompts", "tower", "both")
REPEATED = ("negatives", "equal", "ignored")


@dataclass(frozen=True)
class OVSegConfig:
    """The adaptation of a CLIP to masked crops; the defaults are the `lite` preset. Raises ValueError for what cannot
    run."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=300, lr=0.005, muon_lr=0.0, weight_decay=0.0, warmup=20)
    )
    data: str = "icon-lite/pairs/train"  # pairs that `ovs-lite mine` wrote: a folder, or one below data/
    start: str = ""  # weights of ovseg whose CLIP is adapted further; none: the CLIP below
    clip: str = "ViT-Lite-8"  # which CLIP is adapted
    pretrained: str = "lite"  # its weights: lite, an open_clip tag, or a file
    segmenter: str = SHIPPED  # proposals that join it in the file: weights of maskformer, or shipped
    tune: str = "prompts"  # what learns: prompts, tower (of images), or both
    depth: int = 3  # layers with mask prompts; 0: none
    prompt_std: float = 0.02  # standard deviation of new prompts; 0: the first layer starts as CLIP's own blank patches
    last: bool = False  # prompts before the last block, too, that its class token hardly reads at the start; ours
    repeated: str = "negatives"  # other regions with the same word: negatives (as released), equal, or ignored
    templates: str = "bare"  # sentences that a word is put into; bare: none
    threshold: float = 0.5  # where inference cuts masks for CLIP's crops
    smallest: int = 1  # pixels that a proposal has at the least, to be shown to CLIP
    batch: int = 64  # regions per step, of all processes
    cut: float = 0.1  # share of a crop's area that is cut off at the most, at random
    margin: float = 0.0  # largest blank margin of half of the crops, as a share of their sides; 0, as released: none

    def __post_init__(self):
        check_choices(self, tune=TUNED, repeated=REPEATED)
        check_least(self, 1, "batch")
        check_least(self, 0, "depth", "margin", "prompt_std")
        if not 0 <= self.cut < 1:
            raise ValueError(f"got cut={self.cut}, expected a share in [0, 1)")
        if not 0 <= self.threshold <= 1 or self.smallest < 1:
            given = f"threshold={self.threshold}, smallest={self.smallest}"
            raise ValueError(f"got {given}, expected 0..1, and at least one pixel")
        if self.depth == 0 and not self.last and self.tune != "tower":
            raise ValueError(f"got depth=0 with tune={self.tune!r}, expected tune=tower: there is no prompt to learn")


LITE = OVSegConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=4), batch=4, data="icon-smoke/pairs/train"),
    "lite": LITE,
    # Section 4.1: 440,000 pairs, 5 epochs, batches of 256; mask prompts with lr 0.02 (released script: 0.05, batches of
    # 128). The fine-tuning before: --tune tower --depth 0 --lr 5e-6 --weight-decay 0.2. Adam's betas and the warm-up of
    # 100 steps as released, and so the threshold: 0.4 with ViT-L/14, 0.5 with ViT-B/16.
    "paper": OVSegConfig(
        loop=LoopConfig(steps=8600, lr=0.02, muon_lr=0.0, weight_decay=0.0, warmup=100, grad_norm=1e9),
        data="coco/pairs/train", clip="ViT-L-14", pretrained="openai", batch=256, threshold=0.4,
    ),
}  # fmt: skip
# Beside the paper's tables: a first layer of prompts that starts as what CLIP makes of a blank patch, so that all it
# does is learned; alone, and with prompts that the class token does not read. Half of the crops have blank margins of
# up to three times their sides, as a small thing on blank ground.
FROM_BLANK = {
    "depth": 1, "prompt_std": 0.0, "margin": 3.0, "batch": 48, "steps": 200, "lr": 0.005,
    "data": "icon-lite/coco-pairs/train",
}  # fmt: skip
ABLATIONS = {"prompts from blank": FROM_BLANK, "blank and unread prompts": FROM_BLANK | {"last": True}}
SOURCES = {
    "section 4.1 (440,000 pairs x 5 epochs / 256, rounded up)": "steps",
    "section 4.1 (lr and batch of the released script: 0.05 and 128)": "lr batch",
    "section 4.1": "weight_decay schedule clip pretrained depth",
    "section 3.2 and 4.1 (pairs of COCO's captions; see `ovs-lite mine`)": "data",
    "section 3.3: prompts alone; --tune tower first for FT, then --start for MPT + FT": "tune start",
    "released open_clip_training: model.py": "prompt_std",
    "released open_clip_training: params.py and train.py": "warmup grad_norm ema accumulation backbone_factor",
    "released open_clip_training: loss.py (equal words are negatives) and data.py (no sentence)": "repeated templates",
    "released open_clip_training: transform.py (crops of 0.9 to 1 of the area, no margin)": "cut margin",
    "released configs of Swin-B and ViT-L/14 (0.5 with ViT-B/16)": "threshold",
    "released adapter.py (only empty masks are dropped)": "smallest",
    "ours: AdamW on everything, as in the paper, is muon_lr 0": "muon_lr",
    "ours: single precision; released in mixed precision": "precision",
    "ours, off: prompts that the class token does not read": "last",
    "ours: the shipped proposals; give those of `ovs-lite train maskformer --profile paper`": "segmenter",
    "ours, of no effect on what is learned": "seed recompute compile checkpoint_every log_every",
}
