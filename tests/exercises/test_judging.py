"""Whatever an answer is or does, `check` says something and raises nothing."""

import pytest
import torch

from ovs_lite import exercises
from ovs_lite.exercises import judging
from ovs_lite.exercises.judging import NOT_RIGHT, NOT_YET, SOLVED, Failed, Unsolved, agree, ask, compare

ODD = {
    "raises": lambda *given: 1 / 0,
    "wants fewer": lambda: 1,
    "text": lambda *given: "0.3",
    "a list of lists of different lengths": lambda *given: [[1], [1, 2]],
    "nan": lambda *given: float("nan"),
    "an object": lambda *given: object(),
    "no function": 3.5,
    "a class": dict,
    "numbers of another shape": lambda *given: torch.zeros(2, 1, 2),
    "empty": (),
    "text alone": "?",
    "a matrix": torch.zeros(2, 2),
}


@pytest.mark.parametrize("odd", ODD)
def test_no_answer_raises(odd, capsys):
    for number in exercises.EXERCISES:
        assert exercises.check(number, ODD[odd]).status == NOT_RIGHT
        assert capsys.readouterr().out.startswith(f"{number} not right: ")


def dots_inside(*given):
    attention = ...
    return attention * 2


def todo(*given):
    raise NotImplementedError


@pytest.mark.parametrize("answer", [None, ..., (..., ...), (1, ...), {"a": ...}, [None]])
def test_dots_are_not_yet_everywhere(answer):
    assert {exercises.check(number, answer).status for number in exercises.EXERCISES} == {NOT_YET}


@pytest.mark.parametrize("answer", [lambda *given: ..., lambda *given: None, dots_inside, todo])
def test_a_function_with_dots_is_not_yet(answer):
    asked = [n for n, task in exercises.EXERCISES.items() if task.kind in (judging.FILL_IN, judging.BUG_HUNT)]
    assert len(asked) >= 16
    assert {exercises.check(number, answer).status for number in asked} == {NOT_YET}


def test_an_answer_cannot_spoil_its_own_cases():
    def spoils(x):
        total = float(x.sum())
        x.zero_()
        return total

    inputs = torch.ones(3)
    compare("the sum", spoils, lambda x: float(x.sum()), inputs)
    assert inputs.sum() == 3


def test_the_message_shows_where_a_large_answer_differs_most():
    wanted = torch.zeros(5, 5)
    got = wanted.clone()
    got[1, 2], got[3, 4] = 0.5, 2.0
    with pytest.raises(Failed) as failure:
        agree("a map", got, wanted, "look there")
    assert failure.value.message == (
        "first failing case: a map\n  expected: 0.0000 at [3, 4]\n  got:      2.0000 at [3, 4]\n  hint: look there"
    )
    got[0, 0] = torch.nan
    with pytest.raises(Failed, match="a map") as failure:
        agree("a map", got, wanted)
    assert "nan at [0, 0]" in failure.value.message


def test_equal_is_equal():
    agree("a number", 1.00001, 1)
    agree("a map with holes", torch.tensor([torch.nan, 1.0]), [torch.nan, 1.0])
    agree("labels", torch.tensor([1, -1]), torch.tensor([1, -1]))
    with pytest.raises(Failed, match="one number"):
        agree("one number", [1.0], 1.0)
    with pytest.raises(Unsolved):
        ask("a template", lambda: ...)


def test_unknown_numbers_are_named():
    with pytest.raises(ValueError, match="got exercise '04-9', expected one of 00-1"):
        exercises.check("04-9", 1)
    with pytest.raises(ValueError, match="'04-1', expected a bug hunt: .*04-3"):
        exercises.planted("04-1")
    with pytest.raises(ValueError, match="free number"):
        judging.exercise("04-1", judging.FILL_IN, "")(print)


def test_a_verdict_is_shown_once(capsys):
    verdict = exercises.check("00-2", 0.02)
    assert verdict.status == SOLVED and capsys.readouterr().out == verdict.message + "\n"
    assert verdict._ipython_display_() is None and capsys.readouterr().out == ""


def test_a_dtype_that_torch_lacks_is_no_template():
    verdict = exercises.check("05-1", lambda tokens, mask, *_: torch.nn.functional.max_pool2d(mask[None] > 0, 2))
    assert verdict.status == NOT_RIGHT and "not implemented for" in verdict.message
