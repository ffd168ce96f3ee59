"""Figures: they draw what they are given and leave nothing open."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

from ovs_lite.viz import figures  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


def test_image_row_and_heat_map_draw_one_axis_each():
    image = Image.new("RGB", (12, 8))
    row = figures.image_row([image, np.zeros((4, 4))], ["colour", "grey"])
    assert [ax.get_title() for ax in row.axes] == ["colour", "grey"]
    heat = figures.heat_map(image, np.random.default_rng(0).random((3, 4, 6)), ["a", "b", "c"])
    assert [ax.get_title() for ax in heat.axes[:4]] == ["", "a", "b", "c"]
    assert heat.axes[2].images[1].get_array().shape == (4, 6)
    single = np.arange(24.0).reshape(4, 6)
    assert (figures.heat_map(image, single).axes[1].images[1].get_array() == single).all()
    with pytest.raises(ValueError, match="1 titles"):
        figures.image_row([image, image], ["one"])


def test_table_map_prints_every_number_and_a_dash_for_none():
    figure = figures.table_map({"truth": {"oracle": 1.0, "clip": 0.213}, "grid": {"oracle": float("nan")}}, "mIoU")
    assert [text.get_text() for text in figure.axes[0].texts] == ["100.0", "21.3", "–", "–"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["oracle", "clip"]


def test_bars_and_named_points_show_what_they_are_given():
    figure = figures.bars({"dog": {"TCL": 10.0, "OpenSeg": 30.0}, "sky": {"TCL": 50.0}}, "IoU (%)")
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dog", "sky"]
    widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
    assert widths[0] == [10.0, 50.0] and widths[1][0] == 30.0 and np.isnan(widths[1][1])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["TCL", "OpenSeg"]
    lowest = [[bar.get_y() for bar in bars] for bars in ax.containers]
    assert lowest[0] < lowest[1] and lowest[1][0] < lowest[0][1], "bars of one group stand together"
    (ax,) = figures.named_points({"fast": (1.0, 2.0), "slow": (100.0, 3.0)}, "ms", "mIoU", log_x=True).axes
    assert [text.get_text() for text in ax.texts] == ["fast", "slow"] and ax.get_xscale() == "log"
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[1.0, 2.0]], [[100.0, 3.0]]]
    assert not figures.bars({}, "IoU").axes[0].containers


def test_binned_means_equal_a_loop():
    rng = np.random.default_rng(1)
    x, y, edges = rng.random(200) ** 2, rng.random(200), np.linspace(0, 1, 9)
    centres, means = figures.binned_means(x, y, edges)
    for centre, mean in zip(centres, means, strict=True):
        assert mean == pytest.approx(y[np.abs(x - centre) <= 1 / 16].mean())
    end = figures.binned_means(np.array([0.0, 1.0]), np.array([3.0, 5.0]), edges)
    np.testing.assert_allclose(end, ([1 / 16, 15 / 16], [3, 5]))


def test_scatter_and_curves_draw_one_line_per_group():
    figure = figures.scatter_with_means([0, 1, 2, 3], [1, 2, 3, 4], "blank", "similarity", groups=["a", "b", "a", "b"])
    assert [line.get_label() for line in figure.axes[0].lines] == ["a", "b"]
    lines = figures.curves({"loss": ([1, 10], [2, 1]), "other": ([1, 10], [3, 1])}, "step", "loss", log_x=True)
    assert [line.get_label() for line in lines.axes[0].lines] == ["loss", "other"]
    assert lines.axes[0].get_xscale() == "log"
    assert figures.scatter_with_means([], [], "x", "y").axes
