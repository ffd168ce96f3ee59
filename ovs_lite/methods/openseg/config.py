"""Settings of OpenSeg, and of its mask proposals alone: the miniature's, a handful of steps, and the paper's."""

from dataclasses import dataclass, field, replace

from ovs_lite.config import RANDOM, SHIPPED, LoopConfig, check_choices
from ovs_lite.data.captions import ALL, KINDS
from ovs_lite.data.tagging import TAGGERS
from ovs_lite.methods.proposer import LITE_TRUNK, ProposalConfig
from ovs_lite.regions.pooling import POOLINGS

STARTS = ("clip", "backbone", RANDOM)
TOWERS = ".safetensors"  # ending of files that `ovs-lite train clip` writes


@dataclass(frozen=True)
class OpenSegConfig(ProposalConfig):
    """OpenSeg's network and its training; the defaults are the `lite` preset. Raises ValueError for what cannot run."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=60, lr=1e-3, muon_lr=0.01, weight_decay=1e-5, warmup=10, backbone_factor=0.1, precision="auto"
        )
    )
    data: tuple[str, ...] = ("icon-lite/icon-coco/train",)  # prepared splits with masks and captions, mixed equally
    limits: tuple[int, ...] = ()  # only so many records of each data set; none: all
    proposals: str = ""  # weights of openseg-proposals, or shipped: they stay while F_z alone learns; asks for alpha 0
    start: str = "clip"  # CLIP's backbone and its map for F_z, backbone (that alone), random, or a ConvNeXt-Lite's file
    clip: str = "ConvNeXt-Lite"  # whose frozen text tower embeds the words
    pretrained: str = "lite"  # its weights: lite, an open_clip tag, or a file
    templates: str = "bare"  # sentences that a word is put into; bare: none
    alpha: float = 4.0  # Eq. 5: weight of the masks' loss beside the grounding loss; 0: no mask is shown
    keep: float = 0.5  # kp: probability that a word of a caption is kept
    kinds: tuple[str, ...] = ("noun", "adj")  # words that are kept: noun, adj, verb, or all
    compounds: tuple[str, ...] = ("icon-coco",)  # vocabularies whose names of several words are kept together
    tagger: str = "auto"  # parts of speech: shipped, nltk, or nltk where its data is found
    nltk_data: str = ""  # folder to look for NLTK's data in first
    pooling: str = "sum"  # of F_z under a mask: sum, or hard
    sync: bool = True  # contrast images with those of all processes, or with their own process's alone

    @property
    def starts_as_clip(self) -> bool:
        """Whether the network has CLIP's own map to start from."""
        return self.start == "clip" and self.backbone == LITE_TRUNK

    @property
    def tower(self) -> str:
        """The file whose image tower the backbone starts from; none: another start."""
        return self.start if self.start.endswith(TOWERS) else ""

    def __post_init__(self):
        super().__post_init__()
        starts = (*STARTS, self.tower or f"a file *{TOWERS}")
        check_choices(self, start=starts, tagger=TAGGERS, pooling=POOLINGS)
        if not self.kinds or set(self.kinds) - {*KINDS, ALL}:
            raise ValueError(f"got kinds={self.kinds}, expected some of {', '.join(KINDS)}, or {ALL}")
        if self.tower and (self.proposals or self.backbone != LITE_TRUNK):
            given = f"proposals={self.proposals!r}, which bring their backbone" if self.proposals else ""
            given = given or f"backbone={self.backbone!r}"
            raise ValueError(f"got start={self.start!r} and {given}; expected no proposals and {LITE_TRUNK!r}")
        if self.proposals and self.alpha:
            raise ValueError(f"got proposals that stay as they are, and alpha={self.alpha}; expected alpha=0")
        if self.limits and (len(self.limits) != len(self.data) or min(self.limits) < 1):
            raise ValueError(f"got limits={self.limits} for {len(self.data)} data sets, expected one, >= 1, of each")
        if self.alpha < 0 or not 0 <= self.keep <= 1:
            raise ValueError(f"got alpha={self.alpha}, keep={self.keep}, expected 0 or more, and 0..1")
        if not self.data or self.batch % len(self.data):
            given = f"got batch={self.batch} for {len(self.data)} data sets"
            raise ValueError(f"{given}, expected at least one, and a batch that they share equally")


# Section 4.1. Not in the paper: heads, layers, clipping, warm-up, and the optimiser (ours is AdamW). ALIGN's
# weights are not public; EfficientNet-B7 from NoisyStudent is the paper's nearest (its Table 3; there lr 0.08).
PAPER = {
    "loop": LoopConfig(steps=30_000, lr=0.005, muon_lr=0.0, weight_decay=1e-5, warmup=500),
    "batch": 1024, "image_size": 640, "rescale": (0.8, 1.2),
    "backbone": "tf_efficientnet_b7.ns_jft_in1k", "backbone_pretrained": True,
    "channels": 640, "queries": 128, "layers": 6, "heads": 8,
}  # fmt: skip
MASKS_ALONE = ProposalConfig()
PROPOSAL_PRESETS = {
    "smoke": replace(MASKS_ALONE, loop=replace(MASKS_ALONE.loop, steps=4), batch=4, data="icon-smoke/icon-coco/train"),
    "lite": MASKS_ALONE,
    "paper": ProposalConfig(data="coco-panoptic/train", **PAPER),
}
LITE = OpenSegConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=4), batch=4, data=("icon-smoke/icon-coco/train",)),
    "lite": LITE,
    # The released model reads words with CLIP's ViT-L/14; sync off, as in most of the paper's rows (16 images
    # per core: that needs 64 processes; fewer compare more).
    "paper": OpenSegConfig(
        data=("coco-panoptic/train",),
        compounds=(),
        start="backbone",
        clip="ViT-L-14-336",
        pretrained="openai",
        sync=False,
        **PAPER,
    ),
}
# Rows of Table 5 (which words), section 3.3 (pictures that have captions only) and 3.2 (alpha 0). What is compared has
# the same steps, and the first three rows the same frozen masks; the others learn masks and words, from CLIP's map.
_WORDS = {"proposals": SHIPPED, "alpha": 0.0, "rescale": (1.0, 1.0), "lr": 3e-4, "ema": 0.99, "backbone_factor": 0.0}
_WORDS |= {"steps": 1600, "limits": (150,)}
_TOGETHER = {"steps": 600, "backbone_factor": 0.0}
_CAPTIONS = ("icon-lite/icon-coco/train", "icon-lite/icon-caption/train")
ABLATIONS = {
    "OpenSeg": _WORDS,
    "with captions": _WORDS | {"data": _CAPTIONS, "limits": (150, 825)},  # 1 to 5.5, as in the paper
    "all words": _WORDS | {"kinds": (ALL,)},
    "masks shown": _TOGETHER,
    "no masks shown": _TOGETHER | {"alpha": 0.0},
}
PROPOSAL_SOURCES = {
    "section 4.1, training parameters": "image_size rescale weight_decay schedule steps batch",
    "section 4.1, for ALIGN's weights (section 4.4 tuned 0.08 for NoisyStudent's; not tried here with AdamW)": "lr",
    "section 4.1, architecture; Table 3 for NoisyStudent, as ALIGN's weights are not public": "backbone "
    "backbone_pretrained",
    "section 4.1, architecture": "channels",
    "Table 1": "queries",
    "section 4.1, COCO (its panoptic segments and captions)": "data",
    "section 3.1 (class-agnostic segments)": "per",
    "ours: the paper names one rate": "backbone_factor",
    "ours: in appendices that are not public": "layers heads grad_norm warmup",
    "ours: AdamW on everything; the paper does not name its optimiser": "muon_lr ema accumulation",
    "ours: single precision; the paper ran on TPUs": "precision",
    "ours, of no effect on what is learned": "seed recompute compile checkpoint_every log_every",
}
SOURCES = PROPOSAL_SOURCES | {
    "section 4.1, kp": "keep",
    "section 4.1 (each core compares its own 16 images: 64 processes); sync for rows of Table 2, section 4.3": "sync",
    "section 3.2, region features": "pooling",
    "section 3.2 and Table 5": "kinds",
    "slides, 4 : 1 (the paper does not give alpha)": "alpha",
    "section 4.1 (a trained backbone; its text tower is frozen)": "start",
    "released model: words by CLIP's ViT-L/14 at 336 pixels instead of ALIGN's BERT": "clip pretrained",
    "released notebook: names as they are": "templates",
    "section 3.2 (single words)": "compounds",
    "section 4.1 (all images; masks are learned with the words)": "limits proposals",
    "ours: the paper does not name its tagger": "tagger nltk_data",
}
