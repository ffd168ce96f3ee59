"""The judging of answers: what an exercise is, what a check says, and how an answer is compared with an oracle.

An exercise is a function of the answer that returns where the answer is right and raises `Failed` at the first case
that is wrong. Oracles are slow and independent of the package. No answer makes `check` raise. The `bug` of an exercise
is a function that is wrong on purpose.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

FILL_IN, TWEAK, BUG_HUNT, OWN = "fill in", "tweak to reach a number", "bug hunt", "your own picture or words"
SOLVED, NOT_YET, NOT_RIGHT = "solved", "not yet", "not right"
TOLERANCE = 1e-4
FEW = 9  # numbers that are shown whole


class Unsolved(Exception):
    """The answer still has the template's dots in it, or gives None."""


class Failed(Exception):
    """The first case that an answer fails. expected, got: as the student reads them; hint: what the case is about."""

    def __init__(self, case: str, expected: Any, got: Any, hint: str = ""):
        super().__init__(case)
        lines = [f"first failing case: {case}", f"  expected: {expected}", f"  got:      {got}"]
        self.message = "\n".join(lines + [f"  hint: {hint}"] * bool(hint))


@dataclass(frozen=True)
class Exercise:
    """kind: one of FILL_IN, TWEAK, BUG_HUNT, OWN. source: paper and equation. bug: the planted function of a hunt."""

    number: str
    kind: str
    source: str
    test: Callable[[Any], None]
    bug: Callable | None = None


@dataclass(frozen=True)
class Verdict:
    """What `check` found. status: SOLVED, NOT_YET or NOT_RIGHT. message: what it printed."""

    number: str
    status: str
    message: str

    def _ipython_display_(self) -> None:
        """Nothing: `check` has printed it, a notebook shall not show it again."""


EXERCISES: dict[str, Exercise] = {}


def exercise(number: str, kind: str, source: str, bug: Callable | None = None) -> Callable:
    """Register a test of answers under a number such as "04-2". Raises ValueError for a number that is taken."""

    def register(test: Callable[[Any], None]) -> Callable[[Any], None]:
        if number in EXERCISES:
            raise ValueError(f"got exercise {number!r} again, expected a free number")
        EXERCISES[number] = Exercise(number, kind, source, test, bug)
        return test

    return register


def check(number: str, answer: Any) -> Verdict:
    """Judge an answer and print: solved, not yet (None, dots), or the first failing case with expected and got.

    answer: what the exercise asks for, mostly a function. Whatever it does, raising included, becomes a message.
    Raises ValueError for a number that no exercise has.
    """
    task = _find(number)
    try:
        status, message = SOLVED, f"well done ({task.source})"
        if _has_dots(answer):
            raise Unsolved
        task.test(answer)
    except Unsolved:
        status, message = NOT_YET, f"{task.kind}: put your answer in place of the dots, then run this cell again"
    except Failed as failure:
        status, message = NOT_RIGHT, failure.message
    except Exception as error:
        status, message = NOT_RIGHT, f"the answer could not be judged: {type(error).__name__}: {error}"
    verdict = Verdict(number, status, f"{number} {status}: {message}")
    print(verdict.message)
    return verdict


def planted(number: str) -> Callable:
    """The function with the bug of a bug hunt, to be called; its code is printed, to be copied and repaired.

    Raises ValueError for an exercise that is no bug hunt.
    """
    task = _find(number)
    if task.bug is None:
        hunts = ", ".join(name for name, some in EXERCISES.items() if some.bug)
        raise ValueError(f"got exercise {number!r}, expected a bug hunt: {hunts}")
    print(textwrap.dedent(inspect.getsource(task.bug)))
    return task.bug


def compare(case: str, answer: Callable, oracle: Callable, *inputs: Any, hint: str = "") -> None:
    """The answer's value of some inputs must be the oracle's. Raises Failed with where they differ most, Unsolved."""
    agree(case, ask(case, answer, *inputs), oracle(*inputs), hint)


def ask(case: str, answer: Callable, *inputs: Any) -> Any:
    """What the answer gives for copies of the inputs. Raises Unsolved for dots, Failed for an exception."""
    if not callable(answer):
        raise Failed(case, "a function", f"{type(answer).__name__}: {answer!r:.60}")
    try:
        given = answer(*(one.clone() if isinstance(one, torch.Tensor) else one for one in inputs))
    except Exception as error:
        todo = isinstance(error, NotImplementedError) and "not implemented for" not in str(error)  # torch: of a dtype
        if todo or "ellipsis" in str(error).lower():
            raise Unsolved from None
        raise Failed(case, "a value", f"{type(error).__name__}: {error}") from None
    if _has_dots(given):
        raise Unsolved
    return given


def agree(case: str, got: Any, expected: Any, hint: str = "") -> None:
    """Two numbers or tensors are equal, shape included, up to TOLERANCE. Raises Failed with where they differ most."""
    wanted = torch.as_tensor(expected).detach().double()
    try:
        given = torch.as_tensor(got).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise Failed(case, f"numbers of shape {tuple(wanted.shape)}", type(got).__name__, hint) from None
    if given.shape != wanted.shape:
        raise Failed(case, f"shape {tuple(wanted.shape)}", f"shape {tuple(given.shape)}", hint)
    if not torch.allclose(given, wanted, atol=TOLERANCE, rtol=TOLERANCE, equal_nan=True):
        apart = (given - wanted).abs().nan_to_num(torch.inf)
        apart = torch.where(given.isnan() & wanted.isnan(), 0, apart)
        raise Failed(case, _shown(wanted, apart), _shown(given, apart), hint)


def require(case: str, right: Any, expected: Any, got: Any, hint: str = "") -> None:
    """Raises Failed where `right` is false."""
    if not right:
        raise Failed(case, expected, got, hint)


def numbers(seed: int, *shape: int) -> torch.Tensor:
    """Normally distributed numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def number_of(case: str, answer: Any) -> float:
    """The answer as a number. Raises Failed for what is none."""
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise Failed(case, "a number", f"{type(answer).__name__}: {answer!r:.60}") from None


def pair_of(case: str, answer: Any, what: str) -> tuple[Any, Any]:
    """The two parts of the answer. what: they are. Raises Failed for anything else."""
    require(
        case, isinstance(answer, list | tuple) and len(answer) == 2, what, f"{type(answer).__name__}: {answer!r:.60}"
    )
    return tuple(answer)


def _shown(values: torch.Tensor, apart: torch.Tensor) -> str:
    if values.numel() <= FEW:
        shown = ", ".join(f"{value:.4g}" for value in values.flatten().tolist())
        return f"[{shown}]" if values.ndim else shown
    place = torch.unravel_index(apart.argmax(), apart.shape)
    return f"{float(values[place]):.4f} at {[int(index) for index in place]}"


def _find(number: str) -> Exercise:
    if number not in EXERCISES:
        raise ValueError(f"got exercise {number!r}, expected one of {', '.join(sorted(EXERCISES))}")
    return EXERCISES[number]


def _has_dots(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return value is None or value is ... or any(map(_has_dots, parts))
