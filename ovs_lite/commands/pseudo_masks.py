"""`ovs-lite pseudo-masks`: masks for a split that has captions only, as a teacher draws them.

Several processes, or machines with a common folder: start the same command in each; each takes what no other has.
The same command again resumes what was stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from ovs_lite.files import data_path, printable
from ovs_lite.methods.pseudo_masks import LEAST, MOST, write_pseudo_masks

EXAMPLE = """ovs-lite pseudo-masks runs/openseg-proposals/proposals.safetensors icon-lite/icon-caption/train \\
    --out icon-lite/icon-caption-pseudo/train"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite pseudo-masks", description=__doc__, epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("teacher", type=Path, help="file of proposals, of ovs-lite train openseg-proposals")
    add("source", help="prepared split with captions: a folder, or one below data/")
    add("--out", required=True, help="folder to write, or one below data/")
    add("--least", type=float, default=LEAST, help=f"proposals that must agree on a region ({LEAST})")
    add("--most", type=int, default=MOST, help=f"masks per image ({MOST})")
    add("--limit", type=int, help="annotate only so many images, the first ones")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `ovs-lite pseudo-masks`."""
    args = build_parser().parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = data_path(args.out)
    whole = write_pseudo_masks(
        args.teacher, data_path(args.source), out, args.least, args.most, args.limit, device=device
    )
    print(printable(f"wrote {out}" if whole else f"others still work on {out}; the last of them puts it together"))
