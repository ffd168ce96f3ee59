"""Measure mask proposals: recall at IoU 0.5, 0.7, 0.9 with a budget, next to classical ones (OpenSeg, Table 1)."""

import argparse
from dataclasses import asdict
from pathlib import Path

from ovs_lite.commands import evaluate
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import start_process_group
from ovs_lite.evaluation.metrics.recall import BUDGET
from ovs_lite.evaluation.proposals import GROUPS, RecallReport, proposal_counter
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.regions.sources import CLASSICAL, MaskSource
from ovs_lite.viz.tables import markdown_table, percent

EXAMPLES = """ovs-lite evaluate proposals runs/openseg-proposals/proposals.safetensors
ovs-lite evaluate proposals --set icon-context59 --images 50 --out recall.json"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = evaluate.command("proposals", f"{__doc__}\n\n{evaluate.RESUMES}", EXAMPLES)
    text = "what `train openseg-proposals`, `maskformer` or `uniovseg-masks` wrote; without any, the baselines only"
    parser.add_argument("files", nargs="*", type=Path, help=text)
    evaluate.add_sets(parser, "icon-coco", profile="whose data")
    evaluate.add_counts(parser)
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"proposals per image ({BUDGET})")
    parser.add_argument("--no-baselines", action="store_true", help="leave the classical proposals out")
    return parser


@ends_in_order
def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate proposals`."""
    args = build_parser().parse_args(argv)
    evaluate.check_outputs(args.out)
    if args.budget < 1:
        raise ValueError(f"got budget={args.budget}, expected at least 1")
    start_process_group()
    sources: dict[str, MaskSource] = {} if args.no_baselines else dict(CLASSICAL)
    proposers = {str(path): load_proposer(path) for path in args.files}
    sources |= {name: proposer.propose for name, proposer in proposers.items()}
    if not sources:
        raise ValueError("got --no-baselines and no file, expected something to measure")
    seen, tables, sets, keys = load_vocabulary("icon-coco").names, [], {}, []
    about = [args.budget, list(sources), [evaluate.weights_of(proposer) for proposer in proposers.values()]]
    for name, folder in evaluate.open_splits(args).items():
        counter = proposal_counter(sources, load_vocabulary(name), seen, budget=args.budget)
        report, key = evaluate.counted(args, counter, name, folder, "proposals", name, *about)
        keys.append(key)
        tables.append(as_markdown(report, args.budget, name))
        sets[name] = {"folder": str(folder), **asdict(report)}
    evaluate.finish(args, keys, "\n\n".join(tables), {"budget": args.budget, "sets": sets})


def as_markdown(report: RecallReport, budget: int, name: str = "proposals") -> str:
    """The report as a table, recall in %, a column per threshold and group of classes that has targets."""
    groups = [group for group in GROUPS if report.targets[group]]
    table = report.table(groups)
    columns = list(next(iter(table.values())))
    counts = ", ".join(f"{report.targets[group]} {group}" for group in groups)
    head = f"{report.images} images, at most {budget} proposals each; targets: {counts}"
    rows = [[source, *(percent(row[column]) for column in columns)] for source, row in table.items()]
    return f"{head}\n\n{markdown_table([name, *columns], rows)}"
