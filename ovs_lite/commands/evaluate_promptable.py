"""Measure a promptable segmenter: how well its best answers to points and boxes fit known masks (Uni-OVSeg, Fig. 3)."""

import argparse
from pathlib import Path

from ovs_lite.commands import evaluate
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.distributed import start_process_group
from ovs_lite.evaluation.metrics.intervals import Estimate
from ovs_lite.evaluation.promptable import GRID, KINDS, PromptCounter
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.segmenter import load
from ovs_lite.viz.tables import markdown_table, percent

EXAMPLES = """ovs-lite evaluate promptable --method uniovseg --set icon-coco --images 60
ovs-lite evaluate promptable --masks runs/uniovseg-masks/proposals.safetensors --kind 1-box"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = evaluate.command("promptable", f"{__doc__}\n\n{evaluate.RESUMES}", EXAMPLES)
    evaluate.add_sets(parser, "icon-coco", profile="whose data")
    evaluate.add_counts(parser)
    add = parser.add_argument
    add("--method", metavar="NAME", help="a method that takes points and boxes")
    add("--masks", type=Path, metavar="FILE", help="what `train uniovseg-masks` wrote, instead of a method")
    add("--kind", nargs="+", choices=KINDS, default=list(KINDS), help=f"prompts (all: {', '.join(KINDS)})")
    add("--grid", type=int, default=GRID, help=f"points per side, of the kind 1-point ({GRID})")
    return parser


@ends_in_order
def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate promptable`."""
    args = build_parser().parse_args(argv)
    evaluate.check_outputs(args.out)
    if (args.method is None) == (args.masks is None):
        given = "neither" if args.masks is None else "both"
        raise ValueError(f"got {given} of --method and --masks, expected one of them")
    folders, kinds = evaluate.open_splits(args), list(dict.fromkeys(args.kind))
    start_process_group()
    prompter = load_proposer(args.masks) if args.method is None else load(args.method).method.prompter
    if not hasattr(prompter, "masks_at"):
        raise ValueError(f"{args.masks}: got weights of {prompter.recipe}, expected those that answer prompts")
    counter = PromptCounter(prompter.masks_at, prompter.look, tuple(kinds), args.grid)
    rows, sets, keys = [], {}, []
    for name, folder in folders.items():
        about = ["promptable", kinds, args.grid, evaluate.weights_of(prompter)]
        report, key = evaluate.counted(args, counter, name, folder, *about)
        keys.append(key)
        found = {kind: report.iou(kind) for kind in kinds}
        counts = [name, str(len(report.image_ids)), str(report.masks)]
        rows.append([*counts, *map(_cell, found.values())])
        sets[name] = {"folder": str(folder), "masks": report.masks, "iou": {k: vars(one) for k, one in found.items()}}
    table = markdown_table(("set", "images", "masks", *kinds), rows)
    evaluate.finish(args, keys, table, {"prompter": args.method or str(args.masks), "grid": args.grid, "sets": sets})


def _cell(found: Estimate) -> str:
    interval = "" if found.note else f" ({percent(found.low)} to {percent(found.high)})"
    return percent(found.value) + interval
