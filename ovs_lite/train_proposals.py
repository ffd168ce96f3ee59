"""`ovs-lite train proposals`: train a model that proposes masks, OpenSeg's or OVSeg's MaskFormer."""

import argparse
from dataclasses import fields, replace
from pathlib import Path

import torch
from datasets import Dataset

from ovs_lite.clip import Clip, load_clip
from ovs_lite.config import PROFILES, Profile, ProposalConfig, data_root, get_profile, runs_root
from ovs_lite.data.batches import MaskBatches
from ovs_lite.data.iconworld.build import split_folder
from ovs_lite.data.prefetch import Prefetched
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import is_main
from ovs_lite.methods.proposal_training import BestMatchTraining, MaskFormerTraining
from ovs_lite.methods.proposals import KINDS, MaskProposer, new_proposer
from ovs_lite.train import LoopConfig, OnStep, Task, train
from ovs_lite.train_arguments import add_config_flags, add_loop_flags, add_run_flags, training_parser

EXAMPLE = """examples:
  ovs-lite train proposals openseg --out runs/proposals/openseg
  ovs-lite train proposals maskformer --steps 2000 --batch 16 --ema 0.999
  accelerate launch -m ovs_lite.train proposals openseg --profile paper --data data/coco-panoptic/train
The same command again goes on where the last one stopped."""
WEIGHTS = "proposals.safetensors"


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments; None means the profile's value."""
    parser = training_parser("ovs-lite train proposals", __doc__, EXAMPLE)
    parser.add_argument("kind", choices=KINDS, help="best match without `no object`, or one-to-one with it")
    parser.add_argument("--profile", choices=PROFILES, default="lite", help="model, data and training")
    parser.add_argument("--data", type=Path, help="folder of the training split (default: the profile's icon-coco)")
    parser.add_argument("--vocabulary", default="icon-coco", help="of the split's categories (maskformer)")
    add_config_flags(parser, [getattr(PROFILES["lite"], kind) for kind in KINDS])
    add_loop_flags(parser, checkpoint_every=200)
    parser.add_argument("--ema", type=float, default=0.0, help="decay of a running average of the weights")
    add_run_flags(parser, "runs/proposals/KIND")
    return parser


def proposal_config(profile: Profile, kind: str, args: argparse.Namespace | None = None) -> ProposalConfig:
    """The profile's configuration of a kind, with what the command line changes."""
    config = profile.openseg if kind == "openseg" else profile.maskformer
    given = {} if args is None else {item.name: getattr(args, item.name, None) for item in fields(ProposalConfig)}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def loop_config(config: ProposalConfig, **changes) -> LoopConfig:
    """The training loop's part of a proposal configuration."""
    names = ("steps", "lr", "muon_lr", "weight_decay", "warmup", "schedule", "backbone_factor")
    return LoopConfig(**{name: getattr(config, name) for name in names} | {"clip": config.clip_norm} | changes)


def class_embeddings(vocabulary: str, clip: Clip) -> torch.Tensor:
    """What MaskFormer compares its proposals with: (K, D) embeddings of a vocabulary's names."""
    return clip.text_embeddings(list(load_vocabulary(vocabulary).names)).cpu()


def proposal_task(proposer: MaskProposer, split: Dataset, seed: int = 0) -> Task:
    """What the loop trains: the proposer's network on a split's masks. MaskFormer's classes are the split's."""
    config, fill = proposer.config, tuple(proposer.mean.flatten().tolist())
    settings = (config.batch, config.image_size, seed, config.scale)
    batches = Prefetched(MaskBatches(split, *settings, per=config.per, fill=fill))
    if proposer.kind == "openseg":
        return BestMatchTraining(proposer.network, batches, proposer.normalise)
    return MaskFormerTraining(proposer.network, batches, proposer.normalise, proposer.classes)


def main(argv: list[str] | None = None, on_step: OnStep | None = None) -> None:
    """Entry point of `ovs-lite train proposals`. on_step: see `ovs_lite.train.train`; it replaces the progress bar."""
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    profile = get_profile(args.profile)
    config = proposal_config(profile, args.kind, args)
    out = args.out or runs_root() / "proposals" / args.kind
    folder = args.data or split_folder(data_root(), profile.data, "icon-coco", "train")
    split = load_split(folder)
    torch.manual_seed(args.seed)
    classes = None
    if args.kind == "maskformer":
        classes = class_embeddings(args.vocabulary, load_clip(profile.clip.vit, profile.clip.pretrained))
    proposer = new_proposer(args.kind, config, classes)
    task = proposal_task(proposer, split, args.seed)
    changes = {"accumulation": args.accumulation, "precision": args.precision, "seed": args.seed, "ema": args.ema}
    loop = loop_config(config, checkpoint_every=args.checkpoint_every, **changes)
    settings = {"kind": args.kind, "image_size": config.image_size, "scale": config.scale, "per": config.per}
    rows = train(task, loop, out, not args.fresh, on_step, on_step is None, settings | {"pictures": len(split)})
    if is_main():
        proposer.save(out / WEIGHTS)
        print(f"wrote {out / WEIGHTS}; last loss {rows[-1]['loss'] if rows else 'unchanged'}")


if __name__ == "__main__":
    main()
