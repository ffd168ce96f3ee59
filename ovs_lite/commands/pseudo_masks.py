"""`ovs-lite pseudo-masks`: masks for a split that has captions only, as a teacher draws them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ovs_lite.commands.shares import ARRAYS, add_job, share_of, unfinished
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
    add_job(parser)
    add("--least", type=float, default=LEAST, help=f"proposals that must agree on a region ({LEAST})")
    add("--most", type=int, default=MOST, help=f"masks per image ({MOST})")
    return parser


@ends_in_order
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `ovs-lite pseudo-masks`."""
    args = build_parser().parse_args(argv)
    out, share, device = data_path(args.out), share_of(args), own_device()
    whole = write_pseudo_masks(
        args.teacher, data_path(args.source), out, args.least, args.most, args.limit, device=device, share=share
    )
    print(printable(f"wrote {out}") if whole else unfinished(out, share))
