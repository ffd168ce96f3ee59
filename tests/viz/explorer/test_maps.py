"""The pure functions of the canvas, run by node, against numpy."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from ovs_lite.data.rle import decode_rle
from ovs_lite.viz.explorer.content import cells, runs
from ovs_lite.viz.explorer.page import HERE
from ovs_lite.viz.overlay import contours

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
H, W = 7, 9
LABELS = np.random.default_rng(0).integers(-1, 3, (H, W))
COLOURS = [[1, 2, 3], [40, 50, 60], [200, 210, 220]]


def run(expression, **values):
    """The value of an expression in which `m` is the module and the values are constants."""
    given = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
    code = f"import * as m from {json.dumps((HERE / 'maps.js').as_uri())}; {given}"
    code += f"console.log(JSON.stringify({expression}))"
    command = [NODE, "--no-warnings", "--experimental-default-type=module", "--input-type=module", "-e", code]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_runs_are_decoded():
    assert run("[...m.decodeRuns(found, 63)]", found=runs(LABELS)) == LABELS.ravel().tolist()
    assert "expected 64" in run(
        "(() => { try { m.decodeRuns(found, 64) } catch (e) { return e.message } })()", found=runs(LABELS)
    )


def test_a_map_is_painted_with_its_colours_contours_and_holes():
    look = {"colours": COLOURS, "opacity": 0.4, "contours": True}
    given = {"labels": LABELS.ravel().tolist(), "look": look}
    painted = run(f"[...m.paint(labels, {W}, {H}, {{...look, hidden: new Set([1])}})]", **given)
    found, edge = np.array(painted).reshape(H, W, 4), contours(LABELS)
    shown = (LABELS >= 0) & (LABELS != 1)
    assert (found[~shown] == 0).all() and edge.any()
    np.testing.assert_array_equal(found[shown][:, :3], np.array(COLOURS)[LABELS[shown]])
    np.testing.assert_array_equal(found[shown][:, 3], np.where(edge, 255, 102)[shown])


def test_differences_areas_and_percents():
    other = np.roll(LABELS, 1)
    given = {"first": LABELS.ravel().tolist(), "second": other.ravel().tolist()}
    assert run("m.difference(first, second)", **given) == np.where(LABELS == other, -1, 0).ravel().tolist()
    shares = run("[...m.areas(first, 3)]", **given)
    np.testing.assert_allclose(shares, [(LABELS == k).mean() for k in range(3)])
    assert run("[0, 0.001, 0.314, 1].map(m.percent)") == ["0 %", "<1 %", "31 %", "100 %"]


@pytest.mark.parametrize("label", [0, 2, 5])
def test_coco_rle_is_read_back(label):
    found = run(f"m.cocoRle(labels, {W}, {H}, {label})", labels=LABELS.ravel().tolist())
    np.testing.assert_array_equal(decode_rle(found), LABELS == label)


def test_words_at_a_pixel_are_those_of_its_cell():
    logits = np.random.default_rng(1).random((3, H, W)).astype(np.float32)
    given = {"cells": cells(logits, np.array([4, 5, 6]))}  # a cell for each pixel
    for x, y in [(0, 0), (8, 6), (3.5, 2.5)]:
        found = run(f"m.wordsAt(m.decodeCells(cells), {x}, {y}, {W}, {H})", **given)
        here = logits[:, int(y), int(x)]
        assert [one["label"] for one in found] == (4 + np.argsort(-here)).tolist()
        np.testing.assert_allclose([one["score"] for one in found], np.sort(here)[::-1], rtol=6e-3)


def test_zooming_keeps_the_point_under_the_cursor_and_the_image_in_the_pane():
    view = {"scale": 2, "x": 3, "y": 1}
    before = run("m.toImage(view, 10, 20)", view=view)
    after = run("m.toImage(m.zoomed(view, 10, 20, 1.7, 1, 40), 10, 20)", view=view)
    np.testing.assert_allclose(after, before)
    assert run("m.zoomed(view, 0, 0, 100, 1, 40).scale", view=view) == 40
    assert run("m.fitted(100, 50, 200, 200)") == {"scale": 2, "x": 0, "y": -25}
    assert run("m.kept({scale: 2, x: 90, y: -9}, 100, 100, 50, 50)") == {"scale": 2, "x": 75, "y": 0}
