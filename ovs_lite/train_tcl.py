"""`ovs-lite train tcl`: learn text-grounded masks from pictures and their captions, on a frozen CLIP."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from ovs_lite.checkpoints import save_method
from ovs_lite.clip import Clip, load_clip
from ovs_lite.config import PROFILES, Profile, TclConfig, data_root, get_profile, runs_root
from ovs_lite.data.iconworld.build import split_folder
from ovs_lite.data.pairs import PairBatches
from ovs_lite.data.prefetch import Prefetched
from ovs_lite.data.record import load_split
from ovs_lite.data.webshards import WebShards
from ovs_lite.distributed import is_main
from ovs_lite.methods.tcl import Tcl
from ovs_lite.methods.tcl_training import WEIGHTS, TclTraining
from ovs_lite.train import LoopConfig, OnStep, train
from ovs_lite.train_arguments import add_config_flags, add_loop_flags, add_run_flags, training_parser

EXAMPLE = """examples:
  ovs-lite train tcl --out runs/tcl
  ovs-lite train tcl --area 0 --steps 40 --out runs/tcl-without-area
  accelerate launch -m ovs_lite.train tcl --profile paper --shards 'cc3m/{00000..00331}.tar' 'cc12m/*.tar'
The same command again goes on where the last one stopped."""
WEIGHTS_FILE = "tcl.safetensors"


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments; None means the profile's value."""
    parser = training_parser("ovs-lite train tcl", __doc__, EXAMPLE)
    parser.add_argument("--profile", choices=PROFILES, default="lite", help="CLIP, data and training")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="folder of a prepared split with captions (default: the profile's)")
    source.add_argument("--shards", nargs="+", help="webdataset shards with pictures and texts")
    parser.add_argument("--clip", help="the frozen CLIP, an open_clip ViT (default: the profile's)")
    parser.add_argument("--pretrained", help="its weights: lite, an open_clip tag, or a file (default: the profile's)")
    add_config_flags(parser, [PROFILES["lite"].tcl])
    add_loop_flags(parser, checkpoint_every=500)
    add_run_flags(parser, "runs/tcl")
    return parser


def tcl_config(profile: Profile, args: argparse.Namespace) -> TclConfig:
    """The profile's configuration, with what the command line changes."""
    names = [item.name for item in fields(TclConfig) if item.name != "shards"]  # that flag is paths, not a pattern
    given = {name: getattr(args, name, None) for name in names}
    return replace(profile.tcl, **{name: value for name, value in given.items() if value is not None})


def training_pairs(profile: Profile, shards: Sequence[str] | None = None) -> Sequence:
    """Pictures with captions: of `shards`, else of the profile's (below the data folder), else `icon-caption`."""
    patterns = shards or [str(data_root() / pattern) for pattern in profile.tcl.shards]
    if patterns:
        return WebShards(patterns)
    return load_split(split_folder(data_root(), profile.data, "icon-caption", "train"))


def pair_batches(split: Sequence, config: TclConfig, seed: int = 0) -> PairBatches:
    """The pairs of a split in batches, as the configuration wants them."""
    settings = (config.batch, config.image_size, seed, config.scale)
    return PairBatches(split, *settings, augment=config.augment, workers=config.workers)


def tcl_task(clip: Clip, batches: PairBatches, config: TclConfig, accumulation: int = 1) -> TclTraining:
    """What the loop trains: a grounder that starts from the CLIP."""
    aside = config.workers == 0 and config.augment == "crop"  # nothing global is drawn: a thread can prepare batches
    unfreeze = round(config.unfreeze * config.steps) * accumulation if config.unfreeze < 1 else None
    weights = {name: getattr(config, name) for name in WEIGHTS}
    priors = (config.positive_area, config.negative_area)
    source = Prefetched(batches) if aside else batches
    task = TclTraining(Tcl(clip), source, weights, unfreeze, priors, variant=config.variant)
    if config.image_size % clip.patch_size:  # the masks would be stretched over a rest that no patch sees
        given = f"image_size={config.image_size}"
        raise ValueError(f"got {given}, expected a multiple of the CLIP's patch, {clip.patch_size} pixels")
    return task


def loop_config(config: TclConfig, **changes) -> LoopConfig:
    """The training loop's part of the configuration: AdamW throughout."""
    names = ("steps", "lr", "weight_decay", "warmup")
    return LoopConfig(**{name: getattr(config, name) for name in names} | {"clip": config.clip_norm, "muon_lr": 0.0}
                      | changes)  # fmt: skip


def task_settings(config: TclConfig) -> dict[str, Any]:
    """What makes it another training when it changes; the loop knows its own part."""
    loop = {"steps", "lr", "weight_decay", "warmup", "clip_norm", "workers", "unfreeze", "shards"}
    return {name: value for name, value in asdict(config).items() if name not in loop}


def main(argv: list[str] | None = None, on_step: OnStep | None = None) -> None:
    """Entry point of `ovs-lite train tcl`. on_step: see `ovs_lite.train.train`; it replaces the progress bar."""
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    profile = get_profile(args.profile)
    config, out = tcl_config(profile, args), args.out or runs_root() / "tcl"
    split = load_split(args.data) if args.data else training_pairs(profile, args.shards)
    torch.manual_seed(args.seed)
    clip = load_clip(args.clip or profile.clip.vit, args.pretrained or profile.clip.pretrained)
    batches = pair_batches(split, config, args.seed)
    task = tcl_task(clip, batches, config, args.accumulation)
    changes = {"accumulation": args.accumulation, "precision": args.precision, "seed": args.seed}
    loop = loop_config(config, checkpoint_every=args.checkpoint_every, **changes)
    settings = task_settings(config) | {"clip": clip.fingerprint(), "image_tower": clip.image_fingerprint()}
    settings |= {"pairs": len(split)}
    rows = train(task, loop, out, not args.fresh, on_step, on_step is None, settings)
    if is_main():
        save_method(task.method, out / WEIGHTS_FILE, {"steps": str(config.steps), "seed": str(args.seed)})
        print(f"wrote {out / WEIGHTS_FILE}; last loss {rows[-1]['loss'] if rows else 'unchanged'}")
        if isinstance(split, WebShards):
            shards = f"{len(split):,} pairs in {len(split.paths)} shards, {split.bad_shards} bad shards left out"
            print(f"{shards}; {len(batches.skipped)} bad pairs met by this process")


if __name__ == "__main__":
    main()
