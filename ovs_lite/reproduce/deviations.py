"""docs/deviations.md: where the kit departs from the papers, collected from the docstrings that say so.

A departure stands in a docstring, in a sentence that begins "Departure" ("Departures: ...", up to the paragraph's end).
One in a method's folder or file belongs to that method; one in a shared room to the methods that
the docstring of its file names, else to those that its own names.
"""

import ast
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ovs_lite.reproduce.fingerprint import PACKAGE

MADE = "<!-- Made by `python -m ovs_lite.reproduce.documents` from the docstrings: change those instead. -->"
BEGINNING = re.compile(r"(?:(?<=[.?!)] )|^\s*)(?P<word>Departures?)(?P<rest>:|,| from [^:]+:)", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<!Eq)(?<!Fig)(?<!e\.g)(?<!i\.e)[.](?=\s|$)")
LEGEND = re.compile(r"\n\s*[B-HJ-Zbs] (images|regions|pixels|texts)\b")  # "B images, K classes": symbols, no departure
SHARED = "Shared parts"


@dataclass(frozen=True)
class Departure:
    """One statement. file: below the package; name: of what its docstring defines, "" for the module."""

    file: str
    name: str
    text: str
    methods: tuple[str, ...]


def departures(package: Path = PACKAGE) -> list[Departure]:
    """Every departure that a docstring of the package states, by file."""
    named = _method_names(package)
    found = []
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own, of_file = named.get(_owner(file)), _mentioned(ast.get_docstring(tree) or "", named.values())
        for name, docstring in _docstrings(tree):
            methods = (own,) if own else of_file or _mentioned(docstring, named.values())
            found += [Departure(file, name, text, methods) for text in statements(docstring)]
    return found


def statements(docstring: str) -> list[str]:
    """The departures that one docstring states, each in one line, without the word."""
    found = []
    for match in BEGINNING.finditer(docstring):
        paragraph = docstring[match.end() :].split("\n\n")[0]
        if legend := LEGEND.search(paragraph):
            paragraph = paragraph[: legend.start()]
        if match["word"] == "Departure" and (end := SENTENCE_END.search(paragraph)):
            paragraph = paragraph[: end.end()]
        about = match["rest"].strip(" :,")
        found.append(" ".join(f"{about}: {paragraph}".split()) if about else " ".join(paragraph.split()))
    return found


def deviations_page(package: Path = PACKAGE) -> str:
    """The document: one section per method, the shared ones last."""
    intro = "Where the kit departs from the papers and their released code, and why, as the docstrings say it."
    lines, found = ["# Deviations", "", MADE, "", intro], departures(package)
    sections: dict[str, list[Departure]] = {}
    for departure in found:
        for method in departure.methods or (SHARED,):
            sections.setdefault(method, []).append(departure)
    for method in sorted(sections, key=lambda name: (name == SHARED, name.lower())):
        lines += ["", f"## {method}", ""]
        for item in sections[method]:
            where = f"`ovs_lite/{item.file}`" + f", `{item.name}`" * bool(item.name)
            lines.append(f"* {item.text[0].upper()}{item.text[1:]} ({where})")
    return "\n".join(lines) + "\n"


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if docstring := ast.get_docstring(node):
                yield getattr(node, "name", ""), docstring


def _owner(file: str) -> str:
    """methods/NAME/x.py and methods/NAME.py belong to NAME; "" for shared files."""
    parts = file.removesuffix(".py").split("/")
    return parts[1] if parts[0] == "methods" and len(parts) > 1 else ""


def _method_names(package: Path) -> dict[str, str]:
    """{folder or file of a method: its name}, from the first line of its docstring, "Name: what it is"."""
    names = {}
    for path in [*sorted(package.glob("methods/*/__init__.py")), *sorted(package.glob("methods/[a-z]*.py"))]:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        name, colon, _ = docstring.split("\n")[0].partition(":")
        if colon and "departure" in _text_below(path).lower():
            names[path.parent.name if path.name == "__init__.py" else path.stem] = name
    return names


def _text_below(path: Path) -> str:
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    return "".join(file.read_text(encoding="utf-8") for file in files)


def _mentioned(docstring: str, names: Collection[str]) -> tuple[str, ...]:
    """Methods that a docstring names."""
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    found = re.findall(rf"(?<![\w-])(?:{pattern})(?![\w+-])", docstring) if pattern else []
    return tuple(sorted(set(found)))
