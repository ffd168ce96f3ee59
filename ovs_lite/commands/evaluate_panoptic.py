"""Measure a method's panoptic segmentation: PQ, SQ and RQ on one or more prepared sets (Uni-OVSeg, Table 2)."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovs_lite.commands import evaluate
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.config import get_profile
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import start_process_group
from ovs_lite.evaluation.panoptic import PanopticCounter, PanopticReport, pq_interval, predictor
from ovs_lite.methods import METHODS
from ovs_lite.segmenter import load
from ovs_lite.viz.tables import markdown_table, percent

EXAMPLES = """ovs-lite evaluate panoptic --method uniovseg --set icon-coco --images 100
ovs-lite evaluate panoptic --method uniovseg --object-threshold 0.5 --out panoptic.json"""
COLUMNS = ("set", "images", "segments of", "PQ", "95 % interval", "SQ", "RQ")


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = evaluate.command("panoptic", f"{__doc__}\n\n{evaluate.RESUMES}", EXAMPLES)
    evaluate.add_sets(parser, "icon-coco")
    evaluate.add_counts(parser)
    add = parser.add_argument
    add("--method", required=True, metavar="NAME", help=f"whose masks are of single things, of {', '.join(METHODS)}")
    add("--checkpoint", type=Path, metavar="FILE", help="trained weights of the method")
    add("--object-threshold", type=float, metavar="X", help="least score of a segment (the method's own)")
    add("--overlap-threshold", type=float, metavar="X", help="least share of a mask that it wins (the method's own)")
    return parser


@ends_in_order
def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate panoptic`."""
    args = build_parser().parse_args(argv)
    evaluate.check_outputs(args.out)
    folders, clip = evaluate.open_splits(args), get_profile(args.profile).clip
    start_process_group()
    method = load(args.method, args.checkpoint, clip.name, clip.pretrained).method
    given = {"object_threshold": args.object_threshold, "overlap_threshold": args.overlap_threshold}
    options = {name: value for name, value in given.items() if value is not None}
    reports, keys = {}, []
    for name, folder in folders.items():
        vocabulary = load_vocabulary(name)
        predict = predictor(method, vocabulary, options)
        counter = PanopticCounter(predict, vocabulary, {"method": method.name, **options})
        about = ["panoptic", name, evaluate.weights_of(method), options]
        reports[name], key = evaluate.counted(args, counter, name, folder, *about)
        keys.append(key)
    sets = {name: {"folder": str(folders[name]), **_facts(report)} for name, report in reports.items()}
    content = {"checkpoint": args.checkpoint and str(args.checkpoint), "sets": sets}
    evaluate.finish(args, keys, as_markdown(reports), content)


def as_markdown(reports: Mapping[str, PanopticReport]) -> str:
    """Three rows for each set, in %: of all classes, of things, of stuff; a group without a class has none."""
    rows = []
    for name, report in reports.items():
        for group, found in report.table().items():
            if not np.isnan(found["PQ"]):
                scores = [percent(found[key], 2) for key in ("PQ", "SQ", "RQ")]
                interval = evaluate.ends(pq_interval(report, group))
                rows.append([name, str(report.images), group, scores[0], interval, *scores[1:]])
    return markdown_table(COLUMNS, rows)


def _facts(report: PanopticReport) -> dict[str, Any]:
    """A report as JSON takes it."""
    by_name = {name: vars(quality) for name, quality in report.by_name.items()}
    return {"images": report.images, "protocol": report.protocol, "groups": report.table(), "classes": by_name}
