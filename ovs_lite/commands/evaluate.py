"""The arguments, the counting and the output that all kinds of `ovs-lite evaluate` share."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.config import PROFILES, get_profile
from ovs_lite.data.record import first, load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.distributed import barrier, destroy_process_group, is_main
from ovs_lite.evaluation.protocol_card import clip_digest, weights_digest
from ovs_lite.evaluation.run import counts_key, counts_of, evaluate_in_blocks, split_digest
from ovs_lite.files import check_writable, data_path, data_root, printable, runs_root, write_json, write_text
from ovs_lite.iconworld.build import split_folder
from ovs_lite.tensors import tensors_digest

FORMATS = (".json", ".md")
RESUMES = """The same command again resumes a run that was stopped. Several processes: torchrun or accelerate launch,
with -m ovs_lite; the numbers do not change."""


def command(kind: str, text: str, examples: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all kinds have. examples: one command per line."""
    lines = "\n  ".join(examples.splitlines())
    parser = argparse.ArgumentParser(
        f"ovs-lite evaluate {kind}", description=text, epilog=f"examples:\n  {lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    help_text = "write everything to FILE.json, or the table to FILE.md; may be repeated"
    parser.add_argument("--out", type=Path, action="append", default=[], metavar="FILE", help=help_text)
    return parser


def add_sets(parser: argparse.ArgumentParser, default: str, profile: str = "whose data and CLIP") -> None:
    """The arguments that choose prepared sets and images; `open_splits` reads them. profile: what is taken of it."""
    sets = f"sets whose val splits are measured ({default})"
    parser.add_argument("--set", nargs="+", action="extend", metavar="SET", help=sets)
    parser.add_argument("--profile", choices=PROFILES, default="lite", help=f"{profile} (lite)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of a split, instead of the profile's")
    limit = "the first so many images of each set (all)"
    parser.add_argument("--images", "--limit", type=int, metavar="N", help=limit)
    parser.set_defaults(default_set=default)


def open_splits(args: argparse.Namespace) -> dict[str, Path]:
    """The folder of every set that was asked for, each with a readable split.

    Raises ValueError for --data with several sets and for --images below 1, FileNotFoundError with the cure for a set
    that is not built.
    """
    names = list(dict.fromkeys(args.set or [args.default_set]))
    if args.data is not None and len(names) > 1:
        raise ValueError(f"got --data and {len(names)} sets, expected the one --set whose classes {args.data} has")
    if args.images is not None and args.images < 1:
        raise ValueError(f"got --images {args.images}, expected at least 1")
    for name in names:
        load_vocabulary(name)
    config = get_profile(args.profile).data
    folders = {name: _validation(name, split_folder(data_root(), config, name, "val"), args.data) for name in names}
    for folder in folders.values():
        load_split(folder)
    return folders


def _validation(name: str, drawn: Path, given: str | Path | None) -> Path:
    """The split that was given, else the one that `data build` draws, else the one that `data prepare` wrote."""
    if given is not None:
        return data_path(given)
    prepared = data_root() / name / "val"
    return prepared if prepared.exists() and not drawn.exists() else drawn


def add_counts(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where counts are kept while a command works; `counts_folder` reads them."""
    parser.add_argument(
        "--counts", type=Path, metavar="FOLDER", help="where counts are kept while it works (runs/evaluate)"
    )
    parser.add_argument("--fresh", action="store_true", help="count everything again instead of resuming")


def counts_folder(args: argparse.Namespace) -> Path:
    """Where counts are kept, in a folder of their own for each key."""
    return args.counts or runs_root() / "evaluate"


def counted(args: argparse.Namespace, counter: Any, name: str, folder: Path, *about: Any) -> tuple[Any, str]:
    """The report of a counter on a set's split, and the key under which its counts are kept until `finish`.

    counter: for `evaluate_in_blocks`. about: JSON facts, all that decides the counts but the split.
    """
    key = counts_key(split_digest(folder), *about)
    kept = {"folder": counts_folder(args), "key": key, "fresh": args.fresh}
    return evaluate_in_blocks(counter, first(load_split(folder), args.images), name=name, **kept), key


def finish(args: argparse.Namespace, keys: Iterable[str], text: str, content: Any) -> None:
    """`give` by the main process; then what was kept is removed, and the process group left."""
    if is_main():
        give(text, content, args.out)
    barrier()
    for key in keys:
        counts_of(counts_folder(args), key).remove()
    destroy_process_group()


def weights_of(model: Any) -> list[str]:
    """A method's or a proposer's name and the digests of all its weights."""
    if hasattr(model, "recipe"):
        return [model.recipe, tensors_digest(model.recipe, model.state_dict().values())]
    return [model.name, weights_digest(model), clip_digest(model.clip)]


def ends(estimate: Any, sign: str = "") -> str:
    """The 95 % interval of an `Estimate` as a table prints it, in percentage points; sign: "+" for a difference."""
    return "too few images" if estimate.note else " to ".join(f"{end:{sign}.1f}" for end in estimate.interval)


def check_outputs(paths: Sequence[Path]) -> None:
    """Before anything is measured: ValueError for another kind of file name, OSError where nothing can be written."""
    for path in paths:
        if path.suffix not in FORMATS:
            raise ValueError(f"got --out {path}, expected a file name that ends in {' or '.join(FORMATS)}")
        check_writable(path)


def give(text: str, content: Any, paths: Sequence[Path]) -> None:
    """Print the table; write it to every FILE.md and the content to every FILE.json."""
    print(printable(text))
    for path in paths:
        if path.suffix == ".md":
            write_text(path, text + "\n")
        else:
            write_json(path, content)
