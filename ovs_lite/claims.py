"""The ledger of claims: what the papers say, what would count, and the verdict on what was measured.

Direction and margin stand in claims.yaml before a run; `ours` is always a signed difference, with a 95 % interval:

claim of a difference (direction +1 or -1)
    holds      the whole interval lies on the claimed side of 0, and |ours| >= margin
    reversed   the whole interval lies on the other side of 0, and |ours| >= margin
claim of no difference (direction 0)
    holds      the whole interval lies within [-margin, margin]
    reversed   the whole interval lies outside of it
in all other cases, and without an interval: inconclusive.

A claim with parts says all of them: it holds when every part holds, is reversed as soon as one part is, is not run when
no part was, and is inconclusive otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ovs_lite.config import lookup

LEDGER = Path(__file__).with_suffix(".yaml")
HOLDS, REVERSED, INCONCLUSIVE, NOT_RUN = VERDICTS = ("holds", "reversed", "inconclusive", "not run")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """What is measured for a claim, or for one part of it. Raises ValueError for values that decide nothing."""

    measure: str  # which difference
    unit: str  # of ours, margin and paper
    direction: int  # the sign of ours that supports the claim; 0: the claim is that there is no difference
    margin: float  # what |ours| must reach, or, with direction 0, may not exceed
    why: str  # the reason for the margin
    paper: float | None = None  # the same difference in the paper

    def __post_init__(self):
        _check_kinds(self)
        if type(self.direction) is not int or self.direction not in (1, 0, -1):
            raise ValueError(f"got direction {self.direction!r}, expected 1, -1 or 0")
        if self.margin < 0 or self.margin == 0 == self.direction:
            raise ValueError(f"got margin {self.margin}, expected a positive number (or 0 with a direction)")


@dataclass(frozen=True)
class Claim:
    """One row of the ledger. parts: {name: Part}; a claim that is not divided has one, named ""."""

    id: str
    where: str  # paper and table
    claim: str
    numbers: str  # the paper's, as text
    notebook: str  # numbers of the notebooks that settle it
    parts: Mapping[str, Part]

    def __post_init__(self):
        _check_kinds(self)

    def part(self, name: str | None = None) -> Part:
        """The part of that name; None: the claim itself. Raises ValueError listing the names there are."""
        if (name or "") not in self.parts:
            names = ", ".join(filter(None, self.parts)) or "none: this claim has no parts"
            raise ValueError(f"got part {name!r} of claim {self.id!r}, expected one of {names}")
        return self.parts[name or ""]


def load_claims(path: str | Path = LEDGER) -> dict[str, Claim]:
    """{id: Claim} in the order of the file. Raises ValueError naming the file, the claim and what is wrong with it."""
    try:
        rows = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or []
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: got {type(rows).__name__}, expected a list of claims")
    claims: dict[str, Claim] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("id") if isinstance(row, dict) else None
        try:
            claim = _claim(row)
            if claim.id in claims:
                raise ValueError("got this id twice, expected unique ones")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, claim {number} ({name!r}): {error}") from error
        claims[claim.id] = claim
    return claims


def get_claim(name: str) -> Claim:
    """A claim of the package's ledger. Raises ValueError with the nearest id for an unknown one."""
    return lookup(ledger(), name, "claim")


@cache
def ledger() -> dict[str, Claim]:
    """The package's own `load_claims`, which take a quarter of a second to read, once per process."""
    return load_claims()


def verdict(part: Part, ours: float, interval: Interval | None) -> str:
    """`holds`, `reversed` or `inconclusive`, as the module says. ours: in the part's unit. interval: its 95 % one.

    Raises ValueError for numbers that are not finite, an interval whose ends are swapped, or one without `ours`.
    """
    if not math.isfinite(ours):
        raise ValueError(f"got ours={ours}, expected a finite number")
    if interval is None:
        return INCONCLUSIVE
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high) and low <= ours <= high):
        raise ValueError(f"got the interval [{low}, {high}] with ours={ours}, expected finite low <= ours <= high")
    if part.direction == 0:
        if -part.margin <= low and high <= part.margin:
            return HOLDS
        return REVERSED if low > part.margin or high < -part.margin else INCONCLUSIVE
    low, high = sorted((part.direction * low, part.direction * high))
    if abs(ours) < part.margin or low <= 0 <= high:
        return INCONCLUSIVE
    return HOLDS if low > 0 else REVERSED


def combined(verdicts: Sequence[str]) -> str:
    """The verdict on a claim from those on all its parts. Raises ValueError for none at all."""
    if not verdicts:
        raise ValueError("got no verdicts, expected one per part")
    if REVERSED in verdicts:
        return REVERSED
    return verdicts[0] if len(set(verdicts)) == 1 else INCONCLUSIVE


def _claim(row: Any) -> Claim:
    if not isinstance(row, dict):
        raise ValueError(f"got {type(row).__name__}, expected a mapping")
    of_claim, of_part = ([item.name for item in fields(kind)] for kind in (Claim, Part))
    named, unknown = row.get("parts", {"": {}}), set(row) - {*of_claim, *of_part}
    if unknown or not isinstance(named, dict) or not named:
        raise ValueError(f"got keys {sorted(unknown)} and parts {named!r}, expected known keys and {{name: part}}")
    shared = {key: row[key] for key in of_part if key in row}
    parts = {}
    for name, changes in named.items():
        if not isinstance(name, str) or not isinstance(changes, dict) or set(changes) - set(of_part):
            raise ValueError(f"got part {name!r}: {changes!r}, expected some of {', '.join(of_part)}")
        values = shared | changes
        if "measure" in shared and "measure" in changes:
            values["measure"] = f"{shared['measure']}: {changes['measure']}"
        parts[name] = _made(Part, values)
    own = {key: row[key] for key in of_claim if key in row}
    return _made(Claim, own | {"parts": MappingProxyType(parts)})


def _made(kind: type, values: dict[str, Any]) -> Any:
    missing = [item.name for item in fields(kind) if item.name not in values and item.default is MISSING]
    if missing:
        raise ValueError(f"got no {', '.join(missing)}, expected a value for each")
    return kind(**values)


def _check_kinds(row: Part | Claim) -> None:
    for item in fields(row):
        value = getattr(row, item.name)
        if item.type is str and not (isinstance(value, str) and value.strip()):
            raise ValueError(f"got {item.name}={value!r}, expected text")
        if item.type is float or item.name == "paper" and value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"got {item.name}={value!r}, expected a finite number")
