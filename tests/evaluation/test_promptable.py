"""Promptable oracle IoU: what the segmenter is asked, against loops, by hand, and merged."""

import numpy as np
import pytest
import torch

from kit.records import scene, toy, without_annotation
from ovs_lite.clip.crops import mask_boxes
from ovs_lite.data.segments import record_masks
from ovs_lite.evaluation.metrics.oracle_iou import best_of_all, best_of_own
from ovs_lite.evaluation.promptable import KINDS, PromptCounter, evaluate_promptable, inner_points, point_grid, surest

RECORDS = [toy(f"p{n}", scene(40 + 2 * n, 50 - 3 * n)) for n in range(9)]


class Squares:
    """For a point two squares around it, for a box the box itself and its left half; remembers what it was asked."""

    def __init__(self, radii=(6, 12)):
        self.radii, self.asked = radii, []

    def __call__(self, image, points, boxes):
        assert (points is None) != (boxes is None) and image.dtype == np.uint8
        self.asked.append((None if points is None else points.clone(), None if boxes is None else boxes.clone()))
        if boxes is None:
            boxes = torch.stack([torch.cat([points - r, points + r], 1) for r in self.radii], 1)
        else:
            middle = (boxes[:, :1] + boxes[:, 2:3]) / 2
            boxes = torch.stack([boxes, torch.cat([boxes[:, :2], middle, boxes[:, 3:]], 1)], 1)
        y, x = (torch.arange(side) + 0.5 for side in image.shape[:2])
        left, top, right, bottom = boxes[..., None].unbind(2)
        rows, columns = (y >= top) & (y <= bottom), (x >= left) & (x <= right)
        masks = (rows[..., :, None] & columns[..., None, :]).float() * 0.8
        return masks, masks.mean((2, 3))


def test_the_grid_is_of_cell_centres():
    assert point_grid(4, 8, 2).tolist() == [[2, 1], [6, 1], [2, 3], [6, 3]]
    points = point_grid(30, 50)
    assert points.shape == (400, 2) and points.mean(0).tolist() == pytest.approx([25, 15])


@pytest.mark.parametrize("at_once", [7, 100])
def test_the_figures_are_those_of_all_masks_at_once(at_once):
    report = evaluate_promptable(Squares(), RECORDS, grid=6, at_once=at_once)
    points, boxes = [], []
    for record in RECORDS:
        targets = torch.from_numpy(record_masks(record)[0])
        masks = Squares()(record["image"], point_grid(*record["image"].shape[:2], 6), None)[0]
        points += best_of_all([masks.flatten(0, 1)], targets).tolist()
        boxes += best_of_own(Squares()(record["image"], None, mask_boxes(targets).float())[0], targets).tolist()
    assert report.masks == len(points) == 27 and np.concatenate(report.overlaps["1-point"]).tolist() == points
    assert np.concatenate(report.overlaps["1-box"]).tolist() == boxes
    for kind, expected in (("1-point", points), ("1-box", boxes)):
        found = report.iou(kind)
        assert found.value == pytest.approx(np.mean(expected)) and found.low < found.value < found.high
        assert found.images == 9


def test_a_box_is_tight_and_its_best_output_counts():
    ids = np.zeros((6, 8), int)
    ids[1:3, 2:6], ids[4:, 0:2] = 1, 2
    prompt = Squares()
    report = evaluate_promptable(prompt, [toy("a", ids)], kinds=["1-box"])
    assert prompt.asked[0][0] is None and prompt.asked[0][1].tolist() == [[2, 1, 6, 3], [0, 4, 2, 6]]
    assert report.overlaps["1-box"][0].tolist() == [1, 1] and report.iou("1-box").note == "no interval: one image"
    ids[1:3, 4:6] = 0
    ids[0, 5] = ids[5, 7] = 3  # in two pieces: its box is large, its IoU small
    report = evaluate_promptable(Squares(), [toy("a", ids)], kinds=["1-box"])
    assert report.overlaps["1-box"][0].tolist() == [1, 1, 2 / 18]


def test_an_inner_point_is_a_pixel_of_the_mask_whatever_the_order_of_images():
    targets = [torch.from_numpy(record_masks(record)[0]) for record in RECORDS]
    prompt = Squares()
    report = evaluate_promptable(prompt, RECORDS, kinds=["inner point"], seed=3)
    assert len(prompt.asked) == 9 and all(boxes is None for _, boxes in prompt.asked)
    for (points, _), masks in zip(prompt.asked, targets, strict=True):
        assert all(mask[int(y), int(x)] and x % 1 == y % 1 == 0.5 for mask, (x, y) in zip(masks, points, strict=True))
    expected = best_of_own(Squares()(RECORDS[4]["image"], prompt.asked[4][0], None)[0], targets[4])
    assert report.overlaps["inner point"][4].tolist() == expected.tolist()
    alone, other = Squares(), Squares()
    evaluate_promptable(alone, RECORDS[4:5], kinds=["inner point"], seed=3, at_once=2)
    assert torch.equal(torch.cat([points for points, _ in alone.asked]), prompt.asked[4][0])
    evaluate_promptable(other, RECORDS[4:5], kinds=["inner point"], seed=4)
    assert not torch.equal(other.asked[0][0], prompt.asked[4][0])


def test_every_pixel_of_a_mask_may_be_its_inner_point():
    masks, rng = torch.zeros(1, 3, 4, dtype=torch.bool), np.random.default_rng(0)
    masks[0, 1, 2], masks[0, 2, 0] = True, True
    drawn = {tuple(inner_points(masks, rng)[0].tolist()) for _ in range(30)}
    assert drawn == {(2.5, 1.5), (0.5, 2.5)}
    assert inner_points(masks[:0], rng).shape == (0, 2)


def test_a_perfect_segmenter_has_one_for_every_kind():
    masks = torch.from_numpy(record_masks(RECORDS[0])[0])

    def perfect(image, points, boxes):
        x, y = (points if boxes is None else (boxes[:, :2] + boxes[:, 2:]) / 2).long().T
        owned = zip(y.tolist(), x.tolist(), strict=True)
        return torch.stack([masks[masks[:, row, column]].any(0, keepdim=True).float() for row, column in owned]), None

    report = evaluate_promptable(perfect, RECORDS[:1], kinds=KINDS)
    assert all(report.iou(kind).value == 1 for kind in KINDS)


def test_the_surest_mask_alone_and_at_thresholds():
    """Of a soft hill and a flat square, the one of the higher quality, whichever comes first."""
    hill = torch.linspace(0, 1, 11).expand(2, 1, 4, 11)
    masks = torch.cat([hill, torch.full_like(hill, 0.7)], 1)
    quality = torch.tensor([[0.9, 0.2], [0.3, 0.4]])
    asked = []
    found, sure = surest(lambda *given: asked.append(given) or (masks, quality))("seen", "points", None)
    assert asked == [("seen", "points", None)] and found.shape == (2, 1, 4, 11)
    assert torch.equal(found[0, 0], (hill[0, 0] > 0.5).float()) and (found[1] == 1).all()
    assert sure.flatten().tolist() == pytest.approx([0.9, 0.4])
    found, sure = surest(lambda *given: (masks, quality), (0.25, 0.55, 0.75))(None, None, None)
    assert found[0].sum((1, 2)).tolist() == [4 * 8, 4 * 5, 4 * 3] and found[1].mean((1, 2)).tolist() == [1, 1, 0]
    assert sure.shape == (2, 3) and set(found.flatten().tolist()) == {0, 1}
    for wrong in ((), (0.5, 1.5), (-0.1,), (float("nan"),)):
        with pytest.raises(ValueError, match="expected at least one, each in 0..1"):
            surest(Squares(), wrong)
    several, single = (evaluate_promptable(one, RECORDS, grid=6) for one in (surest(Squares()), Squares((12,))))
    assert several.iou("1-point") == single.iou("1-point"), "the larger square has the higher quality"


def test_prompts_come_in_parts_and_images_without_masks_are_not_asked():
    prompt = Squares()
    report = evaluate_promptable(prompt, [without_annotation(), RECORDS[0]], grid=5, at_once=10)
    assert [len(p) for p, _ in prompt.asked if p is not None] == [10, 10, 5]
    assert [len(b) for _, b in prompt.asked if b is not None] == [3]
    assert report.masks == 3 and [len(one) for one in report.overlaps["1-point"]] == [0, 3]
    crowd = toy("c", RECORDS[0]["segments"], crowds=(2,))
    assert evaluate_promptable(Squares(), [crowd], grid=2).masks == 2
    overlapping = without_annotation("m", [np.eye(8, dtype=bool), np.ones((8, 8), bool)])
    assert evaluate_promptable(Squares(), [overlapping], grid=2).masks == 2


def test_an_image_is_looked_at_once_and_one_without_masks_never():
    seen = []

    def look(image):
        seen.append(image.shape)
        return {"features": image}

    def prompt(features, points, boxes):
        return Squares()(features["features"], points, boxes)

    report = evaluate_promptable(prompt, [without_annotation(), *RECORDS[:2]], look=look, grid=5, at_once=10)
    assert seen == [record["image"].shape for record in RECORDS[:2]]
    plain = evaluate_promptable(Squares(), RECORDS[:2], grid=5)
    assert report.iou("1-point").value == plain.iou("1-point").value


def test_reports_differ():
    several, single = (evaluate_promptable(Squares(radii), RECORDS, grid=6) for radii in ((6, 12), (6,)))
    found = several.difference(single, "1-point")
    assert found.value == pytest.approx(several.iou("1-point").value - single.iou("1-point").value) and found.low > 0
    box = several.difference(single, "1-box")
    assert (box.value, box.low, box.high) == (0, 0, 0)
    some = evaluate_promptable(Squares(), RECORDS[::2], grid=6)
    with pytest.raises(ValueError, match="got a report on 5 images with 15 masks, expected the same 9 with 27"):
        several.difference(some, "1-point")


def test_what_does_not_fit_is_an_error():
    for wrong in ({"kinds": []}, {"kinds": ["1-line"]}, {"grid": 0}, {"at_once": 0}):
        with pytest.raises(ValueError, match="expected some of 1-point, 1-box, inner point and numbers of at least 1"):
            evaluate_promptable(Squares(), RECORDS, **wrong)
        with pytest.raises(ValueError, match="and numbers of at least 1"):
            PromptCounter(Squares(), **wrong)
    with pytest.raises(ValueError, match=r"got masks \(4, 2, 20, 50\) for 4 prompts, expected \(4, K, 40, 50\)"):
        evaluate_promptable(lambda *asked: (Squares()(*asked)[0][:, :, :20], None), RECORDS, grid=2)
    with pytest.raises(ValueError, match="got kind '1-box', expected one of 1-point"):
        evaluate_promptable(Squares(), RECORDS[:1], kinds=["1-point"], grid=2).iou("1-box")
    with pytest.raises(ValueError, match="sum to 0"):
        evaluate_promptable(Squares(), [without_annotation()]).iou("1-point")
