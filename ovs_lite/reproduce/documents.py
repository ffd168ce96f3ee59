"""The documents that are made from a run and from the source: README's verdicts, docs/claims.md, docs/deviations.md.

    python -m ovs_lite.reproduce.documents              # again, from docs/results.csv as it is
    python -m ovs_lite.reproduce.documents runs/lite    # take that run's results.csv first
    python -m ovs_lite.reproduce.documents --again runs/seed-1/lite runs/longer/lite    # and further ones beside it

Tests compare the documents with what this makes of docs/results.csv, docs/again.csv, claims.yaml, notes.yaml and the
docstrings.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.config import RANDOM
from ovs_lite.files import printable, write_text
from ovs_lite.reproduce.again import AGAIN, Row, again_table, agreement, read_again, said_again
from ovs_lite.reproduce.deviations import deviations_page
from ovs_lite.reproduce.limitations import load_notes, reason
from ovs_lite.reproduce.plan import cost, numbers_of
from ovs_lite.reproduce.results import RESULTS, Results, read_results
from ovs_lite.reproduce.verdicts import MARKS, SHOWN_ORDER, answer, counted, entries, grouped, shown_rows

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- verdicts: begin -->", "<!-- verdicts: end -->"
COMMAND = "python -m ovs_lite.reproduce.documents"
MADE = f"<!-- Made by `{COMMAND}`: change its sources instead. -->"


def write_documents(
    root: str | Path = ROOT, run: str | Path | None = None, again: Sequence[str | Path] = ()
) -> list[Path]:
    """Write the documents below `root`, a checkout, and return their paths.

    run: a run's folder, whose results.csv becomes docs/results.csv first. again: further runs, whose claims become
    docs/again.csv. Raises FileNotFoundError where there is none, ValueError where it is not one, was made with
    random weights, or README.md lacks the markers.
    """
    root = Path(root)
    source = root / "docs" / RESULTS if run is None else Path(run) / RESULTS
    results, copied = read_results(source), {}
    if results.facts.get("profile.clip.pretrained") == RANDOM:
        raise ValueError(f"{source}: got a run with random weights, expected one whose CLIP is trained")
    if run is not None:
        copied[f"docs/{RESULTS}"] = source.read_text(encoding="utf-8")
    if again:
        copied[f"docs/{AGAIN}"] = again_table(again, results)
    for name, text in copied.items():
        write_text(root / name, text)
    pages = documents(results, (root / "README.md").read_text(encoding="utf-8"), read_again(root / "docs" / AGAIN))
    for name, text in pages.items():
        write_text(root / name, text)
    return [root / name for name in (*copied, *pages)]


def documents(results: Results, readme: str, again: Sequence[Row] = ()) -> dict[str, str]:
    """{path from the root: text} of all documents. readme: as it is. Raises ValueError where it lacks the markers."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md: got no, or several, places for the verdicts; expected one {BEGIN} ... {END}")
    head, rest = readme.split(BEGIN)
    tail = rest.split(END)[1]
    made = f"{head}{BEGIN}\n{verdict_table(results, again)}\n{END}{tail}"
    page = claims_page(results, again)
    return {"README.md": made, "docs/claims.md": page, "docs/deviations.md": deviations_page()}


def verdict_table(results: Results, again: Sequence[Row] = ()) -> str:
    """README's table: which claims of each paper hold, with how they were measured."""
    found = entries(results.measured)
    lines = [_row(["paper", *(f"{MARKS[verdict]} {verdict}" for verdict in SHOWN_ORDER)]), _row(["---"] * 5)]
    for paper, group in grouped(found).items():
        named = ([entry["id"] for entry in group if entry["verdict"] == verdict] for verdict in SHOWN_ORDER)
        lines.append(_row([paper, *(f"{len(ids)}: {', '.join(ids)}" if ids else "0" for ids in named)]))
    others = agreement(again, results)
    parts = "Several claims have parts. " if others else ""
    others = ["", f"{parts}{' '.join(others)} `docs/claims.md` says which do not."] if others else []
    return "\n".join([f"**{answer(found)}** {_where(results)}", "", *lines, *others])


def claims_page(results: Results, again: Sequence[Row] = ()) -> str:
    """docs/claims.md: every claim with the command that reproduces it, what it costs, its numbers and why."""
    found, notes = entries(results.measured), load_notes()
    intro = (
        "Every claim of the papers that the kit checks, as declared in `ovs_lite/claims.yaml` before the run. A claim "
        "holds when the 95 % interval lies wholly on its side of 0 and the difference reaches the wanted one; a claim "
        "of no difference, when the interval lies within the margin. Time and memory are those of the whole notebook "
        "that settles the claim (peak of its processes together); what is up to date is not run again. A number of the "
        "paper is of its photographs, models and sets, which the line below each table names; ours is of drawings, a "
        "miniature CLIP, and trainings many thousand times shorter, or weights that come with the kit: signs and "
        f"margins are compared, not sizes. All numbers: `docs/{RESULTS}`. {_of_others(again)}"
    )
    lines = ["# Claims", "", MADE, "", f"**{answer(found)}** {_where(results)}", "", intro]
    for paper, group in grouped(found).items():
        counts = ", ".join(f"{count} {verdict}" for verdict, count in counted(group).items() if count)
        lines += ["", f"## {paper}", "", f"{counts}."]
        for entry in group:
            lines += ["", *_section(entry, results, notes.get(entry["id"], {}).get(entry["verdict"], ""))]
            lines += [line for said in said_again(again, entry["id"]) for line in ("", f"Again, {_escaped(said)}")]
    return "\n".join(lines) + "\n"


def _of_others(again: Sequence[Row]) -> str:
    changed = sorted({row["config"] for row in again} - {""})
    said = [f"Of runs with changes (`ovs-lite reproduce --config`, {', '.join(changed)}): `docs/{AGAIN}`."] * bool(
        changed
    )
    if any(not row["config"] for row in again):
        said.append(f"Of other seeds (scenes, draws and trainings; the shipped weights are the same): `docs/{AGAIN}`.")
    else:
        said.append("Other seeds were not run: unless a row names more of them, a verdict is that of one.")
    return " ".join(said)


def _section(entry: Mapping[str, Any], results: Results, note: str) -> list[str]:
    head, *parts = shown_rows(entry)
    lines = [
        f"### {entry['id']}: {entry['claim']}",
        "",
        f"**{head['mark']} {entry['verdict']}** ({entry['where']})",
        "",
    ]
    lines += [f"    ovs-lite reproduce --claim {entry['id']}", "", f"{_cost(entry['id'], results)}", ""]
    lines += [_row(["measured", "here (95 % interval)", "wanted", "paper", "n", "seed", "verdict"]), _row(["---"] * 7)]
    for row in parts or [head]:
        name = f"{row['part']}: {row['measure']}" if parts else entry["measure"]
        paper = row["numbers"] if parts else _paper(entry)
        numbers = [row["ours"], row["wanted"], paper, row["n"] or "", row["seeds"]]
        lines.append(_row([name, *numbers, f"{row['mark']} {row['verdict']}"]))
    lines += ["", f"The paper: {_escaped(entry['paper'])}."]
    done = [name for name, facts in results.notebooks.items() if facts.get("status") == "done"]
    why = " ".join(filter(None, [f"{text}." if (text := reason(entry, done)) else "", note]))
    return [*lines, *(["", f"Why not: {_escaped(why)}"] if why else [])]


def _paper(entry: Mapping[str, Any]) -> str:
    return "" if entry["paper_value"] is None else f"{entry['paper_value']:+g} {entry['unit']}"


def _cost(claim: str, results: Results) -> str:
    stages = {name[:2]: (name, facts) for name, facts in results.notebooks.items()}
    said = []
    for number in numbers_of(claim):
        name, facts = stages.get(number, ("", {}))
        said.append(f"{f'`notebooks/{name}.ipynb`' if name else f'Notebook {number}'}: {cost(facts)}")
    return "; ".join(said) + "."


def _where(results: Results) -> str:
    facts = results.facts
    machine = [facts.get("machine.processor", ""), f"{facts.get('machine.cpu cores', '?')} CPU cores"]
    made = f"`{facts.get('command', 'ovs-lite reproduce')}`"
    ends = sorted(filter(None, (notebook.get("finished", "")[:10] for notebook in results.notebooks.values())))
    when = f", {ends[-1]}" if ends else ""
    by_commit: dict[str, list[str]] = {}
    for name, notebook in results.notebooks.items():
        by_commit.setdefault(notebook.get("commit") or "unknown", []).append(name[:2])
    alone = len(by_commit) < 2  # a notebook that was changed is run again alone
    commits = [commit[:12] + ("" if alone else f" ({', '.join(names)})") for commit, names in by_commit.items()]
    return f"Measured by {made} on {', '.join(filter(None, machine))}{when}, commit {', '.join(commits) or 'unknown'}."


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(_escaped(str(cell)) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([|<>*_`\\])", r"\\\1", " ".join(text.split()))


def main(argv: Sequence[str] | None = None) -> None:
    """The command of this module."""
    parser = argparse.ArgumentParser(
        COMMAND, description=__doc__.split("\n\n")[0], epilog=f"example: {COMMAND} runs/lite"
    )
    parser.add_argument("run", nargs="?", type=Path, help="folder of the run whose results.csv is taken first")
    parser.add_argument("--again", nargs="+", default=[], type=Path, metavar="RUN", help="folders of further runs")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    args = parser.parse_args(argv)
    for path in write_documents(args.root, args.run, args.again):
        print(printable(path))


if __name__ == "__main__":
    main()
