"""The arguments and the output that `ovs-lite evaluate clip | proposals | segmentation` share.

Heavy imports stand inside the functions, so that --help answers at once.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.config import PROFILES, get_profile
from ovs_lite.files import check_writable, data_root, printable, write_json, write_text

FORMATS = (".json", ".md")


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


def add_sets(parser: argparse.ArgumentParser, default: str) -> None:
    """The arguments that choose prepared sets and images; `open_splits` reads them."""
    sets = f"sets whose val splits are measured ({default})"
    parser.add_argument("--set", nargs="+", action="extend", metavar="SET", help=sets)
    parser.add_argument("--profile", choices=PROFILES, default="lite", help="whose data and CLIP (lite)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of a split, instead of the profile's")
    parser.add_argument("--images", type=int, metavar="N", help="the first so many images of each set (all)")
    parser.set_defaults(default_set=default)


def open_splits(args: argparse.Namespace) -> dict[str, Path]:
    """The folder of every set that was asked for, each with a readable split.

    Raises ValueError for --data with several sets and for --images below 1, FileNotFoundError with the cure for a set
    that is not built.
    """
    from ovs_lite.data.record import load_split
    from ovs_lite.data.vocabulary import load_vocabulary
    from ovs_lite.iconworld.build import split_folder

    names = list(dict.fromkeys(args.set or [args.default_set]))
    if args.data is not None and len(names) > 1:
        raise ValueError(f"got --data and {len(names)} sets, expected the one --set whose classes {args.data} has")
    if args.images is not None and args.images < 1:
        raise ValueError(f"got --images {args.images}, expected at least 1")
    for name in names:
        load_vocabulary(name)
    config = get_profile(args.profile).data
    folders = {name: args.data or split_folder(data_root(), config, name, "val") for name in names}
    for folder in folders.values():
        load_split(folder)
    return folders


def first_records(folder: Path, images: int | None, name: str) -> Iterator[Mapping[str, Any]]:
    """The first `images` records of a split, or all, with a progress bar of that name."""
    from tqdm.auto import tqdm

    from ovs_lite.data.record import load_split

    split = load_split(folder)
    count = min(images or len(split), len(split))
    return tqdm((split[index] for index in range(count)), name, total=count)


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
