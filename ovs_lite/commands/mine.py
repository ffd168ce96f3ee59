"""`ovs-lite mine`: pairs of a region and a noun, out of images with captions.

Several processes, or machines with a common folder: start the same command in each; each takes what no other has.
The same command again resumes what was stopped, and says what was mined.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from ovs_lite.clip import load_clip
from ovs_lite.data.images import read_image
from ovs_lite.data.record import load_split
from ovs_lite.data.rle import decode_rle
from ovs_lite.files import data_path, printable
from ovs_lite.methods.ovseg.mining import TRUTH, MiningConfig, mine, pair_statistics
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.viz.image_files import check_image_path, save_image
from ovs_lite.viz.sheets import contact_sheet

EXAMPLE = """ovs-lite mine icon-lite/icon-caption/train --masks runs/openseg-proposals/proposals.safetensors \\
    --out icon-lite/icon-pairs/train --sheet pairs.png"""
SHOWN = 18  # best and worst pairs of a contact sheet, each
DEFAULTS = MiningConfig()


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite mine", description=__doc__, epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("source", help="prepared split with captions: a folder, or one below data/")
    add("--out", required=True, help="folder to write, or one below data/")
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
    add("--limit", type=int, help="only so many images, the first ones")
    add("--sheet", type=Path, help="image file for the best and the worst pairs")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `ovs-lite mine`."""
    args = build_parser().parse_args(argv)
    if args.sheet:
        check_image_path(args.sheet)
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"got --limit {args.limit}, expected at least 1")
    args.compounds = tuple(args.compounds)
    config = MiningConfig(**{field.name: getattr(args, field.name) for field in fields(MiningConfig)})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    proposer = None if args.masks == TRUTH else load_proposer(args.masks).to(device)
    clip, out = load_clip(args.clip, args.pretrained, device), data_path(args.out)
    if not mine(data_path(args.source), out, clip, proposer, config, args.limit):
        print(printable(f"others still work on {out}; the last of them puts it together"))
        return
    pairs = load_split(out)
    said = ", ".join(f"{name} {value:.4g}" for name, value in pair_statistics(pairs).items())
    print(printable(f"wrote {out}: {said}"))
    if args.sheet:
        save_image(pair_sheet(pairs), args.sheet)
        print(printable(f"wrote {args.sheet}"))


def pair_sheet(pairs: Dataset, shown: int = SHOWN) -> Image.Image:
    """The best and then the worst pairs by their cosine, what is not the region darkened: PIL RGB."""
    scores = np.array([pair["score"] for pair in pairs["pair"]])
    order = np.argsort(-scores, kind="stable").tolist()
    chosen = order if len(order) <= 2 * shown else order[:shown] + order[-shown:]
    images, captions = [], []
    for row in chosen:
        image, mask = read_image(pairs[row]["image"]), decode_rle(pairs[row]["masks"][0])
        pixels = np.array(image) * (0.25 + 0.75 * mask[..., None])
        images.append(Image.fromarray(pixels.astype(np.uint8)))
        captions.append(f"{pairs[row]['captions'][0]} {scores[row]:.2f}")
    return contact_sheet(images, captions, side=96)
