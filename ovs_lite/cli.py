"""The `ovs-lite` command. Heavy imports stand inside the commands, so that --help answers at once."""

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import chain
from pathlib import Path

from ovs_lite import __version__
from ovs_lite.commands.public_sets import add_public_sets
from ovs_lite.config import PROFILES, Profile, get_profile, override, read_changes
from ovs_lite.files import one_line, printable, usable_home
from ovs_lite.methods.registry import DEFAULT_METHOD, DEFAULT_NAMER, METHODS, RECIPES, split_changes

EVALUATIONS = ("clip", "grid", "panoptic", "promptable", "proposals", "segmentation")
# These parse the rest of the line themselves: command -> module with main(argv).
FORWARDED = {("evaluate", kind): f"ovs_lite.commands.evaluate_{kind}" for kind in EVALUATIONS}
FORWARDED |= {(name,): f"ovs_lite.commands.{name.replace('-', '_')}" for name in ("pseudo-masks", "mine", "refine")}
FORWARDED |= {("train",): "ovs_lite.train.command", ("plan",): "ovs_lite.commands.plan_training"}
EVERYTHING = "icon-context59"  # the vocabulary of `segment --everything`
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
    if arguments[:1] == ["evaluate"] and arguments[1:2] and arguments[1] in METHODS:
        arguments = ["evaluate", "segmentation", "--method", *arguments[1:]]
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
    _add_explore(commands)
    _add_data(commands)
    _command(commands, "train", None, f"train a model: {', '.join(RECIPES)}", "ovs-lite train tcl --steps 40")
    _command(commands, "plan", None, "say what training takes on given GPUs", "ovs-lite plan tcl --gpus 8")
    example = "ovs-lite pseudo-masks runs/openseg-proposals/proposals.safetensors icon-lite/icon-caption/train --out X"
    _command(commands, "pseudo-masks", None, "draw masks for a split that has captions only", example)
    example = "ovs-lite mine icon-lite/icon-caption/train --masks runs/openseg-proposals/proposals.safetensors --out X"
    _command(commands, "mine", None, "mine pairs of a region and a noun from captions", example)
    example = "ovs-lite refine icon-lite/icon-caption/train --out icon-lite/icon-caption-refined/train"
    _command(commands, "refine", None, "make the captions of a split truer to its images", example)
    evaluate = _command(commands, "evaluate", None, "measure a model", "ovs-lite evaluate tcl --set icon-voc20")
    text = "a method, or what else is measured; more on each: ovs-lite evaluate tcl --help"
    evaluate.add_argument("what", choices=(*METHODS, *EVALUATIONS), help=text)
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
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers or names of notebooks")
    text = "ids of claims, such as tcl-2: run what settles them; says first what that takes, then the verdicts"
    what.add_argument("--claim", nargs="+", default=[], metavar="ID", help=text)
    parser.add_argument("--fresh", action="store_true", help="run them again even where nothing changed")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    parser.add_argument("--notebooks", type=Path, help="folder of the notebooks, instead of the project's")
    parser.add_argument("--runs", type=Path, help="folder of the runs, instead of $OVS_RUNS or runs")
    parser.add_argument("--cell-timeout", type=int, default=3600, metavar="S", help="seconds one cell may take")
    parser.add_argument("--jobs", type=int, metavar="N", help="notebooks at once; default: as the machine can hold")


def _add_segment(commands) -> None:
    example = "ovs-lite segment photo.jpg --queries 'cat, grass' --method maskclip --out masks.png"
    example += "; or ovs-lite segment photo.jpg --everything"
    parser = _command(commands, "segment", _segment, "type words at an image, get masks", example)
    parser.add_argument("image", type=Path, help="the image's file")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--queries", help=QUERIES)
    text = "instead: name all that a mask-based method proposes, each region by the likeliest class of --vocabulary"
    asked.add_argument("--everything", action="store_true", help=text)
    text = f"classes of --everything: a data set's, such as icon-voc20 ({EVERYTHING})"
    parser.add_argument("--vocabulary", metavar="SET", default=argparse.SUPPRESS, help=text)
    text = f"one of {', '.join(METHODS)} ({DEFAULT_METHOD}; for --everything {DEFAULT_NAMER})"
    parser.add_argument("--method", default=argparse.SUPPRESS, metavar="NAME", help=text)
    parser.add_argument("--out", type=Path, default=Path("masks.png"), help="where the image with masks is written")
    parser.add_argument("--clip", default="ViT-Lite-8", help="a shipped CLIP or an open_clip name")
    parser.add_argument("--pretrained", default="lite", help="lite, an open_clip tag such as openai, or a file")
    parser.add_argument("--checkpoint", type=Path, help="trained weights of the method, where it has any")
    text = "pixels whose best score is lower stay unlabelled; auto: the method's own threshold"
    parser.add_argument("--background", type=threshold, help=text)


def _add_explore(commands) -> None:
    text = "look at masks of one or several methods: a page for any browser, or how to open the panel in JupyterLab"
    example = "ovs-lite explore photo.jpg --queries 'cat, grass' --method maskclip clip-cam --html out.html"
    parser = _command(commands, "explore", _explore, text, example)
    parser.add_argument("image", type=Path, help="the image's file")
    parser.add_argument("--queries", required=True, help=QUERIES)
    names = f"one or several of {', '.join(METHODS)}"
    parser.add_argument("--method", nargs="+", default=[DEFAULT_METHOD], metavar="NAME", help=names)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page that needs no kernel")
    parser.add_argument("--clip", default="ViT-Lite-8", help="a shipped CLIP or an open_clip name")
    parser.add_argument("--pretrained", default="lite", help="lite, an open_clip tag such as openai, or a file")


def threshold(word: str) -> float | str:
    """A number, or "auto"."""
    return word if word == "auto" else float(word)


def _add_data(commands) -> None:
    parser = _command(commands, "data", None, "build, list, show or verify data, or find NLTK's", "ovs-lite data list")
    actions = parser.add_subparsers(required=True, metavar="action", dest="action")
    build = _command(actions, "build", _data_build, "render the sets", "ovs-lite data build --profile lite")
    build.add_argument("--only", nargs="+", default=[], metavar="SET", help="these sets instead of all")
    listing = _command(
        actions, "list", _data_list, "list the sets, drawn and public, and what is there", "ovs-lite data list"
    )
    example = "ovs-lite data show icon-coco --out sheet.png"
    show = _command(actions, "show", _data_show, "draw a contact sheet of a set", example)
    show.add_argument("set", help="name of the set, e.g. icon-coco")
    show.add_argument("--split", help="train or val; the set's first one otherwise")
    show.add_argument("--count", type=int, default=24, help="how many scenes")
    show.add_argument("--out", type=Path, help="the sheet's file, otherwise NAME.png")
    text = "read prepared data again and compare it with its digests"
    verify = _command(actions, "verify", _data_verify, text, "ovs-lite data verify --profile lite")
    help_text = "folders of any splits, or names of prepared public sets, instead of the profile's sets"
    verify.add_argument("folders", nargs="*", type=Path, metavar="FOLDER_OR_SET", help=help_text)
    verify.add_argument("--only", nargs="+", default=[], metavar="SET", help="these sets instead of all that are built")
    for action in (build, listing, show, verify):
        _add_profile(action)
    add_public_sets(actions, _command)
    text = "look for NLTK's tagger, try it, and say how to get it; without it the shipped one reads captions"
    tagger = _command(actions, "nltk", _data_nltk, text, "ovs-lite data nltk --nltk-data ~/nltk_data")
    tagger.add_argument("--nltk-data", default="", metavar="FOLDER", help="look here first")


def _reproduce(args: argparse.Namespace) -> int:
    with usable_home():
        from ovs_lite.commands.reproduce import run

        return run(args)


def _segment(args: argparse.Namespace) -> None:
    # reported before a model is loaded
    if not os.path.isfile(args.image):  # no error for a name that is too long
        raise FileNotFoundError(f"no image at {args.image}")
    if hasattr(args, "vocabulary") and not args.everything:
        raise ValueError("got --vocabulary without --everything, expected both, or --queries alone")
    if args.background is not None and args.background != "auto" and not math.isfinite(args.background):
        raise ValueError(f"got --background {args.background}, expected a number to compare scores with, or auto")
    from ovs_lite.viz.image_files import check_image_path

    check_image_path(args.out)
    from ovs_lite.segmenter import load, parse_queries
    from ovs_lite.viz.overlay import alt_text

    method = getattr(args, "method", DEFAULT_NAMER if args.everything else DEFAULT_METHOD)
    names = _everything(args, method) if args.everything else parse_queries(args.queries)
    segmenter = load(method, checkpoint=args.checkpoint, clip=args.clip, pretrained=args.pretrained)
    if args.everything:
        result = segmenter.everything(args.image, names)
    else:
        result = segmenter.segment(args.image, args.queries, background=args.background)
    result.save(args.out)
    print(printable(f"wrote {args.out}: {alt_text(result.labels, result.queries)}"))


def _explore(args: argparse.Namespace) -> None:
    from ovs_lite.commands.explore import explore

    print(printable(explore(args.image, args.queries, args.method, args.html, args.clip, args.pretrained)))


def _everything(args: argparse.Namespace, method: str) -> list[str]:
    """The names that regions may get. Raises ValueError for what does not go with --everything."""
    from ovs_lite.data.vocabulary import load_vocabulary
    from ovs_lite.methods.registry import mask_methods, method_class

    if args.background is not None:
        raise ValueError("got --everything and --background, expected one: pixels of no region stay unlabelled anyway")
    if not method_class(method).masks_of:
        known = ", ".join(name for name in METHODS if name in mask_methods())
        raise ValueError(f"got --everything and --method {method}, expected one that proposes masks: {known}")
    vocabulary = load_vocabulary(getattr(args, "vocabulary", EVERYTHING))
    return [name for index, name in enumerate(vocabulary.names) if index != vocabulary.background]


def _profile(args: argparse.Namespace) -> Profile:
    of_profile, _ = split_changes(read_changes(args.config) if args.config else {})
    return override(get_profile(args.profile), of_profile)


def _data_build(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data import build

    for folder in build(_profile(args), args.only):
        print(printable(folder))


def _data_list(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data import describe
    from ovs_lite.commands.data_sets import describe_sets

    print(printable("\n".join([*describe(_profile(args)), "", *describe_sets()])))


def _data_show(args: argparse.Namespace) -> None:
    from ovs_lite.commands.data import sheet
    from ovs_lite.viz.image_files import check_image_path, save_image

    out = args.out or Path(f"{args.set}.png")
    check_image_path(out)
    save_image(sheet(_profile(args), args.set, args.split, args.count), out)
    print(printable(f"wrote {out}"))


def _data_verify(args: argparse.Namespace) -> int:
    from ovs_lite.commands.data import verify
    from ovs_lite.commands.data_sets import verify_sets

    of_sets, folders = verify_sets(args.folders)
    splits = verify(_profile(args), args.only, folders) if folders or not args.folders else ()
    damaged = 0
    for folder, reason, counts in chain(of_sets, ((*found, "") for found in splits)):
        print(printable(f"FAIL  {reason}" if reason else f"ok    {folder}" + f": {counts}" * bool(counts)))
        damaged += bool(reason)
    return int(damaged > 0)


def _data_nltk(args: argparse.Namespace) -> int:
    from ovs_lite.commands.data import tagged_example

    sound, line = tagged_example(args.nltk_data)
    print(printable(f"{'ok  ' if sound else 'FAIL'}  {line}"))
    return int(not sound)


def _doctor(args: argparse.Namespace) -> int:
    from ovs_lite.commands.doctor import main

    return main()
