"""What it takes to reproduce a claim: its notebooks, how long they took and how much memory, where that is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.claims import get_claim
from ovs_lite.files import project_root
from ovs_lite.reproduce.products import read_stage
from ovs_lite.reproduce.results import RESULTS, Results, read_results

PACKAGED = Path(__file__).parents[2]


def numbers_of(claim: str) -> list[str]:
    """Numbers of the notebooks that settle a claim, e.g. ["04", "07"]. Raises ValueError with the nearest id."""
    return get_claim(claim).notebook.split(", ")


def notebooks_of(claims: Sequence[str], notebooks: Sequence[Path]) -> list[Path]:
    """Those of `notebooks` that settle any of the claims. Raises ValueError for an unknown claim or none of them."""
    wanted: set[str] = set()
    for claim in claims:
        numbers = set(numbers_of(claim))
        if not numbers & {notebook.stem[:2] for notebook in notebooks}:
            there = ", ".join(notebook.stem for notebook in notebooks)
            raise ValueError(
                f"got claim {claim!r}, which notebook {' and '.join(sorted(numbers))} settles; there: {there}"
            )
        wanted |= numbers
    return [notebook for notebook in notebooks if notebook.stem[:2] in wanted]


def expected(notebooks: Sequence[Path], run: Path, profile: str) -> list[str]:
    """A line per notebook: what its last run in the folder `run` took, else what docs/results.csv says, and which."""
    documented = committed_results()
    lines = []
    for notebook in notebooks:
        facts: Mapping[str, Any] = _last_run(notebook.stem, run)
        source = f" (its last run in {run})" * bool(facts)
        if not facts and documented and documented.facts.get("profile.name") == profile:
            facts = documented.notebooks.get(notebook.stem, {})
            source = f" (docs/{RESULTS}: {documented.facts.get('machine.cpu cores', '?')} CPU cores)" * bool(facts)
        lines.append(f"{notebook.stem}: {cost(facts)}{source}")
    return lines


def known_seconds(notebook: str, run: Path) -> float:
    """Seconds of its last run in the folder `run`, else of any documented run; infinite where there is none."""
    documented = committed_results()
    facts = _last_run(notebook, run) or (documented.notebooks.get(notebook, {}) if documented else {})
    return float(facts.get("seconds") or "inf")


def _last_run(notebook: str, run: Path) -> dict[str, Any]:
    stage = read_stage(run / notebook)
    return stage if stage.get("status") == "done" and stage.get("seconds") else {}


def cost(facts: Mapping[str, Any]) -> str:
    """Time and memory of a notebook in words, from its stage.json or its rows in a results.csv."""
    seconds, memory = float(facts.get("seconds") or 0), float(facts.get("memory") or 0)
    if facts.get("status") != "done" or not seconds:
        return "time and memory not measured yet"
    minutes = f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    held = f"{memory / 1024:.1f} GB of memory" if memory else "memory not measured"
    return f"about {minutes}, {held}"


def committed_results() -> Results | None:
    """docs/results.csv of the project, else of the checkout that holds the package; None without a readable one."""
    for root in (project_root(), PACKAGED):
        try:
            return read_results(root / "docs" / RESULTS)
        except (OSError, ValueError):
            continue
    return None
