"""Settings of Uni-OVSeg: which masks it has and how they are aligned with texts, for the miniature, a handful of steps,
and as the paper's."""

from dataclasses import dataclass, field, replace

from ovs_lite.clip.dense import MODES
from ovs_lite.config import SHIPPED, LoopConfig, check_choices, check_least
from ovs_lite.data.entities import PARSERS
from ovs_lite.data.tagging import TAGGERS
from ovs_lite.methods.uniovseg.adapter import ACTIVATIONS

LOSSES = ("contrast", "cosine")
OWN, CLASSICAL, SEGMENTER = "own", "classical", "segmenter"


@dataclass(frozen=True)
class AlignmentConfig:
    """The training of the adapter; the defaults are the `lite` preset. Raises ValueError for what cannot run."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=300, lr=1e-3, muon_lr=0.0, weight_decay=0.0, warmup=10)
    )
    data: str = "icon-lite/icon-caption/train"  # prepared split with captions: a folder, or one below data/
    limit: int = 1000  # only so many records, the first ones; 0: all
    segmenter: str = SHIPPED  # who finds masks and joins the file: weights of uniovseg-masks, or shipped
    masks: str = SEGMENTER  # learned from: segmenter, a file of proposals, own (the split's), or classical
    grid: int = 10  # points per side that ask the segmenter for masks to learn from
    budget: int = 40  # proposals per image at the most, the best first
    clip: str = "ConvNeXt-Lite"  # the frozen CLIP
    pretrained: str = "lite"  # its weights: lite, an open_clip tag, or a file
    mode: str = "last"  # its map: last, or value; see Clip.dense
    short_sides: tuple[int, ...] = (128, 160)  # input sizes in pixels, one for each scale
    rank: int = 8  # of the adapter
    activation: str = "gelu"  # of the adapter: gelu, relu, or none, as in the released code
    loss: str = "contrast"  # cosine: Eq. 8; contrast: also contrasted with the batch's other entities
    threshold: float = 0.2  # least cosine of a confident pair
    parser: str = "nouns"  # who finds the entities of captions: nouns, chunks, or chat
    url: str = "http://localhost:8080/v1"  # of the parser chat: a service with OpenAI's protocol
    chat_model: str = "default"  # of the parser chat: the model's name there
    compounds: tuple[str, ...] = ("icon-coco",)  # of the parser nouns: vocabularies whose names stay together
    tagger: str = "auto"  # parts of speech: shipped, nltk, or nltk where its data is found
    templates: str = "vild14"  # sentences that an entity is put into
    batch: int = 64  # images per step, of all processes
    kept: int = 4096  # images of which maps and masks are kept in memory, 0.1 MB each in the miniature

    def __post_init__(self):
        check_choices(self, mode=MODES, activation=ACTIVATIONS, loss=LOSSES, parser=PARSERS, tagger=TAGGERS)
        check_least(self, 1, "rank", "grid", "budget", "batch")
        if min(self.short_sides, default=0) < 1:
            raise ValueError(f"got short_sides={self.short_sides}, expected at least one size, and each 1 or more")
        if min(self.limit, self.kept) < 0 or not -1 <= self.threshold <= 1:
            given = f"limit={self.limit}, kept={self.kept}, threshold={self.threshold}"
            raise ValueError(f"got {given}, expected none negative, and a cosine in -1..1")


LITE = AlignmentConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=3), batch=8, data="icon-smoke/icon-caption/train"),
    "lite": LITE,
    # Section 4.1 and the released configuration: rank 8, sizes 896 and 1024, batch 56, AdamW 1e-4 with 0.05, steps at
    # 0.85 and 0.95 of the run, 10 x 10 points. In the paper both stages learn together, for 60,000 steps, with crops at
    # random; here the masks are learned before, and images are seen whole. The threshold is unknown: all pairs.
    "paper": AlignmentConfig(
        loop=LoopConfig(steps=60_000, lr=1e-4, muon_lr=0.0, weight_decay=0.05, warmup=10, schedule="step"),
        data="cc3m-refined/train", limit=0, clip="convnext_large_d_320", pretrained="laion2b_s29b_b131k_ft_soup",
        short_sides=(896, 1024), loss="cosine", threshold=-1.0, parser="chat", batch=56, kept=0,
    ),
}  # fmt: skip
SOURCES = {
    "section 4.1": "steps schedule batch",
    "section 4.1, its variant by the released lib/models": "clip pretrained",
    "section 4.1, its numbers by the released Base.yaml": "lr weight_decay",
    "section 4.3, ablation of input sizes (the second best; three sizes gain 0.3 and 0.1)": "short_sides",
    "section 3.3, Eq. 8": "loss",
    "section 3.3 and 4.1 (ChatGPT finds the entities)": "parser",
    "section 3.3 (the prompts of ViLD)": "templates",
    "section 3.3 (masks that the own segmenter predicts; the last map of the tower)": "masks mode",
    "released Base.yaml and lib/utils/config.py": "warmup rank grid",
    "ours: Fig. 1 names CC3M, section 4.1 speaks of 1.3 million pairs that are not public": "data limit",
    "ours: not public": "threshold budget",
    "ours: appendix A has a non-linearity and does not say which": "activation",
    "ours: the shipped segmenter; give that of `ovs-lite train uniovseg-masks --profile paper`": "segmenter",
    "ours: the adapter is small, its gradient as clipped as the loop's default": "grad_norm",
    "ours: there is no backbone to train": "backbone_factor",
    "ours: AdamW on everything, as in the paper, is muon_lr 0": "muon_lr ema accumulation",
    "ours: single precision": "precision",
    "ours: settings of other parsers than chat, and of that service": "url chat_model compounds tagger",
    "ours, of no effect on what is learned": "seed recompute compile checkpoint_every log_every kept",
}
