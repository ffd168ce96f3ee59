"""Measure cells of the grid: masks from a source, each named by a classifier, mIoU of the two (OVSeg, Fig. 1c, A.1)."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.commands import evaluate
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.config import ClipConfig, get_profile, lookup
from ovs_lite.data.templates import TEMPLATES
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import start_process_group
from ovs_lite.evaluation.grid import BUDGET, GROUND_TRUTH, ORACLE, PURE_ORACLE, RegionGrid, grid_counter, label_maps
from ovs_lite.evaluation.metrics.intervals import miou_interval
from ovs_lite.evaluation.protocol_card import clip_digest
from ovs_lite.methods import Method, method_class
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.methods.registry import mask_methods
from ovs_lite.regions.classifiers import CLIP_CLASSIFIERS
from ovs_lite.regions.sources import BASELINES, CLASSICAL, MaskSource
from ovs_lite.segmenter import load
from ovs_lite.viz.tables import markdown_table, percent

EXAMPLES = """ovs-lite evaluate grid --masks truth --classifier crops
ovs-lite evaluate grid --masks truth classical maskformer --classifier crops pooled oracle --images 50
ovs-lite evaluate grid --masks uniovseg --classifier vote:naclip --set icon-context59 --out vote.json
torchrun --nproc-per-node 2 -m ovs_lite evaluate grid --masks truth --classifier crops"""
COLUMNS = ("set", "images", "masks", "classifier", "mIoU", "95 % interval", "pixel accuracy")
TRUTH, VOTE = "truth", "vote:"
UNTRAINED = dict(zip(("classical", "superpixels", "grid"), BASELINES.values(), strict=True))
UNTRAINED |= {name.lower().replace(" ", "-"): source for name, source in CLASSICAL.items()}
CLASSIFIERS = dict(zip(("crops", "unmasked-crops", "pooled"), CLIP_CLASSIFIERS, strict=True))
CLASSIFIERS |= {"oracle": ORACLE, "oracle-by-purity": PURE_ORACLE}


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = evaluate.command("grid", f"{__doc__}\n\n{evaluate.RESUMES}", EXAMPLES)
    add = parser.add_argument
    learned = "a mask-based method or the recipe of its masks (its shipped ones), or FILE.safetensors"
    text = f"sources: {TRUTH}, {', '.join(UNTRAINED)}, {learned}"
    add("--masks", nargs="+", required=True, metavar="SOURCE", help=text)
    text = f"{', '.join(CLASSIFIERS)}, or {VOTE}METHOD: the class that most pixels have in that method's label map"
    add("--classifier", nargs="+", required=True, metavar="NAME", help=text)
    evaluate.add_sets(parser, "icon-voc20")
    add("--budget", type=int, default=BUDGET, help=f"masks per image; the truth gives all ({BUDGET})")
    add("--clip", metavar="NAME", help="whose crops and features name regions, and votes are of (the profile's)")
    add("--pretrained", metavar="TAG", help="lite, an open_clip tag or a file (the profile's)")
    evaluate.add_counts(parser)
    text = "prompts of the class names (vild14 for crops and features, each voting method's own for its votes)"
    add("--templates", choices=TEMPLATES, help=text)
    return parser


@ends_in_order
def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate grid`."""
    args = build_parser().parse_args(argv)
    evaluate.check_outputs(args.out)
    if args.budget < 1:
        raise ValueError(f"got --budget {args.budget}, expected at least 1")
    masks, names = list(dict.fromkeys(args.masks)), list(dict.fromkeys(args.classifier))
    voting = {name: method_class(name.removeprefix(VOTE)) for name in names if name.startswith(VOTE)}
    plain = {
        lookup(CLASSIFIERS | {f"{VOTE}METHOD": ""}, name, "classifier"): name for name in names if name not in voting
    }
    folders, chosen = evaluate.open_splits(args), get_profile(args.profile).clip
    start_process_group()
    sources = {name: mask_source(name) for name in masks if name != TRUTH}
    clip, pretrained = args.clip or chosen.name, args.pretrained or chosen.pretrained
    methods = {name: _method(kind, clip, pretrained) for name, kind in voting.items()}
    reader = load(clip=clip, pretrained=pretrained).clip
    weights = {name: evaluate.weights_of(method) for name, method in methods.items()}
    weights |= {name: source_digest(source) for name, source in sources.items()} | {"clip": clip_digest(reader)}
    grids, keys = {}, []
    for name, folder in folders.items():
        vocabulary = load_vocabulary(name)
        maps = {column: label_maps(method, vocabulary, args.templates) for column, method in methods.items()}
        settings = (args.templates or "vild14", args.budget, maps, TRUTH in masks)
        counter = grid_counter(reader, vocabulary, sources, list(plain), *settings)
        about = [name, counter.rows, counter.columns, args.templates, args.budget, weights]
        grids[name], key = evaluate.counted(args, counter, name, folder, "grid", *about)
        keys.append(key)
    called = {GROUND_TRUTH: TRUTH} | plain
    sets = {name: {"folder": str(folders[name]), **_facts(grid, called)} for name, grid in grids.items()}
    about = {"clip": clip, "pretrained": pretrained, "templates": args.templates, "budget": args.budget}
    evaluate.finish(args, keys, as_markdown(grids, called), {**about, "sets": sets})


def mask_source(name: str) -> MaskSource:
    """A source by its name on the command line. Raises ValueError listing the names, FileNotFoundError for a file."""
    if name in UNTRAINED:
        return UNTRAINED[name]
    if Path(name).suffix == ".safetensors":
        return load_proposer(name).propose
    known = {TRUTH: "", **dict.fromkeys(UNTRAINED, ""), **mask_methods()}
    return load(lookup(known, name, "masks")).method.proposer.propose


def source_digest(source: MaskSource) -> list[str]:
    """Of the weights of the model that a source asks; nothing for one without."""
    model = getattr(source, "__self__", None)
    return evaluate.weights_of(model) if hasattr(model, "state_dict") else []


def _method(kind: type[Method], clip: str, pretrained: str | None) -> Method:
    """A method whose map votes; one with an encoder of its own takes no CLIP."""
    given = (clip, pretrained) if kind.load_own is None else (ClipConfig.name, ClipConfig.pretrained)
    return load(kind.name, None, *given).method


def cells(grid: RegionGrid) -> list[tuple[str, str]]:
    """Every pair of source and classifier that was measured, row by row."""
    return [(source, classifier) for source, row in grid.table.items() for classifier in row]


def as_markdown(grids: Mapping[str, RegionGrid], called: Mapping[str, str]) -> str:
    """A row per set and cell, in %. called: names on the command line of sources and classifiers."""
    rows = []
    for name, grid in grids.items():
        for cell in cells(grid):
            report = grid.report(*cell)
            figures = [percent(report.scores.miou, 2), evaluate.ends(miou_interval(report))]
            shown = _called(cell, called)
            rows.append([name, str(grid.images), *shown, *figures, percent(report.scores.pixel_accuracy, 2)])
    return markdown_table(COLUMNS, rows)


def _called(cell: Sequence[str], called: Mapping[str, str]) -> list[str]:
    return [called.get(part, part) for part in cell]


def _facts(grid: RegionGrid, called: Mapping[str, str]) -> dict[str, Any]:
    """A grid as JSON takes it."""
    found = []
    for cell in cells(grid):
        report, (masks, classifier) = grid.report(*cell), _called(cell, called)
        interval, scores = miou_interval(report), report.scores
        iou = dict(zip(report.names, scores.iou.tolist(), strict=True))
        about = {"masks": masks, "classifier": classifier, "interval": [interval.low, interval.high]}
        found.append({**about, **vars(scores), "iou": iou})
    return {"images": grid.images, "cells": found}
