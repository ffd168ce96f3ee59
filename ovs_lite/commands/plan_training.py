"""`ovs-lite plan`: what training a method at paper size takes on given GPUs, before anything is downloaded or started.

Of the data sets alone, with what is missing: ovs-lite data plan. Of a notebook or a claim: ovs-lite reproduce --claim.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.commands.data_sets import readable
from ovs_lite.config import override, override_from_file
from ovs_lite.data.acquire import total_of
from ovs_lite.data.catalogue import DOWNLOADS, load_catalogue
from ovs_lite.files import printable
from ovs_lite.methods import get_recipe
from ovs_lite.methods.registry import RECIPES
from ovs_lite.train.plan import PROFILE, Plan, cost_of, costs, describe, make_plan


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: ovs-lite plan tcl --profile paper --gpus 8 --gpu-memory 80",
    )  # fmt: skip
    parser.add_argument("recipe", metavar="METHOD", choices=RECIPES, help=f"measured: {', '.join(costs()['recipes'])}")
    parser.add_argument("--profile", choices=[PROFILE], default=PROFILE, help="whose settings; costs are of paper size")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML or JSON file that changes batch or loop")
    parser.add_argument(
        "--gpus",
        type=int,
        default=8,
        metavar="N",
        help="of all machines; more than one machine: docs/scale.md (default: 8)",
    )
    parser.add_argument("--gpu-memory", type=float, default=80, metavar="GB", help="of one GPU (default: 80)")
    text = "kind, for the hours (default: a100)"
    parser.add_argument("--gpu", choices=costs()["devices"], default="a100", help=text)
    text = "with activation checkpointing: less memory, more operations"
    parser.add_argument("--recompute", action="store_true", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `ovs-lite plan`."""
    args = build_parser().parse_args(argv)
    for line in plan_lines(args.recipe, args.config, args.gpus, args.gpu_memory, args.gpu, args.recompute):
        print(printable(line))


def plan_lines(
    name: str, file: Path | None, gpus: int, memory: float, device: str, recompute: bool = False
) -> Iterator[str]:
    """What `ovs-lite plan` prints. Raises ValueError for what was not measured, or settings that cannot be; `file`
    may change the batch and the loop alone, for costs were measured with all other settings of the preset."""
    recipe, cost = get_recipe(name), cost_of(name)
    preset = recipe.presets[PROFILE]
    config = override_from_file(preset, file) if file else preset
    if override(config, {"batch": preset.batch, "data": preset.data}) != override(
        preset, {f"loop.{key}": value for key, value in vars(config.loop).items()}
    ):
        raise ValueError(f"{file}: got other settings than batch, data and loop; costs of these were not measured")
    config = override(config, {"loop.recompute": recompute or config.loop.recompute})
    plan = make_plan(name, config.loop, config.batch, gpus, memory, device)
    yield f"{name}, profile {PROFILE}, on {gpus} x {device} with {memory:g} GB"
    yield from describe(plan, cost, gpus, memory)
    yield from _data_lines(config)
    yield f"  command     {_command(name, plan, gpus, config.loop.recompute, file) if plan.batch else _remedy(config)}"


def sources_of(config: Any) -> tuple[str, ...]:
    """The splits or shards that a preset trains on."""
    return (config.data,) if isinstance(config.data, str) else config.data


def set_of(source: str) -> str:
    """The public set, as in the catalogue, that a split (coco-stuff/train), what was refined of one
    (cc3m-refined/train) or shards (downloads/cc3m/*.tar) are of."""
    return source.removeprefix(f"{DOWNLOADS}/").split("/")[0].removesuffix("-refined")


def _data_lines(config: Any) -> Iterator[str]:
    """Disk of the public sets that the preset trains on."""
    catalogue = load_catalogue()
    for source in sources_of(config):
        one = catalogue.sets.get(set_of(source))
        amount = total_of(catalogue.files_of(one)) if one else None
        if amount is None or amount.unknown and not amount.known:
            yield f"  data        {source}: size not known; see ovs-lite data list"
        else:
            more = " and files of unknown size" if amount.unknown else ""
            yield f"  data        {source}: {readable(amount.known)}{more} as downloaded  [published: the catalogue]"


def _command(name: str, plan: Plan, gpus: int, recompute: bool, file: Path | None) -> str:
    economy, given = " --recompute" * recompute, f" --config {file}" if file else ""
    flags = f"--profile {PROFILE}{given} --batch {plan.batch * gpus} --accumulation {plan.accumulation}{economy}"
    return f"accelerate launch --num_processes {gpus} -m ovs_lite.train {name} {flags}"


def _remedy(config: Any) -> str:
    first = "" if config.loop.recompute else "--recompute, "
    return f"none: not one sample fits; {first}smaller images, or GPUs with more memory"
