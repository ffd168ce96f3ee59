"""Measure a CLIP zero-shot on held-out scenes of IconWorld and print its card: classification by style, colours,
retrieval, what the background is worth, dense naming and segmentation without training. Some minutes on a CPU."""

import argparse
import time
from pathlib import Path
from typing import Any

from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.lite.files import LITE_MODELS
from ovs_lite.commands.evaluate import check_outputs, command, give
from ovs_lite.evaluation.clip.zero_shot import Figure, measure
from ovs_lite.tensors import load_exactly
from ovs_lite.viz.tables import markdown_table, percent

EXAMPLES = """ovs-lite evaluate clip ViT-Lite-8
ovs-lite evaluate clip runs/clip/ConvNeXt-Lite.safetensors --scenes 64 --out card.json --out card.md
ovs-lite evaluate clip --model ViT-B-16 --pretrained openai"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command("clip", __doc__, EXAMPLES)
    add = parser.add_argument
    text = "safetensors file, run folder or step folder of `ovs-lite train clip`, or a model's name"
    add("what", nargs="?", metavar="MODEL_OR_CHECKPOINT", help=text)
    default = f"{LITE_MODELS[0]}, or as the checkpoint's path says"
    add("--model", help=f"{', '.join(LITE_MODELS)} or an open_clip name ({default})")
    add("--pretrained", default="lite", help="weights without a checkpoint: lite or an open_clip tag (lite)")
    add("--scenes", type=int, default=1000, help="images behind a figure (1000)")
    add("--seed", type=int, default=0, help="of the held-out scenes (0)")
    add("--device", default="cpu", help="such as cuda (cpu)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point of `ovs-lite evaluate clip`."""
    args = build_parser().parse_args(argv)
    check_outputs(args.out)
    if args.scenes < 1:
        raise ValueError(f"got --scenes {args.scenes}, expected at least 1")
    name, checkpoint = which(args.what, args.model)
    begun = time.perf_counter()
    clip = load_weights(name, checkpoint, args.pretrained).to(args.device)
    loaded = time.perf_counter()
    figures = measure(clip, args.scenes, args.seed)
    card = {
        "model": name, "weights": str(checkpoint or args.pretrained), "scenes": args.scenes, "seed": args.seed,
        "load_seconds": round(loaded - begun, 2), "measure_seconds": round(time.perf_counter() - loaded, 1),
    }  # fmt: skip
    give(table(card, figures), card | {"figures": {name: vars(figure) for name, figure in figures.items()}}, args.out)


def which(what: str | None, model: str | None) -> tuple[str, Path | None]:
    """Model name and checkpoint from the arguments. A checkpoint's path names its model where it can.

    Raises ValueError for two models, FileNotFoundError for a weights file that does not exist.
    """
    path = Path(what or "")
    if what is None or what in LITE_MODELS or not path.exists() and path.suffix != ".safetensors":
        if model and what not in (None, model):
            raise ValueError(f"got two models, {what} and {model}, expected one")
        return what or model or LITE_MODELS[0], None
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    model = model or next((part for part in (path.stem, *reversed(path.resolve().parts)) if part in LITE_MODELS), None)
    if model is None:
        raise ValueError(f"got {path}, which names none of {', '.join(LITE_MODELS)}; add --model")
    return model, path


def load_weights(name: str, checkpoint: Path | None, pretrained: str) -> Clip:
    """A CLIP from a weights file, from a run's newest checkpoint, from one step of it, or as `load_clip` does."""
    if checkpoint is None or checkpoint.is_file():
        return load_clip(name, str(checkpoint or pretrained))
    step = checkpoint if checkpoint.name.startswith("step-") else latest_checkpoint(checkpoint / "checkpoints")
    if step is None:
        raise FileNotFoundError(f"{checkpoint}: holds no checkpoint of `ovs-lite train clip`")
    clip, head = load_clip(name, None), "model."
    tensors = {key[len(head) :]: t for key, t in load_checkpoint(step).tensors.items() if key.startswith(head)}
    load_exactly(clip.network, tensors, step)
    return clip


def table(card: dict[str, Any], figures: dict[str, Figure]) -> str:
    """The card as a markdown table, percentages with their chance level."""
    head = (
        f"{card['model']} ({card['weights']}), held-out scenes of seed {card['seed']}; loaded in "
        f"{card['load_seconds']} s, measured in {card['measure_seconds']} s"
    )
    rows = [[name, percent(f.value), percent(f.chance), str(f.count)] for name, f in figures.items()]
    return f"{head}\n\n{markdown_table(('figure', '%', 'chance %', 'n'), rows)}"
