"""Figures for notebooks and reports. Every function returns a matplotlib Figure and leaves nothing open in pyplot.

Images are PIL images or arrays, (H, W, 3) uint8 RGB or (H, W).
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ovs_lite.viz.lettering import drawable, font_file
from ovs_lite.viz.palette import colour

AnyImage = Image.Image | np.ndarray
SIDE = 2.2  # inches of an image


def image_row(images: Sequence[AnyImage], titles: Sequence[str] | None = None, side: float = SIDE) -> Figure:
    """Images side by side, each `side` inches wide, with a title above each."""
    figure, axes = _row(len(images), titles, side)
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(np.asarray(image), cmap="gray")
    return figure


def heat_map(image: AnyImage, scores: np.ndarray, titles: Sequence[str] | None = None) -> Figure:
    """The image, then (K, H, W) or (H, W) scores laid over it one by one, on one common colour scale."""
    scores = np.atleast_3d(np.asarray(scores).T).T  # (K, H, W)
    named = None if titles is None else ["", *titles]
    figure, axes = _row(len(scores) + 1, named, SIDE)
    axes[0].imshow(np.asarray(image), cmap="gray")
    for ax, score in zip(axes[1:], scores, strict=True):
        ax.imshow(np.asarray(image), cmap="gray", extent=(0, score.shape[1], score.shape[0], 0))
        drawn = ax.imshow(
            score, cmap="inferno", alpha=0.6, vmin=np.nanmin(scores), vmax=np.nanmax(scores),
            extent=(0, score.shape[1], score.shape[0], 0),
        )  # fmt: skip
    figure.colorbar(drawn, ax=list(axes), shrink=0.8)
    return figure


def table_map(table: Mapping[str, Mapping[str, float]], title: str = "") -> Figure:
    """A table {row: {column: value}} as coloured cells with 100 times the number printed in each.

    A missing or NaN value is an empty cell with a dash.
    """
    rows, columns = list(table), list(dict.fromkeys(column for row in table.values() for column in row))
    values = 100 * np.array([[table[row].get(column, np.nan) for column in columns] for row in rows], float)
    figure, ax = plt.subplots(figsize=(2.2 + 1.3 * len(columns), 1.2 + 0.5 * len(rows)), layout="constrained")
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0, 1)
    ax.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.1f}" if np.isfinite(value) else "–"
        dark = np.isfinite(value) and value < (low + high) / 2
        ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_title(title)
    return _closed(figure)


def scatter_with_means(
    x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str, bins: int = 8, groups: Sequence[str] | None = None
) -> Figure:
    """Points, and per group a line through the mean y of `bins` equally wide bins of x (empty bins are skipped)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    groups = np.asarray(["mean"] * len(x) if groups is None else groups)
    edges = np.linspace(x.min(), x.max(), bins + 1) if len(x) else np.linspace(0, 1, bins + 1)
    figure, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for number, name in enumerate(dict.fromkeys(groups.tolist())):
        shade, mine = np.array(colour(number + 4 if number < 3 else number)) / 255, groups == name
        ax.scatter(x[mine], y[mine], s=8, alpha=0.25, color=shade, linewidths=0)
        ax.plot(*binned_means(x[mine], y[mine], edges), "o-", color=shade, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(x):
        ax.legend()
    return _closed(figure)


def binned_means(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the non-empty bins between `edges`, and the mean of y in each; the last bin includes its right end."""
    counts, sums = np.histogram(x, edges)[0], np.histogram(x, edges, weights=y)[0]
    filled = counts > 0
    return ((edges[:-1] + edges[1:]) / 2)[filled], sums[filled] / counts[filled]


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str, log_x: bool = False
) -> Figure:
    """Named lines {name: (x, y)}; each has its own colour, marker and dash, so they differ in grey print too."""
    figure, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for number, (name, (x, y)) in enumerate(series.items()):
        dash, marker = ("-", "--", "-.", ":")[number % 4], "os^Dv<>"[number % 7]
        marked = marker if len(x) <= 40 else None
        ax.plot(x, y, dash, marker=marked, color=np.array(colour(number)) / 255, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log_x else "linear")
    if series:
        ax.legend()
    return _closed(figure)


def bars(table: Mapping[str, Mapping[str, float]], xlabel: str) -> Figure:
    """A table {group: {name: value}} as horizontal bars: a group per row, a bar per name, hatched for grey print."""
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    figure, ax = plt.subplots(figsize=(6, 1 + 0.16 * len(table) * (len(names) + 1)), layout="constrained")
    places, height = np.arange(len(table)), 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        values = [row.get(name, np.nan) for row in table.values()]
        shade, hatch = np.array(colour(number)) / 255, ("", "//", "..", "xx")[number % 4]
        ax.barh(places + (number - (len(names) - 1) / 2) * height, values, height, color=shade, hatch=hatch, label=name)
    ax.set_yticks(places, drawable(list(table)), fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel=xlabel)
    if names:
        ax.legend(fontsize=8)
    return _closed(figure)


def named_points(points: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str, log_x: bool = False) -> Figure:
    """Points {name: (x, y)}, each with its name next to it."""
    figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for number, (name, (x, y)) in enumerate(points.items()):
        ax.plot(x, y, "os^Dv<>"[number % 7], color=np.array(colour(number)) / 255)
        ax.annotate(drawable([name])[0], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log_x else "linear")
    ax.margins(x=0.2, y=0.12)
    return _closed(figure)


def _row(count: int, titles: Sequence[str] | None, side: float) -> tuple[Figure, np.ndarray]:
    if count == 0 or (titles is not None and len(titles) != count):
        given = "no" if titles is None else len(titles)
        raise ValueError(f"got {count} images and {given} titles, expected at least one image, one title each")
    figure, axes = plt.subplots(1, count, figsize=(side * count, side + 0.4), squeeze=False, layout="constrained")
    for ax, title in zip(axes[0], drawable(titles or [""] * count), strict=True):
        ax.set_axis_off()
        ax.set_title(title, fontsize=9, font=font_file(title))
    return _closed(figure), axes[0]


def _closed(figure: Figure) -> Figure:
    """Closed in pyplot, so that a notebook shows the returned figure once and none piles up."""
    plt.close(figure)
    return figure
