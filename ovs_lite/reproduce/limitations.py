"""Why a claim does not hold here: what its numbers say by the ledger's rule, and what is known about the cause.

Causes are written by hand in notes.yaml, {id: {verdict: text}}, only where something was measured that shows them; a
note is shown only with the verdict that it explains.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ovs_lite.claims import HOLDS, INCONCLUSIVE, NOT_RUN, REVERSED, VERDICTS, ledger
from ovs_lite.reproduce.verdicts import shown_rows

NOTES = Path(__file__).with_name("notes.yaml")


def load_notes(path: str | Path = NOTES) -> dict[str, dict[str, str]]:
    """{claim's id: {verdict: note}}. Raises ValueError for a claim or verdict that there is not."""
    notes = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    for name, texts in notes.items():
        if name not in ledger() or not isinstance(texts, dict) or not set(texts) <= set(VERDICTS):
            raise ValueError(f"{path}: got {name!r}: {texts!r}, expected a claim's id and {{verdict: note}}")
    return notes


def limitations(found: Sequence[Mapping[str, Any]], done: Collection[str]) -> dict[str, list[dict[str, str]]]:
    """{verdict: its claims with `id`, `claim`, `reason` and `note`} of all that do not hold, the worst first.

    found: see `verdicts.entries`. done: names or numbers of the notebooks that are done.
    """
    notes = load_notes()
    groups: dict[str, list[dict[str, str]]] = {REVERSED: [], INCONCLUSIVE: [], NOT_RUN: []}
    for entry in found:
        if entry["verdict"] != HOLDS:
            about = {"id": entry["id"], "claim": entry["claim"], "reason": reason(entry, done)}
            note = notes.get(entry["id"], {}).get(entry["verdict"], "")
            groups[entry["verdict"]].append({**about, "note": note})
    return groups


def reason(entry: Mapping[str, Any], done: Collection[str] = ()) -> str:
    """Why a claim of `verdicts.entries` has its verdict, of each part that does not hold; "" for one that holds."""
    parts = entry["parts"] or [entry]
    words = [row["ours"] for row in shown_rows(entry)][-len(parts) :]
    if entry["verdict"] == NOT_RUN:
        return _absent(entry["notebook"], done)
    said = []
    for part, ours in zip(parts, words, strict=True):
        if part["verdict"] != HOLDS:
            text = _absent(part["notebook"], done) if part["verdict"] == NOT_RUN else f"{ours}: {_of_numbers(part)}"
            said.append(f"{part['part']}: {text}" if entry["parts"] else text)
    return "; ".join(said)


def _absent(notebook: str, done: Collection[str]) -> str:
    """notebook: numbers as in the ledger, e.g. "04, 07"."""
    numbers, finished = notebook.split(", "), {name[:2] for name in done}
    if left := [number for number in numbers if number not in finished]:
        return f"notebook {' and '.join(left)} was not run to its end"
    return f"notebook {' and '.join(numbers)} measured nothing for it"


def _of_numbers(part: Mapping[str, Any]) -> str:
    """The ledger's rule on numbers that do not hold; see `ovs_lite.claims`."""
    margin, unit, why = f"{part['margin']:g}", part["unit"], part["why"]
    wanted = f"{'+' if part['direction'] > 0 else '-'}{margin} {unit}"
    if part["interval"] is None:
        return "it has no interval, and nothing is decided without one"
    low, high = part["interval"]
    if part["direction"] == 0:
        bound = f"a difference of up to {margin} {unit} counts as none ({why})"
        return f"{bound}; the interval {'lies outside' if part['verdict'] == REVERSED else 'reaches beyond'}"
    if part["verdict"] == REVERSED:
        return f"the whole interval lies on the other side of 0; claimed was {wanted} ({why})"
    said = ["the interval contains 0"] * (low <= 0 <= high)
    said += [f"less than {margin} {unit} does not count ({why})"] * (abs(part["ours"]) < part["margin"])
    return " and ".join(said)
