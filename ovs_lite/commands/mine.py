"""`ovs-lite mine`: pairs of a region and a noun, out of images with captions."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ovs_lite.clip import load_clip
from ovs_lite.commands.shares import ARRAYS, add_job, share_of, unfinished
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.data.record import load_split
from ovs_lite.distributed import own_device
from ovs_lite.files import data_path, printable
from ovs_lite.methods.pair_mining import TRUTH, MiningConfig, mine, pair_statistics
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.viz.image_files import check_image_path, save_image
from ovs_lite.viz.sheets import pair_sheet

EXAMPLE = """ovs-lite mine icon-lite/icon-caption/train --masks runs/openseg-proposals/proposals.safetensors \\
    --out icon-lite/pairs/train --sheet pairs.png"""
DEFAULTS = MiningConfig()


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite mine", description=f"{__doc__}\n\n{ARRAYS}", epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add_job(parser)
    add("--masks", default=TRUTH, help=f"file of proposals, or {TRUTH}: the split's own segments ({TRUTH})")
    add("--clip", default="ViT-Lite-8", help="which CLIP compares (ViT-Lite-8)")
    add("--pretrained", default="lite", help="its weights: lite, an open_clip tag, or a file (lite)")
    add("--captions", type=int, default=DEFAULTS.captions, help=f"of an image, the first ones ({DEFAULTS.captions})")
    add("--least", type=float, default=DEFAULTS.least, help="least cosine of a pair (any)")
    add("--budget", type=int, default=DEFAULTS.budget, help=f"proposals per image ({DEFAULTS.budget})")
    add("--templates", default=DEFAULTS.templates, help=f"sentences for a noun ({DEFAULTS.templates})")
    names = "vocabularies whose names of several words stay together"
    add("--compounds", nargs="*", default=DEFAULTS.compounds, metavar="V", help=f"{names} ({DEFAULTS.compounds[0]})")
    add("--tagger", default=DEFAULTS.tagger, help=f"shipped, nltk, or auto ({DEFAULTS.tagger})")
    words = "vocabulary: then words are the classes of the split's own segments, and no caption is read"
    add("--classes", default=DEFAULTS.classes, metavar="V", help=f"{words} (none)")
    add("--sheet", type=Path, help="image file for the best and the worst pairs")
    return parser


@ends_in_order
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `ovs-lite mine`."""
    args = build_parser().parse_args(argv)
    if args.sheet:
        check_image_path(args.sheet)
    share = share_of(args)
    args.compounds = tuple(args.compounds)
    config = MiningConfig(**{field.name: getattr(args, field.name) for field in fields(MiningConfig)})
    device = own_device()
    proposer = None if args.masks == TRUTH else load_proposer(args.masks).to(device)
    clip, out = load_clip(args.clip, args.pretrained, device), data_path(args.out)
    if not mine(data_path(args.source), out, clip, proposer, config, args.limit, share=share):
        print(unfinished(out, share))
        return
    pairs = load_split(out)
    said = ", ".join(f"{name} {value:.4g}" for name, value in pair_statistics(pairs).items())
    print(printable(f"wrote {out}: {said}"))
    if args.sheet:
        save_image(pair_sheet(pairs), args.sheet)
        print(printable(f"wrote {args.sheet}"))
