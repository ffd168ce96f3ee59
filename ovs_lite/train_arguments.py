"""The flags that all training commands share, and those that a configuration's fields become."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ovs_lite.train import PRECISIONS


def training_parser(command: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """A parser whose --help ends with examples as they are written."""
    return argparse.ArgumentParser(
        command, description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config_flags(parser: argparse.ArgumentParser, defaults: Sequence[Any]) -> None:
    """A flag for every number and name of a configuration; None means the profile's value.

    defaults: the configurations of the lite profile that the help tells of, all of one class.
    """
    for item in fields(defaults[0]):
        if item.type in (int, float, str):
            shown = " and ".join(dict.fromkeys(str(getattr(config, item.name)) for config in defaults))
            flag = f"--{item.name.replace('_', '-')}"
            parser.add_argument(flag, type=item.type, metavar=item.name.upper(), help=f"default in lite: {shown}")


def add_run_flags(parser: argparse.ArgumentParser, folder: str) -> None:
    """How and where to run. folder: the default of --out, for the help."""
    parser.add_argument("--precision", choices=PRECISIONS, default="no")
    parser.add_argument("--threads", type=int, help="CPU threads; resuming is bit-identical only with the same number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help=f"run folder (default {folder})")
    parser.add_argument("--fresh", action="store_true", help="start over: removes the checkpoints in the run folder")


def add_loop_flags(parser: argparse.ArgumentParser, checkpoint_every: int) -> None:
    """Settings of the loop that no configuration holds. checkpoint_every: default, in steps."""
    parser.add_argument("--accumulation", type=int, default=1, help="batches per step")
    parser.add_argument("--checkpoint-every", type=int, default=checkpoint_every, metavar="STEPS")
