"""Measure a method's segmentation: mIoU and pixel accuracy on one or more prepared sets, with the protocol of each.

`ovs-lite evaluate METHOD` is the same as `ovs-lite evaluate segmentation --method METHOD`."""

import argparse
import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from ovs_lite.commands import evaluate
from ovs_lite.commands.segmentation_tables import (
    as_markdown,
    card_table,
    class_table,
    difference_table,
    differences,
    facts,
    groups_table,
)
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.config import ClipConfig, get_profile
from ovs_lite.data.record import first, load_split
from ovs_lite.data.templates import TEMPLATES
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import start_process_group
from ovs_lite.evaluation.asked import AUTO, asked_phrases
from ovs_lite.evaluation.protocols import DEFAULT, get_protocol, protocols
from ovs_lite.evaluation.run import evaluate_set, split_digest
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.methods import METHODS, Method, method_class
from ovs_lite.methods.base import fits, options_of
from ovs_lite.methods.registry import DEFAULT_METHOD
from ovs_lite.methods.with_pamr import WithPamr
from ovs_lite.segmenter import load

EXAMPLES = """ovs-lite evaluate segmentation --method maskclip --set icon-voc20 icon-context59 --images 100
ovs-lite evaluate tcl --set icon-voc21 --option kp_weight=0
ovs-lite evaluate tcl --set icon-voc20 --protocol tcl --against maskclip --out voc20.json --out voc20.md
ovs-lite evaluate openseg --checkpoint runs/mine/openseg.safetensors --against-checkpoint runs/other/openseg.safetensors
ovs-lite evaluate clip-cam --pamr
ovs-lite evaluate maskclip --set icon-voc21 --background 0.22 0.26 0.3 --out voc21.json
torchrun --nproc-per-node 2 -m ovs_lite evaluate maskclip --set icon-voc20
accelerate launch -m ovs_lite evaluate maskclip --set icon-voc20"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = evaluate.command("METHOD", f"{__doc__}\n\n{evaluate.RESUMES}", EXAMPLES)
    evaluate.add_sets(parser, "icon-voc20")
    add = parser.add_argument
    add("--method", default=DEFAULT_METHOD, metavar="NAME", help=f"{', '.join(METHODS)} ({DEFAULT_METHOD})")
    add("--checkpoint", type=Path, metavar="FILE", help="trained weights of the method, where it has any")
    add("--clip", metavar="NAME", help="a shipped CLIP or any open_clip name (the profile's)")
    add("--pretrained", metavar="TAG", help="lite, an open_clip tag or a file (the profile's)")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="of the method, as JSON: refine=false")
    text = f"how to measure, unless another argument says otherwise: {', '.join(protocols())} ({DEFAULT})"
    add("--protocol", metavar="NAME", help=text)
    text = "a second method on the same images: the difference with its interval; its weights, options and threshold "
    add("--against", metavar="NAME", help=text + "are the method's own")
    text = "trained weights of that second method; without --against of the same one"
    add("--against-checkpoint", type=Path, metavar="FILE", help=text)
    add("--pamr", action="store_true", help="refine the scores by PAMR, whatever the protocol says")
    text = "score below which a pixel is background (the method's own); several are compared"
    add("--background", type=float, nargs="+", metavar="X", help=text)
    add("--templates", choices=TEMPLATES, help="prompts of the class names (the method's own)")
    text = "phrases to ask for, cat|kitten for the class cat, separated by commas, or @FILE with one class per line"
    add("--queries", metavar="TEXT", help=text)
    add("--synonyms", action="store_true", help="ask for every class by its name and the vocabulary's synonyms")
    add("--present-only", action="store_true", help="Grounding mIoU: only classes of an image's ground truth compete")
    add("--per-class", action="store_true", help="print every class's IoU, too")
    evaluate.add_counts(parser)
    return parser


@ends_in_order
def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate METHOD` and `ovs-lite evaluate segmentation`."""
    args = build_parser().parse_args(argv)
    evaluate.check_outputs(args.out)
    asked = _asked(args)
    names, titles = [name for name, _ in asked], _titles(asked)
    options = [parse_options(args.option, method_class(args.method)), {}]
    for name, given in zip(names, options, strict=False):
        if args.pamr and "refine" in (options_of(method_class(name)) or {}):
            given.setdefault("refine", True)  # whatever the protocol has
    folders = evaluate.open_splits(args)
    how = [{name: _how(name, method_class(method), args) for name in folders} for method in names]
    if args.background and not any(one["background"] for one in how[0].values()):
        raise ValueError(f"got --background {args.background}, expected none in these sets")
    start_process_group()
    found, about = [], {}
    for number, (name, checkpoint) in enumerate(asked):
        method, loaded = _load(name, checkpoint, args)
        about = about or loaded
        found.append(
            {key: _measure(method, key, folders[key], args, how[number][key] | options[number]) for key in folders}
        )
    keys = [report.card.hash for reports in found for report in reports.values()]
    about |= {"checkpoint": args.checkpoint and str(args.checkpoint)}
    text, content = _output(titles, found, about, folders, args)
    if len(asked) > 1:
        content["against"] |= {"method": names[1], "checkpoint": asked[1][1] and str(asked[1][1])}
    evaluate.finish(args, keys, text, content)


def _asked(args: argparse.Namespace) -> list[tuple[str, Path | None]]:
    """One method or two, and the weights of each. Raises ValueError where both are the same."""
    asked = [(args.method, args.checkpoint)]
    if args.against or args.against_checkpoint:
        asked.append((args.against or args.method, args.against_checkpoint))
    if len(set(asked)) < len(asked):
        raise ValueError(f"got {args.method} twice, expected --against another method, or --against-checkpoint")
    return asked


def _titles(asked: Sequence[tuple[str, Path | None]]) -> list[str]:
    """Names of methods, and of their weights where the methods are the same."""
    names = [name for name, _ in asked]
    return names if len(set(names)) == len(names) else [f"{name} ({path or 'shipped'})" for name, path in asked]


def parse_options(words: list[str], kind: type[Method]) -> dict[str, Any]:
    """["refine=false", "kp_weight=0.3"] -> {"refine": False, "kp_weight": 0.3}, options of the method's `scores`.

    Raises ValueError for what is no KEY=VALUE, no JSON, no option of the method, or of another type than its default.
    """
    known, options = options_of(kind) or {}, {}
    for word in words:
        key, _, text = word.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            raise ValueError(f'got --option {word!r}, expected KEY=VALUE in JSON, e.g. refine=false or x="y"') from None
        if key not in known:
            raise ValueError(f"got --option {word!r}, expected one of {', '.join(known) or 'none'} for {kind.name}")
        if not fits(value, known[key]):
            raise ValueError(f"got --option {word!r}, expected a value like {json.dumps(known[key].default)}")
        options[key] = value
    return options


def _load(name: str, checkpoint: Path | None, args: argparse.Namespace) -> tuple[Method, dict[str, Any]]:
    """A method, and what the output says of it."""
    own = method_class(name).load_own is not None
    chosen = ClipConfig() if own else get_profile(args.profile).clip  # the default, which is none
    clip, pretrained = args.clip or chosen.name, args.pretrained or chosen.pretrained
    method = load(name, checkpoint, clip, pretrained).method
    refines = args.pamr and "refine" not in (options_of(method) or {})
    about = {"clip": method.clip.name, "pretrained": None if own else pretrained}
    return WithPamr(method) if refines else method, about


def _measure(
    method: Method, name: str, folder: Path, args: argparse.Namespace, how: dict[str, Any]
) -> SegmentationReport:
    """The report of one set. Raises ValueError where no pixel of it is labelled."""
    some, kept = first(load_split(folder), args.images), evaluate.counts_folder(args)
    about = {"name": name, "folder": kept, "fresh": args.fresh, "data": split_digest(folder)}
    report = evaluate_set(method, some, load_vocabulary(name), **about, **how)
    if not report.per_image[:, 2].any():
        raise ValueError(f"got {report.images} images of {folder} without one labelled pixel of {name}")
    return report


def _output(
    titles: Sequence[str],
    found: Sequence[dict[str, SegmentationReport]],
    about: dict[str, Any],
    folders: dict[str, Path],
    args: argparse.Namespace,
) -> tuple[str, dict[str, Any]]:
    """The text and the JSON content."""
    several, parts = len(found) > 1, []
    for method, reports in zip(titles, found, strict=True):
        parts += [f"{method}:"] * several + [as_markdown(reports), groups_table(reports)]
        parts += [class_table(name, report) for name, report in reports.items() if args.per_class]
    if several:
        parts.append(difference_table(*found, tuple(titles)))
    cards = {
        f"{name}, {titles[n]}" if several else name: one.card for n, r in enumerate(found) for name, one in r.items()
    }
    parts.append(card_table(cards))
    content = [
        {name: {"folder": str(folders[name]), **facts(report, load_vocabulary(name))} for name, report in one.items()}
        for one in found
    ]
    content = {**about, "sets": content[0]} | ({"against": {"sets": content[1]}} if several else {})
    if several:
        compared = differences(*found)
        content["difference"] = {name: vars(estimate) for name, estimate in compared.items()}
    return "\n\n".join(filter(None, parts)), content


def _how(name: str, kind: type[Method], args: argparse.Namespace) -> dict[str, Any]:
    """How one set is measured. Raises ValueError, before a model is loaded, for what cannot be."""
    way = {"templates": args.templates, "present_only": args.present_only, "queries": _queries(name, args)}
    given = args.background if kind is method_class(args.method) or kind.background is None else None
    return way | {"protocol": args.protocol, "background": _background(name, kind, given, args.protocol)}


def _background(
    name: str, kind: type[Method], given: list[float] | None, protocol: str | None
) -> list[float] | str | None:
    """The thresholds of one set; None for those of the protocol. Raises ValueError where there is none to take."""
    way = get_protocol(protocol or DEFAULT).on(name)
    if load_vocabulary(name).background is None:
        return None
    if (
        given is None
        and not way.background_words
        and (kind.background if way.background == AUTO else way.background) is None
    ):
        raise ValueError(f"got no --background, expected one: the score below which a pixel is background in {name}")
    if given is not None and not all(map(isfinite, given)):
        raise ValueError(f"got --background {given}, expected numbers to compare scores with")
    return given if given is not None or protocol is not None else AUTO


def _queries(name: str, args: argparse.Namespace) -> str | list[str] | None:
    """What one set is asked for instead of its names. Raises ValueError, before a model is loaded, where it cannot."""
    if args.synonyms and args.queries is not None:
        raise ValueError("got --queries and --synonyms, expected one of them")
    vocabulary = load_vocabulary(name)
    found = vocabulary.queries() if args.synonyms else args.queries
    asked_phrases(vocabulary, found)
    return found
