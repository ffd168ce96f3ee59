"""The documents tell the truth: paths exist, commands parse, make targets exist, losses cite their equation."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from ovs_lite.cli import build_parser
from ovs_lite.methods.registry import FORMER_NAMES, METHODS, get_recipe
from ovs_lite.train.command import build_parser as recipe_parser

ROOT = Path(__file__).parents[1]
MADE = ("docs/claims.md", "docs/deviations.md")  # by a command; tests/reproduce reads them
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in MADE)
FOLLOWED = "docs/add-a-method.md"  # names what its reader will make; test_docs_add_a_method.py does it
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "THIRD_PARTY.md", *(page for page in PAGES if page != FOLLOWED)]
PRODUCTS = ("runs/", "data/", "path/", "~", ".venv/")  # what a run leaves or what the reader puts in
# Named without their folder, or no file at all.
GENERIC = {"metrics.jsonl", "claims.json", "config.json", "config.py", "ENTRIES", "MIT", "viz/"}
SUFFIXES = r"py|md|txt|toml|yml|yaml|cff|json|ipynb|png|jsonl"


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def named_paths(text):
    """Paths in backticks and links: those with a slash at a place of the repository, and bare top-level files."""
    quoted = re.findall(r"`([^`\s]+)`", text) + re.findall(r"\]\(([^)\s]+)\)", text)
    for name in quoted:
        is_path = re.fullmatch(rf"[\w./~-]+/|[\w.~-]+/[\w./-]+|[\w-]+\.({SUFFIXES})|[A-Z]+", name)
        if is_path and not name.startswith((*PRODUCTS, "http")):
            yield name


def commands(text, program):
    """Every `program ...` in backticks or in an indented block, without the program's name; by a launcher, too."""
    lines = re.findall(r"`([^`\n]+)`", text) + [line.strip() for line in text.splitlines() if line.startswith("    ")]
    launched = re.compile(r"(?:torchrun|accelerate launch|python)\b.* -m ovs_lite(\.train)? (?=\w)")
    lines = [launched.sub(lambda found: "ovs-lite " + ("train " if found[1] else ""), line) for line in lines]
    pattern = re.compile(rf"(?:\.venv/bin/)?{program} (.+)")
    return [found[1] for line in lines if (found := pattern.fullmatch(line))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document):
    paths = [name for name in named_paths(text_of(document)) if name not in GENERIC and "NN_" not in name]
    missing = [name for name in paths if not (ROOT / name).exists()]
    assert not missing, missing
    assert len(paths) >= {"README.md": 30, "CONTRIBUTING.md": 10, "THIRD_PARTY.md": 3}.get(document, 1)


def test_a_wrong_path_is_seen():
    text = "see `ovs_lite/nowhere.py`, [x](docs/absent.png) and `predict(images)`, not `runs/lite/a.html`"
    found = list(named_paths(text))
    assert found == ["ovs_lite/nowhere.py", "docs/absent.png"]


def parser_of(words):
    """The parser that reads a command's arguments, and those that are left for it."""
    if words[0] == "evaluate":
        words = ["evaluate", "segmentation", "--method", *words[1:]] if words[1] in METHODS else words
        return import_module(f"ovs_lite.commands.evaluate_{words[1]}").build_parser(), words[2:]
    if words[0] == "plan":
        return import_module("ovs_lite.commands.plan_training").build_parser(), words[1:]
    if words[0] in ("mine", "pseudo-masks", "refine"):
        return import_module(f"ovs_lite.commands.{words[0].replace('-', '_')}").build_parser(), words[1:]
    if words[0] == "train" and words[1] not in ("--help", "NAME"):
        former = FORMER_NAMES.get(tuple(words[1:3]))
        name, rest = (former, words[3:]) if former else (words[1], words[2:])
        return recipe_parser(get_recipe(name)), rest
    return build_parser(), [words[0], "--help"] if words[1:2] == ["NAME"] else words


def test_every_command_parses():
    found = [command for document in DOCUMENTS for command in commands(text_of(document), "ovs-lite")]
    for command in found:
        parser, words = parser_of(shlex.split(command))
        try:
            parser.parse_args(words)
        except SystemExit as refusal:
            if refusal.code:
                pytest.fail(f"`ovs-lite {command}` in the documents does not parse ({refusal})")
    assert len(found) >= 6


@pytest.mark.parametrize("command", ["segment photo.jpg", "reproduce --profil=x", "paint"])
def test_a_wrong_command_is_refused(command):
    assert commands(f"`ovs-lite {command}`", "ovs-lite") == [command]
    with pytest.raises(SystemExit):
        build_parser().parse_args(shlex.split(command))


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = {command.split()[0] for document in DOCUMENTS for command in commands(text_of(document), "make")}
    assert named <= targets, named - targets
    assert {"reproduce", "test", "lab", "smoke", "check"} <= named
    assert all(re.search(rf"^{target}:.*## ", text_of("Makefile"), re.MULTILINE) for target in targets)


def test_every_page_is_reached_from_the_readme():
    absent = [page for page in (*PAGES, *MADE) if f"`{page}`" not in text_of("README.md")]
    assert len(PAGES) >= 5 and not absent, absent


def test_the_glossary_is_in_order_and_says_where():
    lines = [line for line in text_of("docs/glossary.md").splitlines() if line.startswith("| ")][2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    words = [row[0].lower() for row in rows]
    assert len(words) >= 30 and words == sorted(words)
    assert all(len(row) == 3 and all(row) and list(named_paths(row[2])) for row in rows)


def test_no_blank_is_left_in_the_readme():
    assert not re.findall(r"@@\w+@@", text_of("README.md"))


def test_the_readme_opens_with_the_point_a_picture_and_the_commands():
    first_screen = "\n".join(text_of("README.md").splitlines()[:22])
    assert "![" in first_screen and "make reproduce" in first_screen and "ovs-lite segment" in first_screen
    picture = ROOT / re.search(r"!\[.+?\]\((.+?)\)", first_screen)[1]
    assert picture.stat().st_size < 500_000


def test_every_notebook_is_in_the_readme():
    notebooks = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert notebooks and all(f"notebooks/{name}" in text_of("README.md") for name in notebooks)


def test_every_room_is_on_the_map():
    rooms = [path for path in (ROOT / "ovs_lite").iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    absent = [room.name for room in rooms if f"`ovs_lite/{room.name}/`" not in text_of("README.md")]
    assert not absent and len(rooms) >= 5, absent


NO_LOSSES = {  # what losses are made with
    "check_masks", "covered_share", "match_masks", "match_prompts", "pixels_at_points", "sample_points",
    "uncertain_points", "PromptMatches",
}  # fmt: skip


def public_losses():
    for path in sorted((ROOT / "ovs_lite" / "losses").glob("[a-z]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if node.name not in NO_LOSSES:
                    yield path.stem, node


def test_each_public_loss_cites_its_equation():
    losses = list(public_losses())
    silent = [f"{file}.{node.name}" for file, node in losses if "Eq." not in (ast.get_docstring(node) or "")]
    assert losses and not silent, f"no 'Eq.' in the docstring of {silent}"


def test_the_citation_names_the_four_papers():
    citation = text_of("CITATION.cff")
    for method in ("OpenSeg", "TCL", "OVSeg", "Uni-OVSeg"):
        assert f'notes: "{method}"' in citation
    assert citation.count("  - type: ") == 4
