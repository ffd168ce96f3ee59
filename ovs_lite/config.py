"""Configuration: frozen dataclasses whose trailing comments are their help, the profiles, and one strict override.

A configuration is data. Builders read it; models and losses take plain arguments and never see it. What a recipe sets
stands in its own folder (`methods/NAME/config.py`), with its presets; here is what all share.
"""

import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PRECISIONS = ("no", "bf16", "fp16", "auto")
NO_COMPILER = "no"
COMPILERS = (NO_COMPILER, "inductor", "aot_eager")
SHIPPED = "shipped"  # in place of a file of weights: those that come with the kit
RANDOM = "random"  # pretrained of a CLIP that knows nothing, for trying the code; it settles no claim
SCHEDULES = ("cosine", "poly", "step", "constant")  # the curves are in `ovs_lite.train.optim`


@dataclass(frozen=True)
class LoopConfig:
    """What the training loop does, whatever is trained. Raises ValueError for values that cannot run."""

    steps: int  # updates in all
    lr: float = 2e-3  # AdamW's peak learning rate
    muon_lr: float = 0.02  # Muon's peak, on the matrices of blocks; 0: AdamW on everything
    weight_decay: float = 0.01  # AdamW's, on matrices; vectors and scalars have none
    warmup: int = 100  # steps of linear warm-up
    schedule: str = "cosine"  # after the warm-up: cosine, poly, step or constant
    grad_norm: float = 1.0  # the gradient is clipped to this norm
    backbone_factor: float = 1.0  # of the learning rates below a module called `backbone`; 0 freezes it
    accumulation: int = 1  # batches per step
    precision: str = "no"  # mixed: bf16, fp16 (GPU only), auto (bf16 where the machine multiplies in it), or no
    recompute: bool = False  # activation checkpointing: blocks are computed again in the backward pass; less memory
    compile: str = "no"  # torch.compile of blocks: no, inductor, or aot_eager (traces alone, to find what breaks)
    ema: float = 0.0  # decay of a running average of the weights, which are kept at the end; 0: none
    seed: int = 0  # of weights, data order and dropout
    checkpoint_every: int = 200  # steps between checkpoints
    log_every: int = 20  # steps between rows of the log

    def __post_init__(self):
        check_least(self, 1, "steps", "accumulation", "checkpoint_every", "log_every")
        check_choices(self, precision=PRECISIONS, compile=COMPILERS, schedule=SCHEDULES)
        if not 0 <= self.ema < 1:
            raise ValueError(f"got ema={self.ema}, expected a decay in [0, 1), e.g. 0.999")


# Raise it when the same seed should give other images, so that old builds are refused, and remade by `data build`.
ICONWORLD_FORMAT = 2


@dataclass(frozen=True)
class DataConfig:
    """How much of IconWorld to render."""

    folder: str  # its name below the data folder
    caption_scenes: int  # of icon-caption
    train_scenes: int  # of each other training split
    val_scenes: int  # of each validation split
    sa_scenes: int  # of icon-sa
    image_size: int = 128  # side of a scene, pixels


@dataclass(frozen=True)
class ClipConfig:
    """Which CLIP names regions."""

    name: str = "ViT-Lite-8"  # a shipped CLIP or any open_clip model
    pretrained: str = "lite"  # lite (shipped), an open_clip tag such as openai, a file, or random


@dataclass(frozen=True)
class NotebookConfig:
    """Amounts that notebooks read."""

    train_steps: int  # of the demonstration training of notebook 00
    train_batch: int  # images per step there
    eval_images: int  # per evaluation
    templates: str = "vild14"  # sentences that names are put into, on photographs


@dataclass(frozen=True)
class Profile:
    """What a run of the notebooks needs to know besides the recipes' own presets of the same name."""

    name: str  # smoke, lite, photo or paper
    data: DataConfig
    notebooks: NotebookConfig
    clip: ClipConfig = field(default_factory=ClipConfig)
    seed: int = 0  # of all randomness
    photos: str = ""  # prepared split of photographs, for notebooks of its own in notebooks/photo; none: IconWorld


LITE_DATA = DataConfig("icon-lite", caption_scenes=3000, train_scenes=1500, val_scenes=200, sa_scenes=500)
SMOKE_DATA = DataConfig("icon-smoke", caption_scenes=64, train_scenes=32, val_scenes=12, sa_scenes=16)
PROFILES = {
    "smoke": Profile("smoke", SMOKE_DATA, NotebookConfig(train_steps=6, train_batch=32, eval_images=8)),
    "lite": Profile("lite", LITE_DATA, NotebookConfig(train_steps=80, train_batch=64, eval_images=120)),
    "photo": Profile(
        "photo", LITE_DATA, NotebookConfig(train_steps=0, train_batch=0, eval_images=300),
        ClipConfig("ViT-B-16", "openai"), photos="coco-val/val",
    ),
    "paper": Profile(
        "paper", LITE_DATA, NotebookConfig(train_steps=400, train_batch=256, eval_images=200),
        ClipConfig("ViT-B-16", "openai"),
    ),
}  # fmt: skip


def get_profile(name: str) -> Profile:
    """The profile of that name. Raises ValueError listing the valid names."""
    return lookup(PROFILES, name, "profile")


def check_least(config: Any, least: float, *names: str) -> None:
    """Raise ValueError that names the first of these numbers of a configuration that is below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"got {name}={getattr(config, name)}, expected {least:g} or more")


def check_choices(config: Any, **known: Iterable[str]) -> None:
    """Raise ValueError that names the first of these fields of a configuration that is none of the known values."""
    for name, values in known.items():
        if getattr(config, name) not in values:
            expected = ", ".join(value or "nothing" for value in values)
            raise ValueError(f"got {name}={getattr(config, name)!r}, expected one of {expected}")


def lookup(table: Mapping[str, Any], name: str, what: str) -> Any:
    """An entry by name. Raises ValueError that lists the valid names and the nearest one. what: for the message."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"got {what} {name!r}, expected one of {', '.join(table)}{_hint(str(name), table)}")
    return table[name]


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a config dataclass with dotted keys changed, all at once, e.g. {"loop.steps": 8, "batch": 4}.

    A field of `loop` may be given without that word. Raises ValueError for an unknown key (with the valid ones) or a
    value of another type than the field's.
    """
    tree: dict[str, Any] = {}
    for key, value in changes.items():
        *parents, last = _path(config, key)
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
        branch[last] = (key, value)
    return _replaced(config, tree)


def override_from_file(config: Any, path: str | Path) -> Any:
    """Like `override`, with the keys of `read_changes`. Raises ValueError naming the file."""
    try:
        return override(config, read_changes(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_changes(path: str | Path) -> dict[str, Any]:
    """{dotted key: value} of a YAML or JSON file with nested or dotted keys, such as a run's config.json.

    What a run adds there besides its settings ("recipe", "found") is left out. Raises FileNotFoundError, and ValueError
    naming the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of configuration keys, got {type(content).__name__}")
    return dict(flatten({key: value for key, value in content.items() if key not in ("recipe", "found")}))


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


@cache
def field_help(kind: type) -> dict[str, str]:
    """{field: its trailing comment} of a config dataclass, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        lines = re.findall(r"(?m)^    (\w+): [^#\n]*?(?:#\s*(.*))?$", inspect.getsource(base))
        found |= {name: text for name, text in lines if text}
    return found


def _hint(name: str, valid) -> str:
    close = difflib.get_close_matches(name, list(valid), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _path(config: Any, key: str) -> list[str]:
    """The parts of a dotted key. Raises ValueError for one that leads to no setting."""
    parts = key.split(".")
    if len(parts) == 1 and not hasattr(config, key) and hasattr(getattr(config, "loop", None), key):
        return ["loop", key]
    for number, part in enumerate(parts):
        if not dataclasses.is_dataclass(config):
            raise ValueError(f"got key {key!r}, but {parts[number - 1]!r} has no parts")
        names = [item.name for item in dataclasses.fields(config)]
        if part not in names:
            raise ValueError(f"got key {key!r}, expected one of {', '.join(names)}{_hint(part, names)}")
        config = getattr(config, part)
    return parts


def _replaced(config: Any, tree: dict[str, Any]) -> Any:
    kinds = typing.get_type_hints(type(config))
    values = {
        name: _replaced(getattr(config, name), change) if isinstance(change, dict) else _converted(*change, kinds[name])
        for name, change in tree.items()
    }
    return dataclasses.replace(config, **values)


def _is_exponent(value: Any) -> bool:
    """Whether it is a number such as "1e-05", which YAML takes for text."""
    return isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) is not None


def _converted(key: str, value: Any, kind: Any) -> Any:
    """The value as the field's type has it: an int for a float, a list for a tuple. Raises ValueError otherwise."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # `X | None`
        if value is None:
            return None
        kind = next(option for option in typing.get_args(kind) if option is not types.NoneType)
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        kinds = typing.get_args(kind)
        kinds = (kinds[0],) * len(value) if kinds[-1] is Ellipsis else kinds
        if len(kinds) == len(value):
            return tuple(_converted(key, item, wanted) for item, wanted in zip(value, kinds, strict=True))
    elif kind is float and (type(value) in (int, float) or _is_exponent(value)):
        if not math.isfinite(float(value)):
            raise ValueError(f"got {value!r} for {key!r}, expected a finite number")
        return float(value)
    elif not typing.get_origin(kind) and type(value) is kind:
        return value
    raise ValueError(f"got {value!r} for {key!r}, expected {getattr(kind, '__name__', kind)}")
