"""`ovs-lite data plan | get | prepare`: their arguments and output. Heavy imports stand inside the commands."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovs_lite.commands.shares import add_share, share_of
from ovs_lite.files import printable


def add_public_sets(actions: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the parsers of plan, get and prepare. command: (actions, name, run, text, example) -> a parser."""
    text = "say what public sets take: what is missing, disk, time, licence"
    planned = command(actions, "plan", _plan, text, "ovs-lite data plan coco-panoptic ade150")
    planned.add_argument("sets", nargs="*", metavar="SET", help="names from ovs-lite data list; all otherwise")
    planned.add_argument("--rate", type=float, default=10.0, metavar="MB/S", help="what the network brings")
    text = "download and unpack public sets, or say what to put where; what is there is kept, and a stopped run resumes"
    fetched = command(actions, "get", _get, text, "ovs-lite data get voc20 --discard")
    fetched.add_argument("sets", nargs="+", metavar="SET", help="names from ovs-lite data list")
    fetched.add_argument(
        "--links", type=Path, metavar="FILE", help="file names and addresses that you were given (SA-1B)"
    )
    fetched.add_argument("--limit", type=int, metavar="N", help="the first N of --links")
    fetched.add_argument("--discard", action="store_true", help="remove archives once they are unpacked")
    text = "turn what was downloaded of a public set into records in data/SET/SPLIT; a split that was stopped begins"
    text += " again, unless it is made by --part 1/1 and --merge 1, which resume where they were; a part has"
    text += " up to 4,096 images"
    example = "ovs-lite data prepare ade150 --from path/to/ade20k --splits val --limit 100"
    prepared = command(actions, "prepare", _prepare, text, example)
    prepared.add_argument("set", help="name from ovs-lite data list")
    prepared.add_argument(
        "--from", type=Path, dest="root", metavar="FOLDER", help="where it lies, instead of downloads"
    )
    prepared.add_argument("--splits", nargs="+", default=[], metavar="SPLIT", help="these instead of all")
    prepared.add_argument("--limit", type=int, metavar="N", help="the first N images of each split")
    prepared.add_argument("--subset", action="store_true", help="of the listed images some may be absent")
    add_share(prepared)
    prepared.add_argument("--fresh", action="store_true", help="make splits again that are there")
    text = "share of images, and of annotations, that may be unusable"
    prepared.add_argument("--max-skipped", type=float, default=0.01, metavar="SHARE", help=text)


def _plan(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data_sets import plan

    for line in plan(args.sets, args.rate):
        print(printable(line))


def _get(args: argparse.Namespace) -> int:
    from ovs_lite.commands.data_sets import get

    missing = 0
    for step in get(args.sets, args.links, args.limit, args.discard):
        print(printable(f"{'TO DO' if step.todo else 'ok   '} {step.text}"), flush=True)
        missing += step.todo
    return int(missing > 0)


def _prepare(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data_sets import prepare_set

    options = (args.splits, args.limit, args.subset, args.fresh, args.max_skipped, share_of(args))
    try:
        for line in prepare_set(args.set, args.root, *options):
            print(printable(line), flush=True)
    except ValueError as error:  # an error is one line: the list of what was skipped stands before it
        said, *listed = str(error).split("\n")
        for line in listed:
            print(printable(line), file=sys.stderr)
        raise ValueError(said) from error
