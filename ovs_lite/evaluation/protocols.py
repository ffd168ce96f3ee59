"""Named evaluation protocols: what a paper did between its method's scores and the number in its table.

The numbers are data, `protocols.yaml`, with the source of each. A published row is comparable with another only where
both followed the same one: "MaskCLIP 74.9, SCLIP 80.4, TCL 77.5" on VOC's 20 classes mixes three.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ovs_lite.config import lookup
from ovs_lite.data.templates import template_set
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary
from ovs_lite.evaluation.asked import AUTO
from ovs_lite.evaluation.labelling import LabelRule
from ovs_lite.evaluation.metrics.confusion import ABSENT_RULES
from ovs_lite.inference import Window
from ovs_lite.methods import Method
from ovs_lite.methods.base import options_of
from ovs_lite.methods.with_pamr import WithPamr
from ovs_lite.pamr import ITERATIONS

FILE = Path(__file__).parent / "protocols.yaml"
DEFAULT = "unified"
MINIATURE = "icon-"  # a set of that prefix stands for the real one without it
PREFIXES = re.compile("^(icon|coco)-")  # "icon-object" and "coco-object" are the set "object" of the file
REAL_SIDE = 224  # CLIPs that see so much, or more, get the paper's pixels


@dataclass(frozen=True)
class Protocol:
    """One way to measure, for all sets or (after `on`) for one.

    name, source: what it is called, and who measured so.
    unit: pixels of the paper that stand for one side of the CLIP. A CLIP of REAL_SIDE pixels or more gets the paper's
        pixels as they are; a smaller one the same multiples of its own side: 448 with a unit of 224 is 2 x 224, thus
        128 for the miniature CLIP, whose side is 64.
    short_side, longest, window, stride, resize: as `Window` has them; window None: the whole image at once. short_side
        None: `Window.for_clip`.
    templates: of `ovs_lite.data.templates`; None: the method's own.
    synonyms: whether a class is asked for by the vocabulary's synonyms, too.
    softmax_scale, least_area: see `LabelRule`.
    background: score or probability below which a pixel is background; "auto": the method's own; None: no rule.
    background_words: phrases that are asked for and mean the background; the name of a vocabulary: its classes.
    pamr_iterations: of the refinement; 0: none; None: what the method does by itself.
    absent: "union" or "target", the mean IoU that the paper prints; see `scores_of_counts`.
    options: of the method's `scores`, where it has them.
    sets: {set without "icon-" or "coco-": {key: value}}, exceptions.
    Raises ValueError for values that cannot be.
    """

    name: str
    source: str
    unit: int = REAL_SIDE
    short_side: int | None = None
    longest: int = 2048
    window: int | None = None
    stride: int | None = None
    resize: str = "antialias"
    templates: str | None = None
    synonyms: bool = False
    softmax_scale: float | None = None
    least_area: float = 0.0
    background: float | str | None = None
    background_words: tuple[str, ...] | str = ()
    pamr_iterations: int | None = None
    absent: str = "union"
    options: Mapping[str, Any] = field(default_factory=dict)
    sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.absent not in ABSENT_RULES:
            raise ValueError(f"got absent={self.absent!r}, expected one of {', '.join(ABSENT_RULES)}")
        if self.pamr_iterations not in (None, 0, ITERATIONS):
            raise ValueError(f"got pamr_iterations={self.pamr_iterations}, expected 0, {ITERATIONS} or None")
        if isinstance(self.background, str) and self.background != AUTO:
            raise ValueError(f"got background={self.background!r}, expected a number, {AUTO!r} or None")
        if self.templates is not None:
            template_set(self.templates)
        self.window_for(REAL_SIDE)
        for name, changes in self.sets.items():
            if unknown := set(changes) - {item.name for item in fields(self)} | set(changes) & {"name", "sets"}:
                raise ValueError(f"got {', '.join(sorted(unknown))} for the set {name!r}, expected keys of a protocol")

    @property
    def rule(self) -> LabelRule:
        """From scores to labels."""
        return LabelRule(self.softmax_scale, self.least_area)

    def on(self, set_name: str) -> "Protocol":
        """The protocol of one set, exceptions applied. set_name: of a vocabulary, "icon-object" as "coco-object"."""
        changes = dict(self.sets.get(PREFIXES.sub("", set_name), {}))
        if isinstance(words := changes.get("background_words"), list):
            changes["background_words"] = tuple(words)
        return replace(self, **changes, sets={})

    def window_for(self, image_size: int) -> Window:
        """How images are resized and windows slide for a CLIP of that side. Raises ValueError as `Window`."""
        if self.short_side is None:
            return Window.for_clip(image_size)

        def pixels(number: int) -> int:
            return number if image_size >= REAL_SIDE else max(1, round(number * image_size / self.unit))

        short, longest = pixels(self.short_side), pixels(self.longest)
        if self.window is None:
            return Window(short, longest, longest, longest, self.resize)
        return Window(short, pixels(self.window), pixels(self.stride or self.window), longest, self.resize)

    def words(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        """The phrases of the background; those of another vocabulary come from the miniature one for a miniature."""
        if not isinstance(self.background_words, str):
            return self.background_words
        prefix = MINIATURE if vocabulary.name.startswith(MINIATURE) else ""
        return load_vocabulary(prefix + self.background_words).names

    def refined(self, method: Method, options: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
        """The method with the protocol's refinement, and its options: those that were given go first.

        A method that refines by itself is told to by its option `refine`; any other goes through PAMR from outside. One
        that is wrapped already stays as it is.
        """
        known = options_of(method.method if isinstance(method, WithPamr) else method)
        taken = {key: value for key, value in self.options.items() if known is not None and key in known}
        if self.pamr_iterations is None or known is None or isinstance(method, WithPamr):
            return method, taken | dict(options)
        if "refine" in known:
            return method, taken | {"refine": self.pamr_iterations > 0} | dict(options)
        return WithPamr(method) if self.pamr_iterations else method, taken | dict(options)


@cache
def protocols() -> dict[str, Protocol]:
    """All named protocols, the default first. Raises ValueError naming the one that the file has wrong."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: _parsed(name, values) for name, values in content.items()}


def get_protocol(name: str) -> Protocol:
    """A protocol by name. Raises ValueError listing the valid names."""
    return lookup(protocols(), name, "protocol")


def _parsed(name: str, values: Mapping[str, Any]) -> Protocol:
    try:
        return Protocol(name=name, **values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{FILE.name}: {name}: {error}") from None
