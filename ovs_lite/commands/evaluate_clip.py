"""Measure a CLIP zero-shot on held-out scenes of IconWorld and print its card: classification by style, colours,
retrieval, what the background is worth, dense naming and segmentation without training. Some minutes on a CPU."""

import argparse
import time
from pathlib import Path
from typing import Any

from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.lite.files import SHIPPED
from ovs_lite.evaluation.clip.zero_shot import Figure, measure
from ovs_lite.files import write_json, write_text

EXAMPLE = """examples:
  ovs-lite evaluate clip ViT-Lite-8
  ovs-lite evaluate clip runs/clip/ConvNeXt-Lite/ConvNeXt-Lite.safetensors --scenes 64 --out card.json --out card.md
  ovs-lite evaluate clip --model ViT-B-16 --pretrained openai"""
WRITERS = (".json", ".md")


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite evaluate clip",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", metavar="MODEL_OR_CHECKPOINT", help="either of the next two, told apart")
    parser.add_argument(
        "--model", help=f"{', '.join(SHIPPED)} or an open_clip name (default: the checkpoint's, or ViT)"
    )
    parser.add_argument("--checkpoint", type=Path, help="safetensors file, run folder or step folder of `train clip`")
    parser.add_argument("--pretrained", default="lite", help="weights without a checkpoint: lite or an open_clip tag")
    parser.add_argument("--scenes", type=int, default=1000, help="images behind a figure (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the held-out scenes (default 0)")
    parser.add_argument("--device", default="cpu", help="such as cuda (default cpu)")
    parser.add_argument("--out", type=Path, action="append", default=[], help="FILE.json or FILE.md; may be repeated")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate clip`."""
    args = build_parser().parse_args(argv)
    for path in args.out:
        if path.suffix not in WRITERS:
            raise ValueError(f"got --out {path}, expected a file name that ends in {' or '.join(WRITERS)}")
    name, checkpoint = which(args.what, args.model, args.checkpoint)
    begun = time.perf_counter()
    clip = load_weights(name, checkpoint, args.pretrained).to(args.device)
    loaded = time.perf_counter()
    figures = measure(clip, args.scenes, args.seed)
    card = {
        "model": name, "weights": str(checkpoint or args.pretrained), "scenes": args.scenes, "seed": args.seed,
        "load_seconds": round(loaded - begun, 2), "measure_seconds": round(time.perf_counter() - loaded, 1),
    }  # fmt: skip
    text = table(card, figures)
    print(text)
    for path in args.out:
        if path.suffix == ".md":
            write_text(path, text + "\n")
        else:
            write_json(path, card | {"figures": {name: vars(figure) for name, figure in figures.items()}})


def which(what: str | None, model: str | None, checkpoint: Path | None) -> tuple[str, Path | None]:
    """Model name and checkpoint from what was typed. A checkpoint's path names its model where it can.

    Raises ValueError for the same thing given twice, FileNotFoundError for a checkpoint that does not exist.
    """
    is_path = what is not None and (Path(what).exists() or Path(what).suffix == ".safetensors")
    if is_path and what not in SHIPPED:
        if checkpoint is not None:
            raise ValueError(f"got two checkpoints, {what} and {checkpoint}, expected one")
        checkpoint = Path(what)
    elif what is not None:
        if model not in (None, what):
            raise ValueError(f"got two models, {what} and {model}, expected one")
        model = what
    if checkpoint is not None and not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint}: no such checkpoint")
    if model is None and checkpoint is not None:
        parts = [checkpoint.stem, *reversed(checkpoint.resolve().parts)]
        model = next((part for part in parts if part in SHIPPED), None)
        if model is None:
            raise ValueError(f"got {checkpoint}, which names none of {', '.join(SHIPPED)}; add --model")
    return model or SHIPPED[0], checkpoint


def load_weights(name: str, checkpoint: Path | None, pretrained: str) -> Clip:
    """A CLIP from a weights file, from a run's newest checkpoint, from one step of it, or as `load_clip` does."""
    if checkpoint is None or checkpoint.is_file():
        return load_clip(name, str(checkpoint or pretrained))
    step = checkpoint if checkpoint.name.startswith("step-") else latest_checkpoint(checkpoint / "checkpoints")
    if step is None:
        raise FileNotFoundError(f"{checkpoint}: holds no checkpoint of `ovs-lite train clip`")
    clip, head = load_clip(name, None), "model."
    tensors = {key[len(head) :]: t for key, t in load_checkpoint(step).tensors.items() if key.startswith(head)}
    try:
        clip.network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{step}: not a checkpoint of {name}: {' '.join(str(error).split())[:300]}") from error
    return clip


def table(card: dict[str, Any], figures: dict[str, Figure]) -> str:
    """The card as a markdown table, percentages with their chance level."""
    lines = [
        f"{card['model']} ({card['weights']}), held-out scenes of seed {card['seed']}; loaded in "
        f"{card['load_seconds']} s, measured in {card['measure_seconds']} s",
        "",
        "| figure | % | chance % | n |",
        "| --- | ---: | ---: | ---: |",
    ]
    rows = [f"| {name} | {100 * f.value:.1f} | {100 * f.chance:.1f} | {f.count} |" for name, f in figures.items()]
    return "\n".join([*lines, *rows])
