"""`ovs-lite train NAME`: one command for every recipe. Its flags and their help are the configuration's fields.

From a file:      ovs-lite train tcl --config settings.yaml (or another run's config.json)
Several GPUs:     accelerate launch -m ovs_lite.train tcl --profile paper
The same command again resumes where the last run stopped; --fresh starts over.
"""

import argparse
import signal
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from ovs_lite.config import field_help, override, override_from_file, to_dict
from ovs_lite.distributed import Interrupts, destroy_process_group, is_first, is_main
from ovs_lite.files import printable, runs_root
from ovs_lite.locks import exclusive
from ovs_lite.methods import Recipe, get_recipe
from ovs_lite.methods.registry import FORMER_NAMES, RECIPES
from ovs_lite.train.loop import OnStep, train


def run_recipe(
    recipe: Recipe, config: Any, out: Path, fresh: bool = False, on_step: OnStep | None = None, progress: bool = True
) -> Path:
    """Train in this process (or as one of several) and write the weights, whose path is returned.

    Leaves in `out` what `train` leaves, config.json among it, and the file that `recipe.load` reads.
    fresh: start over and remove the checkpoints that are there. on_step, progress: see `train`; an on_step that has a
    method `watch` is given the task before the first step. Raises OSError where `out` cannot be written, and
    BlockingIOError where another training run works in it.
    """
    with exclusive(out) if is_first() else nullcontext():
        torch.manual_seed(config.loop.seed)
        task = recipe.build(config)
        if hasattr(on_step, "watch"):
            on_step.watch(task)
        settings = {"recipe": recipe.name, **to_dict(config), "found": task.found}
        rows = train(task, config.loop, out, not fresh, on_step, progress, settings)
        path = out / recipe.weights(config)
        if is_main():
            recipe.save(task, path, config)
            print(printable(f"wrote {path}; last loss {rows[-1]['loss'] if rows else 'unchanged'}"))
            for line in task.notes():
                print(printable(line))
    return path


def main(argv: Sequence[str] | None = None, on_step: OnStep | None = None) -> None:
    """Entry point of `ovs-lite train`, `python -m ovs_lite.train`. on_step: see `train`; replaces the progress bar."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    former = FORMER_NAMES.get(tuple(arguments[:2]))
    arguments = [former, *arguments[2:]] if former else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        _overview_parser().parse_args(["--help"])
    recipe = get_recipe(arguments[0])
    args = build_parser(recipe).parse_args(arguments[1:])
    if args.threads is not None and args.threads < 1:
        raise ValueError(f"got --threads {args.threads}, expected at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    config = resolve(recipe, args)
    with Interrupts(signal.SIGTERM):  # while the task is built, too: then it ends before the first step
        run_recipe(recipe, config, args.out or runs_root() / recipe.name, args.fresh, on_step, on_step is None)
        destroy_process_group()


def resolve(recipe: Recipe, args: argparse.Namespace) -> Any:
    """The preset, changed by --config, changed by the flags that were given."""
    config = recipe.presets[args.profile]
    if args.config:
        config = override_from_file(config, args.config)
    given = {key: getattr(args, key.split(".")[-1]) for key, *_ in settings(config)}
    return override(config, {key: value for key, value in given.items() if value is not None})


def build_parser(recipe: Recipe) -> argparse.ArgumentParser:
    """A recipe's arguments; a setting that is not given keeps the value of the profile or of --config."""
    parser = argparse.ArgumentParser(
        f"ovs-lite train {recipe.name}", description=sys.modules[recipe.build.__module__].__doc__,
        epilog=f"example: ovs-lite train {recipe.example}\n{__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--profile", choices=recipe.presets, default="lite", help="which preset to start from (default: lite)"
    )
    run.add_argument("--config", type=Path, metavar="FILE", help="YAML or JSON file that changes settings")
    run.add_argument("--out", type=Path, help=f"run folder (default: runs/{recipe.name})")
    run.add_argument("--fresh", action="store_true", help="start over: removes the checkpoints in the run folder")
    run.add_argument("--threads", type=int, help="CPU threads; resuming is bit-identical only with the same number")
    group = parser.add_argument_group("settings, with the values of the lite profile")
    for key, kind, value, text in settings(recipe.presets["lite"]):
        _add_setting(group, key.split(".")[-1], kind, value, text)
    if recipe.word:  # left out, it leaves what the flag says
        word = {"metavar": recipe.word.upper(), "help": f"as --{recipe.word}"}
        group.add_argument(recipe.word, nargs="?", default=argparse.SUPPRESS, **word)
    return parser


def settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Every setting: (dotted key, type, value, help). Its flag is the key's last part."""
    kinds, texts = typing.get_type_hints(type(config)), field_help(type(config))
    for item in fields(config):
        value, key = getattr(config, item.name), prefix + item.name
        if is_dataclass(value):
            yield from settings(value, f"{key}.")
        else:
            yield key, kinds[item.name], value, texts.get(item.name, "")


def _add_setting(group, flag: str, kind: Any, value: Any, text: str) -> None:
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    options: dict[str, Any] = {"help": f"{text} ({shown if shown != '' else 'none'})".replace("%", "%%")}
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        options |= {"type": kinds[0], "nargs": "+" if kinds[-1] is Ellipsis else len(kinds), "metavar": flag[0].upper()}
    else:
        options |= {"type": kind, "metavar": flag.upper()}
    group.add_argument(f"--{flag.replace('_', '-')}", **options)


def _overview_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "ovs-lite train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: ovs-lite train tcl --steps 40\nmore on each: ovs-lite train NAME --help",
    )  # fmt: skip
    parser.add_argument("name", choices=RECIPES, help="what to train")
    return parser
