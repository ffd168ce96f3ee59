"""Watching a training: every step is kept, few lines are printed, and a notebook's figure is redrawn now and then."""

import math
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure

from kit.tasks import CONFIG, TinyTask
from ovs_lite.notebook import live
from ovs_lite.notebook.live import REDRAW_SECONDS, LiveCurve, MaskFilm, headless
from ovs_lite.train import LoopConfig, train


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setenv("OVS_HEADLESS", "1")


@pytest.fixture
def notebook(monkeypatch):
    """A notebook whose clock is set by hand: what was displayed, in order, as (how, object)."""
    seen = []

    class Handle:
        def update(self, shown):
            seen.append(("update", shown))

    def display(shown, display_id):
        assert display_id is True
        seen.append(("display", shown))
        return Handle()

    monkeypatch.setattr(live, "headless", lambda: False)
    monkeypatch.setattr(live, "display", display)
    return seen


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 100, 301])
def test_headless_prints_at_most_four_lines_the_last_at_the_end(quiet, steps, capsys):
    curve = LiveCurve(steps, ("loss", "dice"))
    for step in range(steps):
        curve(step, {"loss": 2.0 + step, "dice": 0.12345, "lr": 1.0})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == min(4, steps)
    assert lines[-1] == f"step {steps} of {steps}: loss {1.0 + steps:.3f}, dice 0.123"
    printed = [int(line.split()[1]) for line in lines]
    assert printed == sorted({math.ceil(steps * quarter / 4) for quarter in range(1, 5)})


def test_every_step_is_kept_also_after_a_resume(quiet):
    curve = LiveCurve(50, ("dice",))
    for step in range(20, 50):
        curve(step, {"loss": 0.0, "dice": step / 7})
    assert curve.steps_seen == list(range(20, 50))
    assert curve.history == {"dice": [step / 7 for step in range(20, 50)]}


def test_it_follows_a_training(quiet, tmp_path, capsys):
    curve = LiveCurve(CONFIG["steps"], ("loss", "fit"))
    rows = train(TinyTask(), LoopConfig(**CONFIG), tmp_path, on_step=curve, progress=False)
    assert curve.steps_seen == [row["step"] for row in rows]
    assert curve.history == {term: [row[term] for row in rows] for term in ("loss", "fit")}
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]) == 4


@pytest.mark.parametrize("terms", [("loss",), ("loss", "dice", "focal")])
def test_the_figure_has_a_line_per_term_and_is_left_closed(quiet, terms):
    curve = LiveCurve(3, terms)
    for step in range(3):
        curve(step, {term: step * len(term) for term in terms})
    figure = curve.figure()
    lines = figure.axes[0].lines
    assert isinstance(figure, Figure) and [line.get_label() for line in lines] == list(terms)
    for line, term in zip(lines, terms, strict=True):
        assert list(line.get_xdata()) == [0, 1, 2] and list(line.get_ydata()) == [0, len(term), 2 * len(term)]
    assert figure.axes[0].get_xlabel() == "step" and not plt.fignum_exists(figure.number)


def test_a_figure_before_the_first_step_is_empty():
    (line,) = LiveCurve(3).figure().axes[0].lines
    assert len(line.get_xdata()) == 0 and line.get_label() == "loss"


def test_a_term_that_the_training_does_not_have_is_an_error(quiet):
    with pytest.raises(KeyError, match="dcie"):
        LiveCurve(3, ("loss", "dcie"))(0, {"loss": 1.0, "dice": 1.0})


def test_a_notebook_gets_one_figure_that_is_replaced_at_most_once_a_second(notebook, clock, capsys):
    curve = LiveCurve(40)
    for step in range(40):
        curve(step, {"loss": float(step)})
        clock[0] += REDRAW_SECONDS / 8
    assert [how for how, _ in notebook] == ["display", "update", "update", "update", "update"]
    lengths = [len(shown.axes[0].lines[0].get_xdata()) for _, shown in notebook]
    assert lengths == [1, 10, 19, 28, 37], "all steps so far; more than a second passes after nine of them"
    assert capsys.readouterr().out == "" and not plt.get_fignums()


def test_slow_steps_are_all_drawn(notebook, clock):
    curve = LiveCurve(3)
    for step in range(3):
        curve(step, {"loss": 1.0})
        clock[0] += 60
    assert [how for how, _ in notebook] == ["display", "update", "update"]


def test_headless_is_what_the_environment_says_or_a_script_without_a_terminal(monkeypatch):
    for variable, kernel, terminal, expected in (
        ("1", True, True, True),
        ("", True, False, False),
        ("", False, True, False),
        ("", False, False, True),
        ("0", False, False, True),
    ):
        monkeypatch.setenv("OVS_HEADLESS", variable)
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "ipykernel", raising=False)
            if kernel:
                patch.setitem(sys.modules, "ipykernel", live)
            assert headless() == expected


def test_a_film_keeps_the_mask_of_chosen_steps():
    class Brightening:
        asked = 0

        def predict(self, images, text_embeddings, gain):
            self.asked += 1
            return torch.full((1, 1, 4, 6), gain * self.asked)

    method = Brightening()
    film = MaskFilm(torch.zeros(1, 3, 4, 6), torch.zeros(1, 8), {0, 2}, gain=0.5)
    film.watch(SimpleNamespace(method=method))
    for step in range(4):
        film(step, {"loss": 1.0})
    assert list(film.frames) == [0, 2] and method.asked == 2
    assert film.frames[2].shape == (4, 6) and (film.frames[2] == 1.0).all()
