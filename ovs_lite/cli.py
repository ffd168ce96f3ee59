"""The `ovs-lite` command. Heavy imports stand inside the commands, so that --help answers at once."""

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from ovs_lite import __version__
from ovs_lite.config import PROFILES, Profile, get_profile, override, read_changes
from ovs_lite.files import one_line, printable, usable_home
from ovs_lite.methods.registry import DEFAULT_METHOD, METHODS, RECIPES, split_changes

EVALUATIONS = ("clip", "proposals", "segmentation")
# These parse the rest of the line themselves: command -> module with main(argv).
FORWARDED = {("evaluate", kind): f"ovs_lite.commands.evaluate_{kind}" for kind in EVALUATIONS}
FORWARDED["train",] = "ovs_lite.train.command"
FORWARDED["pseudo-masks",] = "ovs_lite.commands.pseudo_masks"
FORWARDED["mine",] = "ovs_lite.commands.mine"
QUERIES = "words or phrases, separated by commas; cat|kitten is one class; @FILE holds one query per line"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 1 when the work failed; 2 for a mistake in the request; both reported in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # not where a program calls this one
        warnings.formatwarning = lambda message, *about, **more: f"ovs-lite: {printable(message)}\n"
    with suppress(AttributeError):  # a stream of somebody else's
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("ovs-lite: interrupted; the same command resumes from what is finished", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the output has seen enough
        _end_output()
        return 128 + 13
    except (ValueError, OSError) as error:
        _end_output()
        print(f"ovs-lite: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | FileNotFoundError) else 1


def _run(arguments: list[str]) -> int:
    for command, module in FORWARDED.items():
        if tuple(arguments[: len(command)]) == command:
            import_module(module).main(arguments[len(command) :])
            return 0
    args = build_parser().parse_args(arguments)
    return args.run(args) or 0


def _end_output() -> None:
    """What could not be written must not fail again when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    """The command line as argparse sees it; each command carries `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite", description="Open-vocabulary segmentation: learn it, reproduce it, use it.",
        epilog="example: ovs-lite segment photo.jpg --queries 'cat, grass' --out masks.png",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"ovs-lite {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    _add_reproduce(commands)
    _add_segment(commands)
    _add_data(commands)
    _command(commands, "train", None, f"train a model: {', '.join(RECIPES)}", "ovs-lite train tcl --steps 40")
    example = "ovs-lite pseudo-masks runs/openseg-proposals/proposals.safetensors icon-lite/icon-caption/train --out X"
    _command(commands, "pseudo-masks", None, "draw masks for a split that has captions only", example)
    example = "ovs-lite mine icon-lite/icon-caption/train --masks runs/openseg-proposals/proposals.safetensors --out X"
    _command(commands, "mine", None, "mine pairs of a region and a noun from captions", example)
    evaluate = _command(commands, "evaluate", None, "measure a model", "ovs-lite evaluate clip ViT-Lite-8")
    evaluate.add_argument("what", choices=EVALUATIONS, help="more on each: ovs-lite evaluate clip --help")
    _command(commands, "doctor", _doctor, "find the known traps of an installation", "ovs-lite doctor")
    return parser


def _command(commands, name: str, run: Callable | None, text: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=PROFILES, default="lite", help="how much data and training")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file that changes the profile or recipes")


def _add_reproduce(commands) -> None:
    text = "run the notebooks that are not up to date, and write the report"
    parser = _command(commands, "reproduce", _reproduce, text, "ovs-lite reproduce --profile smoke --only 01")
    _add_profile(parser)
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers or names of notebooks")
    parser.add_argument("--fresh", action="store_true", help="run them again even where nothing changed")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    parser.add_argument("--notebooks", type=Path, help="folder of the notebooks, instead of the project's")
    parser.add_argument("--runs", type=Path, help="folder of the runs, instead of $OVS_RUNS or runs")
    parser.add_argument("--cell-timeout", type=int, default=3600, metavar="S", help="seconds one cell may take")


def _add_segment(commands) -> None:
    example = "ovs-lite segment photo.jpg --queries 'cat, grass' --method maskclip --out masks.png"
    parser = _command(commands, "segment", _segment, "type words at an image, get masks", example)
    parser.add_argument("image", type=Path, help="the image's file")
    parser.add_argument("--queries", required=True, help=QUERIES)
    parser.add_argument("--method", default=DEFAULT_METHOD, metavar="NAME", help=f"one of {', '.join(METHODS)}")
    parser.add_argument("--out", type=Path, default=Path("masks.png"), help="where the image with masks is written")
    parser.add_argument("--clip", default="ViT-Lite-8", help="a shipped CLIP or an open_clip name")
    parser.add_argument("--pretrained", default="lite", help="lite, an open_clip tag such as openai, or a file")
    parser.add_argument("--checkpoint", type=Path, help="trained weights of the method, where it has any")
    text = "pixels whose best score is lower stay unlabelled; auto: the method's own threshold"
    parser.add_argument("--background", type=threshold, help=text)


def threshold(word: str) -> float | str:
    """A number, or "auto"."""
    return word if word == "auto" else float(word)


def _add_data(commands) -> None:
    parser = _command(
        commands, "data", None, "build, list, show or verify data, or look for NLTK's", "ovs-lite data list"
    )
    actions = parser.add_subparsers(required=True, metavar="action", dest="action")
    build = _command(actions, "build", _data_build, "render the sets", "ovs-lite data build --profile lite")
    build.add_argument("--only", nargs="+", default=[], metavar="SET", help="these sets instead of all")
    listing = _command(actions, "list", _data_list, "list the sets and what is built", "ovs-lite data list")
    example = "ovs-lite data show icon-coco --out sheet.png"
    show = _command(actions, "show", _data_show, "draw a contact sheet of a set", example)
    show.add_argument("set", help="name of the set, e.g. icon-coco")
    show.add_argument("--split", help="train or val; the set's first one otherwise")
    show.add_argument("--count", type=int, default=24, help="how many scenes")
    show.add_argument("--out", type=Path, help="the sheet's file, otherwise NAME.png")
    text = "read prepared data again and compare it with its digests"
    verify = _command(actions, "verify", _data_verify, text, "ovs-lite data verify --profile lite")
    verify.add_argument("folders", nargs="*", type=Path, help="of any splits, instead of the profile's sets")
    verify.add_argument("--only", nargs="+", default=[], metavar="SET", help="these sets instead of all that are built")
    for action in (build, listing, show, verify):
        _add_profile(action)
    text = "look for NLTK's tagger, try it, and say how to get it; without it the shipped one reads captions"
    tagger = _command(actions, "nltk", _data_nltk, text, "ovs-lite data nltk --nltk-data ~/nltk_data")
    tagger.add_argument("--nltk-data", default="", metavar="FOLDER", help="look here first")


def _reproduce(args: argparse.Namespace) -> int:
    folders = (args.notebooks, args.runs)
    with usable_home():
        from ovs_lite.reproduce.pipeline import reproduce

        results = reproduce(args.profile, args.only, args.fresh, args.seed, *folders, args.cell_timeout, args.config)
    return int(any(result.status == "failed" for result in results))


def _segment(args: argparse.Namespace) -> None:
    # reported before a model is loaded
    if not os.path.isfile(args.image):  # no error for a name that is too long
        raise FileNotFoundError(f"no image at {args.image}")
    if args.background is not None and args.background != "auto" and not math.isfinite(args.background):
        raise ValueError(f"got --background {args.background}, expected a number to compare scores with, or auto")
    from ovs_lite.viz.image_files import check_image_path

    check_image_path(args.out)
    from ovs_lite.segmenter import load, parse_queries
    from ovs_lite.viz.overlay import alt_text

    parse_queries(args.queries)
    segmenter = load(args.method, checkpoint=args.checkpoint, clip=args.clip, pretrained=args.pretrained)
    result = segmenter.segment(args.image, args.queries, background=args.background)
    result.save(args.out)
    print(printable(f"wrote {args.out}: {alt_text(result.labels, result.queries)}"))


def _profile(args: argparse.Namespace) -> Profile:
    of_profile, _ = split_changes(read_changes(args.config) if args.config else {})
    return override(get_profile(args.profile), of_profile)


def _data_build(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data import build

    for folder in build(_profile(args), args.only):
        print(printable(folder))


def _data_list(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data import describe

    print(printable("\n".join(describe(_profile(args)))))


def _data_show(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data import sheet
    from ovs_lite.viz.image_files import check_image_path, save_image

    out = args.out or Path(f"{args.set}.png")
    check_image_path(out)
    save_image(sheet(_profile(args), args.set, args.split, args.count), out)
    print(printable(f"wrote {out}"))


def _data_verify(args: argparse.Namespace) -> int:
    from ovs_lite.commands.data import verify

    damaged = 0
    for folder, reason in verify(_profile(args), args.only, args.folders):
        print(f"FAIL  {reason}" if reason else f"ok    {folder}")
        damaged += bool(reason)
    return int(damaged > 0)


def _data_nltk(args: argparse.Namespace) -> int:
    from ovs_lite.data.tagging import load_tagger

    try:
        tagger = load_tagger("nltk", os.path.expanduser(args.nltk_data))
    except (FileNotFoundError, ValueError) as error:
        print(printable(f"FAIL  {error}; until then captions are read by the shipped tagger"))
        return 1
    tagged = " ".join(f"{word}/{tag}" for word, tag in tagger.tag("a small dog beside two fire hydrants"))
    print(printable(f"ok    {tagger.name}: {tagged}"))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from ovs_lite.commands.doctor import main as examine

    return examine()
