"""Measure a method's segmentation: mIoU and pixel accuracy on one or more prepared sets, under the protocol of TCL."""

import argparse
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from ovs_lite.commands.evaluate import add_sets, check_outputs, command, first_records, give, open_splits
from ovs_lite.config import ClipConfig, get_profile
from ovs_lite.data.prompts import TEMPLATES
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.metrics.intervals import miou_interval
from ovs_lite.evaluation.segmentation import AUTO, asked_phrases, evaluate_segmentation
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.methods import METHODS, Method, method_class
from ovs_lite.methods.base import fits, options_of
from ovs_lite.methods.registry import DEFAULT_METHOD
from ovs_lite.methods.with_pamr import WithPamr
from ovs_lite.segmenter import load
from ovs_lite.viz.tables import markdown_table, percent

EXAMPLES = """ovs-lite evaluate segmentation --method maskclip --set icon-voc20 icon-context59 --images 100
ovs-lite evaluate segmentation --method clip-cam --pamr
ovs-lite evaluate segmentation --method tcl --set icon-voc21 --option kp_weight=0
ovs-lite evaluate segmentation --set icon-voc21 --background 0.22 0.26 0.3 --out voc21.json"""
COLUMNS = ("set", "images", "mIoU", "95 % interval", "pixel accuracy", "templates", "side/window/stride", "background")


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command("segmentation", __doc__, EXAMPLES)
    add_sets(parser, "icon-voc20")
    add = parser.add_argument
    add("--method", default=DEFAULT_METHOD, metavar="NAME", help=f"{', '.join(METHODS)} ({DEFAULT_METHOD})")
    add("--checkpoint", type=Path, metavar="FILE", help="trained weights of the method, where it has any")
    add("--clip", metavar="NAME", help="a shipped CLIP or any open_clip name (the profile's)")
    add("--pretrained", metavar="TAG", help="lite, an open_clip tag or a file (the profile's)")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="of the method, as JSON: refine=false")
    add("--pamr", action="store_true", help="refine the scores by PAMR, for methods that do not do so themselves")
    text = "score below which a pixel is background (the method's own); several are compared"
    add("--background", type=float, nargs="+", metavar="X", help=text)
    add("--templates", choices=TEMPLATES, help="prompts of the class names (the method's own)")
    text = "phrases to ask for, cat|kitten for the class cat, separated by commas, or @FILE with one class per line"
    add("--queries", metavar="TEXT", help=text)
    add("--synonyms", action="store_true", help="ask for every class by its name and the vocabulary's synonyms")
    add("--present-only", action="store_true", help="Grounding mIoU: only classes of an image's ground truth compete")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate segmentation`."""
    args = build_parser().parse_args(argv)
    check_outputs(args.out)
    kind = method_class(args.method)
    options, folders = parse_options(args.option, kind), open_splits(args)
    backgrounds = {name: _background(name, kind, args.background) for name in folders}
    if args.background and not any(backgrounds.values()):
        raise ValueError(f"got --background {args.background}, expected none in these sets")
    queries = {name: _queries(name, args) for name in folders}
    chosen = get_profile(args.profile).clip if kind.load_own is None else ClipConfig()  # the default, which is none
    clip, pretrained = args.clip or chosen.name, args.pretrained or chosen.pretrained
    method = load(args.method, args.checkpoint, clip, pretrained).method
    method = WithPamr(method) if args.pamr else method
    given = {"templates": args.templates, "present_only": args.present_only, **options}
    reports = {
        name: evaluate_segmentation(
            method, first_records(folder, args.images, name), load_vocabulary(name),
            background=backgrounds[name], queries=queries[name], **given,
        )
        for name, folder in folders.items()
    }  # fmt: skip
    for name, report in reports.items():
        if not report.per_image[:, 2].any():
            raise ValueError(f"got {report.images} images of {folders[name]} without one labelled pixel of {name}")
    about = {"clip": method.clip.name, "checkpoint": args.checkpoint and str(args.checkpoint)}
    about["pretrained"] = pretrained if kind.load_own is None else None
    sets = {name: {"folder": str(folders[name]), **_facts(report)} for name, report in reports.items()}
    give(as_markdown(reports), {**about, "sets": sets}, args.out)


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


def as_markdown(reports: Mapping[str, SegmentationReport]) -> str:
    """A row per set, scores in %, at the best of its backgrounds; then mIoU by background where there are several."""
    rows = []
    for name, report in reports.items():
        way, scores = report.protocol, report.scores
        background = "-" if report.background is None else f"{report.background:g}"
        sizes = f"{way['short_side']}/{way['side']}/{way['stride']}"
        figures = [percent(scores.miou, 2), _interval(report), percent(scores.pixel_accuracy, 2)]
        rows.append([name, str(report.images), *figures, way["templates"], sizes, background])
    tables = [markdown_table(COLUMNS, rows)]
    for name, report in reports.items():
        if len(report.by_background) > 1:
            compared = [[f"{number:g}", percent(s.miou, 2)] for number, s in report.by_background.items()]
            tables.append(markdown_table([f"background of {name}", "mIoU"], compared))
    return "\n\n".join(tables)


def _interval(report: SegmentationReport) -> str:
    found = miou_interval(report)
    return "too few images" if found.note else f"{percent(found.low)} to {percent(found.high)}"


def _background(name: str, kind: type[Method], given: list[float] | None) -> list[float] | str | None:
    """The thresholds of one set. Raises ValueError, before a model is loaded, where there is none to take."""
    if load_vocabulary(name).background is None:
        return None
    if given is None and kind.background is None:
        raise ValueError(f"got no --background, expected one: the score below which a pixel is background in {name}")
    if given is not None and not all(map(isfinite, given)):
        raise ValueError(f"got --background {given}, expected numbers to compare scores with")
    return AUTO if given is None else given


def _queries(name: str, args: argparse.Namespace) -> str | list[str] | None:
    """What one set is asked for instead of its names. Raises ValueError, before a model is loaded, where it cannot."""
    if args.synonyms and args.queries is not None:
        raise ValueError("got --queries and --synonyms, expected one of them")
    vocabulary = load_vocabulary(name)
    found = vocabulary.queries() if args.synonyms else args.queries
    asked_phrases(vocabulary, found)
    return found


def _facts(report: SegmentationReport) -> dict[str, Any]:
    """A report as JSON takes it."""
    scores = report.scores
    found = miou_interval(report)
    return {
        "images": report.images,
        "protocol": report.protocol,
        "background": report.background,
        **vars(scores),
        "interval": [found.low, found.high],
        "iou": dict(zip(report.names, scores.iou.tolist(), strict=True)),
        "by_background": {str(number): s.miou for number, s in report.by_background.items()},
    }
