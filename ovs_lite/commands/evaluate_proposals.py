"""Measure mask proposals: recall at IoU 0.5, 0.7, 0.9 with a budget, beside classical ones (OpenSeg, Table 1)."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ovs_lite.config import PROFILES, get_profile
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.metrics.recall import BUDGET
from ovs_lite.evaluation.proposals import GROUPS, RecallReport, evaluate_proposals
from ovs_lite.files import data_root, write_json
from ovs_lite.iconworld.build import split_folder
from ovs_lite.iconworld.sets import SET_NAMES
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.regions.sources import CLASSICAL, MaskSource

EXAMPLE = """examples:
  ovs-lite evaluate proposals runs/proposals/openseg/proposals.safetensors
  ovs-lite evaluate proposals --set icon-context59 --images 50 --out recall.json"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite evaluate proposals",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, help="what `train proposals` wrote; without any, baselines only")
    parser.add_argument("--set", default="icon-coco", choices=SET_NAMES, help="its val split (default icon-coco)")
    parser.add_argument("--data", type=Path, help="folder of a split, instead of the profile's")
    parser.add_argument("--profile", choices=PROFILES, default="lite", help="whose data")
    parser.add_argument("--images", type=int, help="the first so many pictures (default all)")
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"proposals per picture (default {BUDGET})")
    parser.add_argument("--no-baselines", action="store_true", help="leave the classical proposals out")
    parser.add_argument("--out", type=Path, help="FILE.json with everything, recall by budget too")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate proposals`."""
    args = build_parser().parse_args(argv)
    sources: dict[str, MaskSource] = {} if args.no_baselines else dict(CLASSICAL)
    for path in args.files:
        sources[str(path)] = load_proposer(path).propose
    if not sources:
        raise ValueError("got --no-baselines and no file, expected something to measure")
    folder = args.data or split_folder(data_root(), get_profile(args.profile).data, args.set, "val")
    split = load_split(folder)
    count = min(args.images or len(split), len(split))
    records = tqdm((split[i] for i in range(count)), str(folder.parent.name), total=count)
    seen = load_vocabulary("icon-coco").names
    report = evaluate_proposals(records, sources, load_vocabulary(args.set), seen, budget=args.budget)
    print(as_markdown(report, args.budget))
    if args.out:
        write_json(args.out, {"folder": str(folder), "budget": args.budget} | _without_nan(asdict(report)))


def as_markdown(report: RecallReport, budget: int) -> str:
    """The report as a table, recall in %, a column per threshold and group of classes that has targets."""
    groups = [group for group in GROUPS if report.targets[group]]
    table = report.table(groups)
    columns = list(next(iter(table.values())))
    counts = ", ".join(f"{report.targets[group]} {group}" for group in groups)
    lines = [f"{report.images} pictures, at most {budget} proposals each; targets: {counts}", ""]
    lines += [f"| proposals | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    lines += [f"| {name} | {' | '.join(f'{100 * row[c]:.1f}' for c in columns)} |" for name, row in table.items()]
    return "\n".join(lines)


def _without_nan(content: Any) -> Any:
    """Nested dictionaries with None for NaN, which JSON does not know."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    return None if content != content else content
