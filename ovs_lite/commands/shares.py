"""The arguments of the jobs that write a split from another in parts, and what they say at the end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ovs_lite.files import printable

if TYPE_CHECKING:  # heavy, and --help should answer at once
    from ovs_lite.data.parts import Share

ARRAYS = """Several processes, or machines with a common folder: start the same command in each, by hand or with
torchrun or accelerate launch -m ovs_lite, which give each a GPU; each takes what no other has. The same command
again resumes what was stopped. An array of N jobs needs no locks: --part K/N in job K, from 1, and --merge N in a
job that waits for all of them. The same bytes come out.
"""


def add_job(parser: argparse.ArgumentParser) -> None:
    """The split that is read and the one that is written, `--limit`, and what `add_share` adds."""
    parser.add_argument("source", help="prepared split with captions: a folder, or one below data/")
    parser.add_argument("--out", required=True, help="folder to write, or one below data/")
    parser.add_argument("--limit", type=int, help="only so many images, the first ones")
    add_share(parser)


def add_share(parser: argparse.ArgumentParser) -> None:
    """`--part K/N` and `--merge N`; `share_of` reads them."""
    text = "make only what is job K's of N, from 1; --merge N puts all of them together"
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--part", metavar="K/N", help=text)
    one.add_argument("--merge", type=int, metavar="N", help="put together what N jobs made with --part; makes nothing")


def share_of(args: argparse.Namespace) -> Share | None:
    """Which job this is; None for none of an array. Raises ValueError for what is no K/N, and for --limit below 1."""
    from ovs_lite.data.parts import Share

    if args.limit is not None and args.limit < 1:
        raise ValueError(f"got --limit {args.limit}, expected at least 1")
    if args.merge is not None:
        return Share(0, args.merge)
    if args.part is None:
        return None
    number, _, count = args.part.partition("/")
    if not (number.isdecimal() and count.isdecimal()) or not int(number):
        raise ValueError(f"got --part {args.part}, expected K/N with K from 1 to N, such as 3/64")
    return Share(int(number), int(count))


def unfinished(out: Path, share: Share | None) -> str:
    """What a job says that ends before the split is complete."""
    if share is None or not share.number:
        return printable(f"others still work on {out}; the last of them puts it together")
    return printable(f"made part {share.number}/{share.count} of {out}; all of them together: --merge {share.count}")
