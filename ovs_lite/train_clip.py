"""`ovs-lite train clip`: train and ship the miniature CLIPs on IconWorld's captions."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.weights import SHIPPED, read_metadata, save_lite
from ovs_lite.config import runs_root
from ovs_lite.data.iconworld.captions import vocabulary_texts
from ovs_lite.data.iconworld.stream import CaptionPairStream, CaptionStream, default_stages, polish_stages
from ovs_lite.data.prefetch import Prefetched
from ovs_lite.data.prompts import TEMPLATES
from ovs_lite.distributed import is_main
from ovs_lite.files import write_tensors
from ovs_lite.methods.clip_pretraining import (
    ClipPretraining,
    TextPretraining,
    used_token_ids,
    whiten_patches,
)
from ovs_lite.train import LoopConfig, OnStep, train
from ovs_lite.train_arguments import add_run_flags, training_parser

EXAMPLE = """examples:
  ovs-lite train clip text --steps 300 --out runs/clip/text
  ovs-lite train clip ConvNeXt-Lite --text runs/clip/text/text.safetensors --steps 8000 --batch 128 --muon-lr 0
  ovs-lite train clip ViT-Lite-8 --text runs/clip/text/text.safetensors --steps 8000 --batch 128
The same command again goes on where the last one stopped."""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = training_parser("ovs-lite train clip", __doc__, EXAMPLE)
    parser.add_argument("model", choices=("text", *SHIPPED), help="what to train: the text tower, or one model")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=128, help="pairs per step; their nouns all differ")
    parser.add_argument("--lr", type=float, default=2e-3, help="AdamW's peak learning rate")
    parser.add_argument("--muon-lr", type=float, default=0.02, help="Muon's, on the blocks' matrices; 0 = AdamW only")
    parser.add_argument("--text", type=Path, help="text tower (text.safetensors) to start from and keep frozen")
    parser.add_argument("--train-text", action="store_true", help="with --text: do not freeze the text tower")
    parser.add_argument("--keep-text", action="store_true", help="train the image tower only")
    parser.add_argument("--ema", type=float, default=0.0, help="decay of a running average of the weights, e.g. 0.999")
    parser.add_argument("--teacher", choices=SHIPPED, help="imitate this one's images, with its text tower, frozen")
    parser.add_argument("--polish", action="store_true", help="train both towers, on colours and whole scenes only")
    parser.add_argument("--free-steps", type=int, default=0, help="first steps, with embeddings of any length")
    parser.add_argument("--alone", type=float, default=0.4, help="share of the steps with one noun per picture")
    parser.add_argument("--initial", type=Path, help="weights of the model to start from")
    add_run_flags(parser, "runs/clip/MODEL")
    return parser


def _loop(args: argparse.Namespace) -> LoopConfig:
    return LoopConfig(args.steps, args.lr, args.muon_lr, precision=args.precision, seed=args.seed, ema=args.ema)


def train_text(args: argparse.Namespace, out: Path, on_step: OnStep | None = None) -> None:
    """Train the text tower that both models share; leaves out/text.safetensors."""
    torch.manual_seed(args.seed)
    clip = load_clip("ConvNeXt-Lite", pretrained=None)
    task = TextPretraining(clip, CaptionPairStream(2 * args.batch, args.seed))
    train(task, _loop(args), out, not args.fresh, on_step, progress=on_step is None)
    if not is_main():
        return
    write_tensors(out / "text.safetensors", clip.network.text.state_dict())
    print(f"wrote {out / 'text.safetensors'}")


def _initial_model(args: argparse.Namespace) -> Clip:
    torch.manual_seed(args.seed)
    clip = load_clip(args.model, pretrained=None if args.initial is None else str(args.initial))
    if args.initial is None and clip.patch_size is not None:
        whiten_patches(clip, CaptionStream(256, clip.image_size, args.seed + 1)(0)[0])
    if args.text is not None:
        clip.network.text.load_state_dict(load_file(args.text))
    return clip


def _teacher(args: argparse.Namespace, clip: Clip) -> Clip | None:
    """The shipped model to imitate; `clip` moves into its joint space."""
    if args.teacher is None:
        return None
    teacher = load_clip(args.teacher).requires_grad_(False)
    clip.network.text.load_state_dict(teacher.network.text.state_dict())
    clip.logit_scale.data.copy_(teacher.logit_scale)
    return teacher


def train_model(args: argparse.Namespace, out: Path, on_step: OnStep | None = None) -> None:
    """Train one model; leaves out/MODEL.safetensors, the file that is shipped."""
    clip = _initial_model(args)
    stages = polish_stages(args.steps) if args.polish else default_stages(args.steps, args.alone)
    stream = CaptionStream(args.batch, clip.image_size, args.seed, stages)
    teacher = _teacher(args, clip)
    keep_text = args.keep_text or args.teacher or (args.text and not args.polish)
    freeze = "text" if keep_text and not args.train_text else None
    task = ClipPretraining(clip, Prefetched(stream), freeze, args.free_steps, teacher)
    rows = train(task, _loop(args), out, not args.fresh, on_step, progress=on_step is None)
    if not is_main():
        return
    prompts = [pattern.replace("{}", "") for patterns in TEMPLATES.values() for pattern in patterns]
    rows_kept = used_token_ids(clip, [*vocabulary_texts(), *prompts])
    before = {} if args.initial is None else read_metadata(args.initial)
    pictures = int(before.get("pictures", 0)) + sum(stream.shape(step)[0] for step in range(args.steps))
    metadata = {"pictures": str(pictures), "steps": str(args.steps), "seed": str(args.seed)}
    save_lite(clip.network, out / f"{args.model}.safetensors", rows_kept, metadata)
    print(f"wrote {out / args.model}.safetensors; last loss {rows[-1]['loss'] if rows else 'unchanged'}")


def main(argv: list[str] | None = None, on_step: OnStep | None = None) -> None:
    """Entry point of `ovs-lite train clip`. on_step: see `ovs_lite.train.train`; it replaces the progress bar."""
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    out = args.out or runs_root() / "clip" / args.model
    (train_text if args.model == "text" else train_model)(args, out, on_step)


if __name__ == "__main__":
    main()
