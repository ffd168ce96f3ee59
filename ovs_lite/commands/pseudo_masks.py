"""`ovs-lite pseudo-masks`: masks for a split that has captions only, as a teacher draws them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ovs_lite.commands.shares import ARRAYS, add_share, share_of, unfinished
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.distributed import own_device
from ovs_lite.files import data_path, printable
from ovs_lite.methods.pseudo_masks import LEAST, MOST, write_pseudo_masks

EXAMPLE = """ovs-lite pseudo-masks runs/openseg-proposals/proposals.safetensors icon-lite/icon-caption/train \\
    --out icon-lite/icon-caption-pseudo/train"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite pseudo-masks", description=f"{__doc__}\n\n{ARRAYS}", epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("teacher", type=Path, help="file of proposals, of ovs-lite train openseg-proposals")
    add("source", help="prepared split with captions: a folder, or one below data/")
    add("--out", required=True, help="folder to write, or one below data/")
    add("--least", type=float, default=LEAST, help=f"proposals that must agree on a region ({LEAST})")
    add("--most", type=int, default=MOST, help=f"masks per image ({MOST})")
    add("--limit", type=int, help="annotate only so many images, the first ones")
    add_share(parser)
    return parser


@ends_in_order
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `ovs-lite pseudo-masks`."""
    args = build_parser().parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"got --limit {args.limit}, expected at least 1")
    device = own_device()
    out, share = data_path(args.out), share_of(args)
    whole = write_pseudo_masks(
        args.teacher, data_path(args.source), out, args.least, args.most, args.limit, device=device, share=share
    )
    print(printable(f"wrote {out}") if whole else unfinished(out, share))
