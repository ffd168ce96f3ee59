"""The protocol card: all that decides a score besides the images, and a short hash of it.

A mean IoU without its protocol cannot be compared with another; users of released code lost six points to a background
threshold that stood in no configuration. Two scores whose cards have the same hash were measured in the same way.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from ovs_lite.clip import Clip
from ovs_lite.data.templates import template_set
from ovs_lite.evaluation.protocols import DEFAULT
from ovs_lite.evaluation.segmentation import SegmentationCounter
from ovs_lite.methods import Method
from ovs_lite.methods.base import options_of
from ovs_lite.methods.with_pamr import WithPamr
from ovs_lite.tensors import tensors_digest

HASH_LETTERS = 12
SHOWN = 60  # letters of a value in a table


@dataclass(frozen=True)
class ProtocolCard:
    """How a score came about. `hash` changes with every field.

    protocol: its name. method: its name, with what refines it. variant: what else decides its scores, see `Method`.
    vocabulary: its name. classes: digest of the C names that are counted, in order, and of all that compete.
    class_count: C. queries: digest of the phrases that were asked for, and whose they are. background_words: of them.
    templates: name of the set. template_digest: of its sentences.
    mean, std: what images are normalised with, per channel.
    short_side, window, stride, longest: pixels. interpolation: of the resizing.
    softmax_scale, least_area: see `LabelRule`. background: thresholds that were compared.
    absent: the convention of the protocol's mean IoU. competing: "all classes" or "those of the image".
    refinement: "PAMR", "the method's own" or "none". options: of the method's `scores`, defaults included.
    seed: of the method's own draws, where it makes any.
    weights: digest of the method's trained weights, "" without any. clip: name and digest of the CLIP.
    data: digest of the prepared set, "" where it is not known.
    """

    protocol: str
    method: str
    variant: str
    vocabulary: str
    classes: str
    class_count: int
    queries: str
    background_words: tuple[str, ...]
    templates: str
    template_digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    short_side: int
    window: int
    stride: int
    longest: int
    interpolation: str
    softmax_scale: float | None
    least_area: float
    background: tuple[float | None, ...]
    absent: str
    competing: str
    refinement: str
    options: tuple[tuple[str, Any], ...]
    seed: int
    weights: str
    clip: str
    data: str

    @property
    def hash(self) -> str:
        """Short name of the card, the same in every process and on every machine."""
        return _digest(asdict(self))[:HASH_LETTERS]

    def rows(self) -> list[tuple[str, str]]:
        """(field, value) as text, the hash first."""
        shown = [(item.name.replace("_", " "), _shown(getattr(self, item.name))) for item in fields(self)]
        return [("card", self.hash), *shown]

    def facts(self) -> dict[str, Any]:
        """The card as JSON takes it."""
        return {"hash": self.hash} | asdict(self) | {"options": dict(self.options)}


def protocol_card(counter: SegmentationCounter, *, seed: int = 0, data: str = "") -> ProtocolCard:
    """How a counter measures. seed: see `ProtocolCard`. data: digest of what it will count."""
    about, method, clip = counter.about, counter.method, counter.method.clip
    refined = isinstance(method, WithPamr)
    inner = method.method if refined else method
    known = options_of(inner) or {}
    options = {name: one.default for name, one in known.items()} | about["options"]
    refinement = "PAMR" if refined else "the method's own" if options.get("refine") else "none"
    return ProtocolCard(
        protocol=about.get("protocol", DEFAULT), method=method.name, variant=inner.variant(),
        vocabulary=counter.vocabulary.name,
        classes=_digest([counter.names, counter.vocabulary.names])[:HASH_LETTERS], class_count=len(counter.counted),
        queries=_digest([counter.phrases, counter.owners.tolist()])[:HASH_LETTERS],
        background_words=tuple(about.get("background_words", ())), templates=about["templates"],
        template_digest=_digest(template_set(about["templates"]))[:HASH_LETTERS],
        mean=_numbers(clip.mean), std=_numbers(clip.std), short_side=about["short_side"], window=about["side"],
        stride=about["stride"], longest=about["longest"], interpolation=about["resize"],
        softmax_scale=counter.rule.softmax_scale, least_area=counter.rule.least_area, background=counter.thresholds,
        absent=about.get("absent", "union"),
        competing=", ".join("those of the image" if only else "all classes" for only in counter.readings),
        refinement=refinement, options=tuple(sorted(options.items())), seed=seed,
        weights=weights_digest(inner), clip=f"{clip.name} {clip_digest(clip)}",
        data=data,
    )  # fmt: skip


def clip_digest(clip: Clip) -> str:
    """Of the weights of both towers, the temperature, and the text tower's configuration and name."""
    return tensors_digest(clip.fingerprint(), clip.network.state_dict().values())[:HASH_LETTERS]


def weights_digest(method: Method) -> str:
    """Of all weights of a method that are not its CLIP's; "" where there are none.

    A method's own copy of a tower counts: what was trained is in it. So does what `Method.about` says of them.
    """
    inside = {id(value) for value in method.clip.state_dict(keep_vars=True).values()}
    state = method.state_dict(keep_vars=True)
    own = {key: value for key, value in sorted(state.items()) if id(value) not in inside}
    tensors = [value for value in own.values() if isinstance(value, torch.Tensor)]
    return tensors_digest(json.dumps([list(own), method.about()]), tensors)[:HASH_LETTERS] if tensors else ""


def _numbers(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values.flatten())


def _shown(value: Any) -> str:
    """A value as one cell of a table."""
    if isinstance(value, tuple):
        pairs = all(isinstance(item, tuple) for item in value)
        parts = [f"{item[0]}={item[1]}" for item in value] if pairs else ["-" if v is None else str(v) for v in value]
        value = ", ".join(parts)
    text = "-" if value in (None, "") else str(value).replace("|", "/")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def _digest(content: Any) -> str:
    """SHA-256 of a value as JSON, in hexadecimal."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
