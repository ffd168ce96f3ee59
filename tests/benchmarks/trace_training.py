"""What one sample of a `paper` preset takes in training: parameters, bytes kept for the backward pass, operations.

    PYTHONPATH=tests python tests/benchmarks/trace_training.py tcl ovseg --write

writes ovs_lite/train/costs.yaml, which `ovs-lite plan` reads. Networks have random weights, the images are those of
`ovs-lite data build --profile smoke`. Bytes and operations depend on shapes alone, so a CPU counts them for a GPU; most
networks are traced on torch's meta device, which computes nothing. What is not counted: temporary memory inside an
operation, and, where a recipe's entry says "network", its loss.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import yaml
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from kit.ovseg import pairs
from ovs_lite.clip import Clip
from ovs_lite.clip import load as clip_load
from ovs_lite.config import override
from ovs_lite.data.record import write_split
from ovs_lite.methods import get_recipe
from ovs_lite.methods.ovseg import adaptation
from ovs_lite.methods.uniovseg import alignment_training
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter
from ovs_lite.train.blocks import economical
from ovs_lite.train.plan import COSTS

# recipe -> (device, images of the two runs that the slope is of, smoke data)
TRACED = {
    "tcl": ("cpu", (2, 3), "icon-smoke/icon-caption/train"),
    "ovseg": ("cpu", (1, 2), ""),
    "openseg-proposals": ("meta", (2, 4), "icon-smoke/icon-coco/train"),
    "openseg": ("meta", (2, 4), "icon-smoke/icon-coco/train"),
    "lseg": ("meta", (2, 4), "icon-smoke/icon-coco/train"),
    "maskformer": ("meta", (2, 4), "icon-smoke/icon-coco/train"),
    "uniovseg-masks": ("meta", (2, 4), "icon-smoke/icon-sa/train"),
    "uniovseg": ("meta", (2, 4), "icon-smoke/icon-caption/train"),
}


def forward(name: str, task: Any, config: Any, count: int, device: str) -> torch.Tensor:
    """A scalar that needs all of the network's answer: the loss itself on a CPU."""
    if device == "cpu":
        batch = task.batch(config.loop.steps * config.loop.accumulation - 1)  # at the end all that learns does
        return sum(task.weights[term] * value for term, value in task.losses(batch).items())
    side = config.image_size if hasattr(config, "image_size") else max(config.short_sides)
    images = torch.zeros(count, 3, side, side, device=device)
    if name == "uniovseg":
        with torch.no_grad():  # every step, as nothing is kept: masks to learn from, and the frozen CLIP's maps
            segmenter = task.method.prompter.network
            segmenter(segmenter.look(images), torch.zeros(count, config.grid**2, 4, device=device), "point")
        found = task.model(task.aligned.maps(images))
    elif name == "uniovseg-masks":
        features = task.model.look(images)
        asked = {"point": config.points, "box": config.boxes}
        found = [task.model(features, torch.zeros(count, number, 4, device=device), kind)
                 for kind, number in asked.items()]  # fmt: skip
    else:
        found = task.model(images)
    return sum(tensor.float().sum() for tensor in tensors_of(found))


def tensors_of(value: Any) -> list[torch.Tensor]:
    """All floating tensors inside tuples, lists and dataclasses."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() and value.requires_grad else []
    parts = value if isinstance(value, list | tuple) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


@contextmanager
def without_downloads():
    """Random weights, no text embedded that only weighs the classes, no digest of weights."""
    network, random = clip_load._network, SimpleNamespace(seed=torch.Generator().manual_seed(0))

    def embeddings(self, names, *_):
        return F.normalize(torch.randn(len(names), self.embed_dim, generator=random.seed), dim=-1)

    autocast = torch.autocast  # of which the meta device has none

    with (
        mock.patch.object(torch, "autocast", lambda kind, **how: autocast("cpu" if kind == "meta" else kind, **how)),
        mock.patch.object(clip_load, "_network", lambda name, *_: network(name, None, None)),
        mock.patch.object(Clip, "text_embeddings", embeddings),
        mock.patch.object(
            adaptation, "load_method", lambda _: SimpleNamespace(network={"segmenter": None})
        ),  # a new one
        mock.patch.object(alignment_training, "joined_segmenter", lambda _: (paper_segmenter(), "")),
        mock.patch.object(Clip, "fingerprint", lambda self: ""),
        mock.patch.object(Clip, "image_fingerprint", lambda self: ""),
    ):
        yield


def paper_segmenter() -> PromptSegmenter:
    """Uni-OVSeg's, at paper size."""
    return PromptSegmenter(override(get_recipe("uniovseg-masks").presets["paper"], {"backbone_pretrained": False}))


def backward_of_convolution(grad_out, images, weight, _bias, _stride, _pad, _dilation, transposed, *more, **_) -> int:
    """Operations of a convolution's gradients: as many each as the forward pass. torch's own formula forgets groups."""
    wanted = more[2]  # of the images, the weights, the bias
    return sum(wanted[:2]) * conv_flop_count(images, weight, grad_out, transposed)


def kept_bytes(run: Callable[[], torch.Tensor], network: torch.nn.Module) -> tuple[int, int]:
    """Bytes that the graph keeps for the backward pass, weights left out, and operations (multiply-adds x 2)."""
    known = {value.untyped_storage()._cdata for value in network.state_dict().values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage
        return tensor

    formula = {torch.ops.aten.convolution_backward: backward_of_convolution}
    with FlopCounterMode(display=False, custom_mapping=formula) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = run()
        held = sum(storage.nbytes() for storage in kept.values())
        kept.clear()
        loss.backward()
    network.zero_grad(set_to_none=True)
    return held, counter.get_total_flops()


def trace(name: str) -> dict[str, Any]:
    """The entry of a recipe."""
    device, counts, data = TRACED[name]
    recipe = get_recipe(name)
    preset = recipe.presets["paper"]
    with tempfile.TemporaryDirectory() as folder, without_downloads():
        if name == "ovseg":
            write_split(pairs(8), Path(folder) / "pairs", columns="pairs", progress=False)
            data = str(Path(folder) / "pairs")
        changes = {"data": (data,) if isinstance(preset.data, tuple) else data, "workers": 0,
                   "augment": "crop", "backbone_pretrained": False, "parser": "nouns"}  # fmt: skip
        changes = {key: value for key, value in changes.items() if hasattr(preset, key)}
        found: dict[str, list[tuple[int, int]]] = {}
        for count in counts:
            config = override(preset, changes | {"batch": count})
            task = recipe.build(config)
            if config.loop.backbone_factor == 0:
                for key, parameter in task.model.named_parameters():
                    parameter.requires_grad_("backbone" not in key.split("."))
            task.to(torch.device(device))
            task.model.train()
            for recompute in (False, True):
                with economical(task.whole, override(config, {"recompute": recompute}).loop):
                    run = lambda: forward(name, task, config, count, device)  # noqa: B023, E731
                    found.setdefault(f"{recompute}", []).append(kept_bytes(run, task.whole))
    step = counts[1] - counts[0]
    slopes = {key: [(b - a) / step for a, b in zip(*runs, strict=True)] for key, runs in found.items()}
    trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in {id(p): p for p in task.whole.parameters()}.values())
    return {
        "trained_parameters": trained,
        "frozen_parameters": whole - trained,
        "stored_parameters": sum(p.numel() for p in task.model.parameters()),
        "activation_bytes": round(slopes["False"][0]),
        "activation_bytes_recompute": round(slopes["True"][0]),
        "operations": round(slopes["False"][1]),
        "operations_recompute": round(slopes["True"][1]),
        "covers": "network and loss" if device == "cpu" else "network",
        "how": f"{device} tensors, float32, {counts[0]} and {counts[1]} samples, torch {torch.__version__}",
        "date": time.strftime("%Y-%m-%d"),
        "command": f"PYTHONPATH=tests python tests/benchmarks/trace_training.py {name} --write",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", choices=TRACED)
    parser.add_argument("--write", action="store_true", help="into costs.yaml")
    args = parser.parse_args()
    for name in args.recipes:
        entry = trace(name)
        print(yaml.safe_dump({name: entry}, sort_keys=False), flush=True)
        if args.write:
            costs = yaml.safe_load(COSTS.read_text(encoding="utf-8"))
            costs["recipes"][name] = entry
            lines = COSTS.read_text(encoding="utf-8").splitlines()
            head = [line for line in lines if line.startswith("#")]
            COSTS.write_text("\n".join(head) + "\n" + yaml.safe_dump(costs, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
