"""Measure a method's segmentation: mIoU and pixel accuracy on one or more prepared sets, under the protocol of TCL."""

import argparse
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ovs_lite.checkpoints import check_checkpoint, load_method
from ovs_lite.clip import load_clip
from ovs_lite.config import PROFILES, get_profile
from ovs_lite.data.prompts import TEMPLATES
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.files import data_root, write_json
from ovs_lite.iconworld.build import split_folder
from ovs_lite.methods import METHODS, Method, method_class

EXAMPLE = """examples:
  ovs-lite evaluate segmentation --method maskclip --set icon-voc20 icon-context59 --images 100
  ovs-lite evaluate segmentation --method tcl --set icon-voc21 --background 0.4 --option kp_weight=0
  ovs-lite evaluate segmentation --set icon-voc21 --background 0.22 0.26 0.3 --out voc21.json"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite evaluate segmentation",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--method", default="maskclip", help=f"one of {', '.join(METHODS)} (default maskclip)")
    add("--checkpoint", type=Path, metavar="FILE", help="trained weights of the method, where it has any")
    add("--clip", metavar="NAME", help="a shipped CLIP or any open_clip name (default the profile's)")
    add("--pretrained", metavar="TAG", help="lite, an open_clip tag or a file (default the profile's)")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="of the method, as JSON: refine=false")
    add("--set", nargs="+", action="extend", metavar="SET", help="vocabularies whose val splits count (icon-voc20)")
    add("--profile", choices=PROFILES, default="lite", help="whose data and CLIP")
    add("--data", type=Path, metavar="FOLDER", help="folder of a split, instead of the profile's, for one --set")
    add("--images", type=int, metavar="N", help="the first so many pictures of each set (default all)")
    add("--background", type=float, nargs="+", metavar="X", help="score of the background class; several are compared")
    add("--templates", choices=TEMPLATES, help="prompts of the class names (default the method's)")
    add("--present-only", action="store_true", help="grounding mIoU: only classes of each picture's truth compete")
    add("--out", type=Path, metavar="FILE.json", help="everything, IoU by class too")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate segmentation`."""
    args = build_parser().parse_args(argv)
    options = parse_options(args.option, method_class(args.method))
    splits = _splits(args)
    method = _method(args)
    reports = {}
    for name, (vocabulary, folder) in splits.items():
        split = load_split(folder)
        count = len(split) if args.images is None else min(args.images, len(split))
        reports[name] = evaluate_segmentation(
            method,
            tqdm((split[i] for i in range(count)), name, total=count),
            vocabulary,
            templates=args.templates,
            background=args.background if vocabulary.background is not None else None,
            present_only=args.present_only,
            **options,
        )
    print(as_markdown(reports))
    if args.out:
        weights = {"clip": method.clip.name, "pretrained": _clip_choice(args)[1], "checkpoint": args.checkpoint}
        sets = {name: {"folder": str(splits[name][1]), **_facts(report)} for name, report in reports.items()}
        write_json(args.out, {key: value and str(value) for key, value in weights.items()} | {"sets": sets})


def parse_options(words: list[str], kind: type[Method]) -> dict[str, Any]:
    """["refine=false", "kp_weight=0.3"] -> {"refine": False, "kp_weight": 0.3}, options of the method's `scores`.

    Raises ValueError for what is no KEY=VALUE, no JSON, no option of the method, or of another type than its default.
    """
    parameters = list(inspect.signature(kind.scores).parameters.values())[3:]  # after self, features, text_embeddings
    known = {parameter.name: parameter.default for parameter in parameters}
    options = {}
    for word in words:
        key, _, text = word.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            raise ValueError(f'got --option {word!r}, expected KEY=VALUE in JSON, e.g. refine=false or x="y"') from None
        if key not in known:
            raise ValueError(f"got --option {word!r}, expected one of {', '.join(known) or 'none'} for {kind.name}")
        like = known[key]
        if like is not None and type(value) is not type(like) and (type(like), type(value)) != (float, int):
            raise ValueError(f"got --option {word!r}, expected a value like {json.dumps(like)}")
        options[key] = value
    return options


def as_markdown(reports: Mapping[str, SegmentationReport]) -> str:
    """A row per set, scores in %, at the best of its backgrounds; then mIoU by background where there are several."""
    columns = ("set", "pictures", "mIoU", "pixel accuracy", "templates", "short side/window/stride", "background")
    lines = [f"| {' | '.join(columns)} |", "| --- | ---: | ---: | ---: | --- | --- | ---: |"]
    for name, report in reports.items():
        way, scores = report.protocol, report.scores
        background = "-" if report.background is None else f"{report.background:g}"
        percent = [f"{100 * value:.2f}" for value in (scores.miou, scores.pixel_accuracy)]
        sizes = f"{way['short_side']}/{way['side']}/{way['stride']}"
        row = [name, str(report.images), *percent, way["templates"], sizes, background]
        lines.append(f"| {' | '.join(row)} |")
    for name, report in reports.items():
        if len(report.by_background) > 1:
            lines += ["", f"| background of {name} | mIoU |", "| ---: | ---: |"]
            lines += [f"| {number:g} | {100 * s.miou:.2f} |" for number, s in report.by_background.items()]
    return "\n".join(lines)


def _splits(args: argparse.Namespace) -> dict[str, tuple[Vocabulary, Path]]:
    """Vocabulary and folder of every set; what can be wrong with them is told before a model is loaded."""
    names = args.set or ["icon-voc20"]
    if args.data is not None and len(set(names)) > 1:
        raise ValueError(f"got --data and {len(set(names))} sets, expected the one --set whose classes {args.data} has")
    if args.images is not None and args.images < 1:
        raise ValueError(f"got --images {args.images}, expected at least 1")
    splits = {}
    for name in names:
        folder = args.data or split_folder(data_root(), get_profile(args.profile).data, name, "val")
        splits[name] = load_vocabulary(name), folder
        load_split(folder)
    ground = [name for name, (vocabulary, _) in splits.items() if vocabulary.background is not None]
    if bool(ground) != (args.background is not None):
        asked = f"--background, the score of that class in {', '.join(ground)}" if ground else "none in these sets"
        raise ValueError(f"got --background {args.background}, expected {asked}")
    return splits


def _clip_choice(args: argparse.Namespace) -> tuple[str, str]:
    chosen = get_profile(args.profile).clip
    return args.clip or chosen.vit, args.pretrained or chosen.pretrained


def _method(args: argparse.Namespace) -> Method:
    check_checkpoint(args.method, args.checkpoint)  # told before a CLIP is loaded
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_method(args.method, load_clip(*_clip_choice(args), device), args.checkpoint)


def _facts(report: SegmentationReport) -> dict[str, Any]:
    """A report as JSON takes it; None for NaN."""
    scores = report.scores
    return {
        "images": report.images,
        "protocol": report.protocol,
        "background": report.background,
        "miou": _number(scores.miou),
        "pixel_accuracy": _number(scores.pixel_accuracy),
        "mean_accuracy": _number(scores.mean_accuracy),
        "absent": scores.absent,
        "classes_counted": scores.classes_counted,
        "pixels": scores.pixels,
        "ignored": scores.ignored,
        "iou": {name: _number(value) for name, value in zip(report.names, scores.iou.tolist(), strict=True)},
        "by_background": {str(number): _number(s.miou) for number, s in report.by_background.items()},
    }


def _number(value: float) -> float | None:
    return None if value != value else value
