"""Configuration: frozen dataclasses, the three profiles, and a strict override.

A profile is data. Builders read it; models and losses take plain arguments and never see it.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class DataConfig:
    """How much of IconWorld to render: scenes per set, at image_size pixels. folder: its name under the data root."""

    folder: str
    caption_scenes: int
    train_scenes: int
    val_scenes: int
    sa_scenes: int
    image_size: int = 128


@dataclass(frozen=True)
class ClipConfig:
    """Which CLIP names regions: an open_clip model and its weights ("lite" = shipped with the package)."""

    vit: str = "ViT-Lite-8"
    pretrained: str = "lite"


@dataclass(frozen=True)
class ProposalConfig:
    """A mask proposal model and its training.

    backbone: timm name; "convnext_lite" starts from the shipped CLIP's tower. pretrained: timm's weights (a download).
    channels: of the pyramid and the queries. queries: proposals. layers, heads: of the decoder. image_size: side of a
    training picture. scale: range of the random rescaling. per: "segment" or "class", what a target mask is. schedule,
    warmup, clip_norm (of the gradient), weight_decay, backbone_factor, lr, muon_lr: see `ovs_lite.train.LoopConfig`.
    """

    backbone: str = "convnext_lite"
    pretrained: bool = False
    channels: int = 64
    queries: int = 128
    layers: int = 1
    heads: int = 4
    image_size: int = 128
    scale: tuple[float, float] = (0.8, 1.2)
    per: str = "segment"
    steps: int = 200
    batch: int = 16
    lr: float = 1e-3
    muon_lr: float = 0.01
    weight_decay: float = 1e-5
    schedule: str = "cosine"
    warmup: int = 10
    clip_norm: float = 1.0
    backbone_factor: float = 1.0

    def __post_init__(self):
        if min(self.queries, self.layers, self.heads, self.image_size) < 1 or self.channels < 8:
            raise ValueError(f"got {self}, expected positive sizes and at least 8 channels")
        if self.channels % 8 or self.channels % self.heads:
            given = f"channels={self.channels}, heads={self.heads}"
            raise ValueError(f"got {given}, expected channels that 8 and the number of heads divide")


# OpenSeg, section 4.1. Not in the paper: heads, layers, clipping, warm-up, and the optimiser (ours is AdamW). ALIGN's
# weights are not public; EfficientNet-B7 from NoisyStudent is the paper's nearest (its Table 3; there lr 0.08).
OPENSEG_PAPER = ProposalConfig(
    backbone="tf_efficientnet_b7.ns_jft_in1k", pretrained=True, channels=640, queries=128, layers=6, heads=8,
    image_size=640, scale=(0.8, 1.2), steps=30_000, batch=1024, lr=0.005, muon_lr=0.0, weight_decay=1e-5, warmup=500,
)  # fmt: skip
# OVSeg, section 4.1 and its released Swin-B configuration; MaskFormer's training otherwise.
MASKFORMER_PAPER = ProposalConfig(
    backbone="swin_base_patch4_window12_384.ms_in22k", pretrained=True, channels=256, queries=100, layers=6, heads=8,
    image_size=640, scale=(0.5, 2.0), per="class", steps=120_000, batch=32, lr=6e-5, muon_lr=0.0, weight_decay=0.01,
    schedule="poly", warmup=1500, clip_norm=0.01,
)  # fmt: skip


@dataclass(frozen=True)
class TclConfig:
    """TCL's training; the defaults are the miniature's.

    image_size: side of a training picture, CLIP's own; it is inferred at twice that. variant: "released" or "paper",
    where the two differ, see `methods.tcl_training`. shards: webdataset shards below the data folder, read instead of
    `icon-caption`. scale: share of a picture's area
    that a random crop keeps. augment: "crop", or "timm" for the released recipe. workers: processes that decode. image,
    feature, area, smooth: weights of Eq. 12; contrastive: of plain contrastive learning. positive_area, negative_area:
    priors of Eq. 10. unfreeze: share of the steps before the copy of CLIP's last block is trained; 1 for never. steps
    ... clip_norm: see ProposalConfig.
    """

    image_size: int = 64
    scale: tuple[float, float] = (0.6, 1.0)
    augment: str = "crop"
    workers: int = 0
    image: float = 0.1
    feature: float = 0.1
    area: float = 0.4
    smooth: float = 1.0
    contrastive: float = 0.0
    positive_area: float = 0.4
    negative_area: float = 0.0
    unfreeze: float = 0.6
    variant: str = "released"
    shards: tuple[str, ...] = ()
    steps: int = 60
    batch: int = 64
    lr: float = 5e-3
    weight_decay: float = 0.05
    warmup: int = 10
    clip_norm: float = 5.0

    def __post_init__(self):
        if min(self.image_size, self.steps, self.batch) < 1 or not 0 <= self.unfreeze <= 1:
            raise ValueError(f"got {self}, expected positive sizes and unfreeze in [0, 1]")


# The released configuration: 16 processes with 64 pairs of CC3M and CC12M. Not the same here: the cosine ends at 1.5e-6
# instead of 1e-5; AdamW has beta 0.98 and eps 1e-8 instead of 0.999 and 1e-6; scalars learn ten times faster, and
# without weight decay.
TCL_PAPER = TclConfig(
    image_size=224, scale=(0.08, 1.0), augment="timm", workers=8, steps=50_000, batch=1024, lr=7.5e-5, warmup=15_000,
    shards=("cc3m/*.tar", "cc12m/*.tar"),
)  # fmt: skip


@dataclass(frozen=True)
class NotebookConfig:
    """Amounts that notebooks read: train_steps of the demonstration training, eval_images per evaluation."""

    train_steps: int
    train_batch: int
    eval_images: int


@dataclass(frozen=True)
class Profile:
    """Everything a run needs to know; see the fields' classes. seed: of all randomness."""

    name: str
    data: DataConfig
    notebooks: NotebookConfig
    clip: ClipConfig = field(default_factory=ClipConfig)
    openseg: ProposalConfig = ProposalConfig()
    maskformer: ProposalConfig = ProposalConfig(queries=100, layers=3)
    tcl: TclConfig = TclConfig()
    seed: int = 0


PROFILES = {
    "smoke": Profile(
        "smoke",
        DataConfig("icon-smoke", 64, 32, 12, 16),
        NotebookConfig(6, 32, 8),
        openseg=ProposalConfig(steps=4, batch=4),
        maskformer=ProposalConfig(steps=4, batch=4, queries=100, layers=3),
        tcl=TclConfig(steps=3, batch=8),
    ),
    "lite": Profile("lite", DataConfig("icon-lite", 3000, 1500, 200, 500), NotebookConfig(80, 64, 120)),
    "paper": Profile(
        "paper",
        DataConfig("icon-lite", 3000, 1500, 200, 500),
        NotebookConfig(400, 256, 200),
        ClipConfig("ViT-B-16", "openai"),
        openseg=OPENSEG_PAPER,
        maskformer=MASKFORMER_PAPER,
        tcl=TCL_PAPER,
    ),
}


def get_profile(name: str) -> Profile:
    """The profile of that name. Raises ValueError listing the valid names."""
    if name not in PROFILES:
        raise ValueError(f"got profile {name!r}, expected one of {', '.join(PROFILES)}{_hint(name, PROFILES)}")
    return PROFILES[name]


def override(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of a config dataclass with dotted keys changed, e.g. {"data.val_scenes": 8}.

    Raises ValueError for an unknown key (with the valid ones) or a value of another type than the default's.
    """
    for key, value in changes.items():
        config = _replace(config, key.split("."), value, key)
    return config


def override_from_yaml(config: Any, path: str | Path) -> Any:
    """Like `override`, with the (nested or dotted) keys of a YAML file."""
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of configuration keys, got {type(content).__name__}")
    return override(config, dict(flatten(content)))


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dictionary of a config, ready for JSON."""
    return dataclasses.asdict(config)


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries as (dotted key, value), e.g. ("data.val_scenes", 200)."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def project_root() -> Path:
    """The nearest folder, from the working one upwards, that holds pyproject.toml and notebooks/; else the working one.

    So `jupyter lab notebooks`, whose kernels work inside notebooks/, finds the same data and runs as the command line.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return Path(os.path.relpath(folder, here))
    return Path(".")


def data_root() -> Path:
    """Where prepared data lies: $OVS_DATA, else data/ in the project."""
    return Path(os.environ.get("OVS_DATA") or project_root() / "data")


def runs_root() -> Path:
    """Where runs leave their products: $OVS_RUNS, else runs/ in the project."""
    return Path(os.environ.get("OVS_RUNS") or project_root() / "runs")


def cache_root() -> Path:
    """Where text embeddings are cached: $OVS_CACHE, else ~/.cache/ovs-lite."""
    return Path(os.environ.get("OVS_CACHE", "~/.cache/ovs-lite")).expanduser()


def _hint(name: str, valid) -> str:
    close = difflib.get_close_matches(name, list(valid), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _replace(config: Any, parts: list[str], value: Any, key: str) -> Any:
    names = [item.name for item in dataclasses.fields(config)]
    if parts[0] not in names:
        raise ValueError(f"got key {key!r}, expected one of {', '.join(names)}{_hint(parts[0], names)}")
    old = getattr(config, parts[0])
    if len(parts) > 1:
        if not dataclasses.is_dataclass(old):
            raise ValueError(f"got key {key!r}, but {parts[0]!r} has no parts")
        value = _replace(old, parts[1:], value, key)
    elif isinstance(old, float) and type(value) is int:
        value = float(value)
    elif type(value) is not type(old):
        raise ValueError(f"got {value!r} for {key!r}, expected {type(old).__name__}")
    return dataclasses.replace(config, **{parts[0]: value})
