"""`ovs-lite refine`: a split's captions made truer to its images, by a CLIP or by a vision-language model."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ovs_lite.clip import load_clip
from ovs_lite.commands.shares import ARRAYS, add_job, share_of, unfinished
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.data.chat_entities import ChatParser
from ovs_lite.data.entities import PARSERS, EntityParser, tagged_parser
from ovs_lite.data.record import load_split
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import names_of
from ovs_lite.distributed import own_device
from ovs_lite.files import data_path, printable
from ovs_lite.methods.lvlm import LLAVA, LvlmRefiner
from ovs_lite.methods.refinement import CaptionRefiner, NounConfig, NounRefiner, frequent_nouns, write_refined

EXAMPLE = "ovs-lite refine icon-lite/icon-caption/train --out icon-lite/icon-caption-refined/train"
DEFAULTS = NounConfig()
HELP = {
    "least": "score that an entity of a caption needs to stay, in standard deviations",
    "sure": "score from which a noun of the vocabulary is added",
    "most": "nouns that are added to an image",
    "often": "times that captions say a noun of the vocabulary",
    "vocabulary": "nouns of the vocabulary at the most",
    "templates": "sentences for a noun",
}


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        "ovs-lite refine", description=f"{__doc__}\n\n{ARRAYS}", epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add_job(parser)
    add("--clip", default="ConvNeXt-Lite", help="which CLIP judges (ConvNeXt-Lite)")
    add("--pretrained", default="lite", help="its weights: lite, an open_clip tag, or a file (lite)")
    for field in fields(NounConfig):
        value = getattr(DEFAULTS, field.name)
        add(f"--{field.name}", type=type(value), default=value, help=f"{HELP[field.name]} ({value})")
    add("--parser", choices=PARSERS, default="chunks", help="who finds the entities of captions (chunks)")
    names = "vocabularies whose names of several words stay together where single nouns are found"
    add("--compounds", nargs="*", default=["icon-coco"], metavar="V", help=f"{names} (icon-coco)")
    add("--tagger", default="auto", help="shipped, nltk, or auto (auto)")
    add("--url", default="http://localhost:8080/v1", help="of --parser chat: a service with OpenAI's protocol")
    add("--chat-model", default="default", help="of --parser chat: its name there (default)")
    add("--lvlm", nargs="?", const=LLAVA, metavar="MODEL", help=f"ask this vision-language model instead ({LLAVA})")
    return parser


@ends_in_order
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `ovs-lite refine`."""
    args = build_parser().parse_args(argv)
    source, out, share = data_path(args.source), data_path(args.out), share_of(args)
    whole = write_refined(source, out, _refiner(args, source), args.limit, share=share)
    print(printable(f"wrote {out}") if whole else unfinished(out, share))


def _refiner(args: argparse.Namespace, source: Path) -> CaptionRefiner:
    device = own_device()
    captions = load_split(source)["captions"]  # before a model is loaded
    if args.lvlm:
        return LvlmRefiner(args.lvlm, device)
    config = NounConfig(**{field.name: getattr(args, field.name) for field in fields(NounConfig)})
    compounds = names_of(args.compounds)
    nouns = frequent_nouns(captions, tagged_parser("nouns", compounds, load_tagger(args.tagger)), config)
    if len(nouns) < 2:
        given = f"got captions that say {len(nouns)} nouns {config.often} times or more"
        raise ValueError(f"{given}, expected at least 2; lower --often")
    return NounRefiner(load_clip(args.clip, args.pretrained, device), _parser(args, compounds), nouns, config)


def _parser(args: argparse.Namespace, compounds: Sequence[str]) -> EntityParser:
    if args.parser == "chat":
        return ChatParser(args.url, args.chat_model)
    return tagged_parser(args.parser, compounds, load_tagger(args.tagger))
