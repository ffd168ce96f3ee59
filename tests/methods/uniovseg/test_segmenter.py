"""Prompts are independent of each other, features are computed once, masks have the image's size; proposals; files."""

import numpy as np
import pytest
import torch

from kit.prompting import make_segmenter
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.methods.uniovseg.config import PromptConfig
from ovs_lite.methods.uniovseg.mask_decoder import where_to_look
from ovs_lite.methods.uniovseg.prompts import small_boxes
from ovs_lite.methods.uniovseg.segmenter import certainty
from ovs_lite.regions.ranking import inner_nms
from ovs_lite.regions.sources import checked_masks

POINTS = np.array([[3.0, 5], [40, 20.5], [12, 33], [60, 1], [25, 25]])
BOXES = np.array([[0.0, 0, 20, 30], [10, 5, 40, 40], [30, 2, 64, 48]])


def image(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def segmenter():
    return make_segmenter()


@pytest.mark.parametrize(
    "changes", [{}, {"pixel_layers": 0}, {"positions": "fourier", "granularities": 4}, {"layers": 5}]
)
def test_points_have_a_mask_per_granularity_and_boxes_one(changes):
    segmenter, shown = make_segmenter(**changes), image()
    for given, count in (({"points": POINTS}, segmenter.config.granularities), ({"boxes": BOXES}, 1)):
        prompts = len(next(iter(given.values())))
        masks, quality = segmenter.masks_at(shown, **given)
        assert masks.shape == (prompts, count, 48, 64) and quality.shape == (prompts, count)
        for found in (masks, quality):
            assert 0 <= found.min() < found.max() <= 1 and not found.requires_grad
        assert (masks[0] - masks[1]).abs().max() > 1e-3, "another place, another mask"


@pytest.mark.parametrize("given", [{"points": POINTS}, {"boxes": BOXES}], ids=["points", "boxes"])
def test_a_prompts_masks_depend_on_no_other_prompt(segmenter, given):
    ((kind, prompts),) = given.items()
    seen = segmenter.look(image())
    masks, quality = segmenter.masks_at(seen, **given)
    order = np.array([2, 0, 1, *range(3, len(prompts))])
    moved = segmenter.masks_at(seen, **{kind: prompts[order]})
    torch.testing.assert_close(moved[0], masks[order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved[1], quality[order], atol=1e-5, rtol=1e-4)
    for row, prompt in enumerate(prompts):
        alone = segmenter.masks_at(seen, **{kind: prompt[None]})
        torch.testing.assert_close(alone[0][0], masks[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone[1][0], quality[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_nothing(segmenter, chunk):
    whole, parts = (segmenter.masks_at(image(), points=POINTS, chunk=size) for size in (100, chunk))
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_features_are_computed_once_for_any_number_of_prompts(segmenter):
    seen, calls = segmenter.look(image()), []
    handle = segmenter.network.backbone.register_forward_hook(lambda *_: calls.append(1))
    first = segmenter.masks_at(seen, points=POINTS), segmenter.masks_at(seen, boxes=BOXES)
    assert not calls
    second = segmenter.masks_at(image(), points=POINTS), segmenter.masks_at(image(), boxes=BOXES)
    handle.remove()
    assert len(calls) == 2
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_a_point_is_a_small_box_of_points_kind(segmenter):
    side = segmenter.config.point_side
    torch.testing.assert_close(small_boxes(torch.tensor([0.5, 0.25]), 0.1), torch.tensor([0.45, 0.2, 0.55, 0.3]))
    seen, where = segmenter.look(image()), torch.tensor([[[0.3, 0.6]]])
    answer = segmenter.network(seen.features, small_boxes(where, side), "point")[-1].mask_logits[0]
    full = torch.nn.functional.interpolate(answer, (48, 64), mode="bilinear").sigmoid()
    torch.testing.assert_close(segmenter.masks_at(seen, points=where[0] * torch.tensor([64, 48]))[0], full)
    box = segmenter.network(seen.features, small_boxes(where, side), "box")[-1].mask_logits[0]
    assert box.shape[1] == 1 and (box - answer[:, :1]).abs().max() > 1e-3


def test_no_prompts_give_no_masks(segmenter):
    for given, count in (({"points": np.zeros((0, 2))}, 3), ({"boxes": np.zeros((0, 4))}, 1)):
        masks, quality = segmenter.masks_at(image(), **given)
        assert masks.shape == (0, count, 48, 64) and quality.shape == (0, count)


@pytest.mark.parametrize("given", [{}, {"points": POINTS, "boxes": BOXES}])
def test_one_kind_of_prompt_at_a_time(segmenter, given):
    with pytest.raises(ValueError, match="got both or neither of points and boxes"):
        segmenter.masks_at(image(), **given)


@pytest.mark.parametrize(
    "given", [{"points": BOXES}, {"boxes": POINTS}, {"points": POINTS[0]}, {"points": POINTS, "chunk": 0}]
)
def test_prompts_of_another_shape_are_refused(segmenter, given):
    with pytest.raises(ValueError, match=r"expected \(P, [24]\) and at least 1"):
        segmenter.masks_at(image(), **given)


@pytest.mark.parametrize("wrong", [image()[..., 0], image().astype(np.float32), image()[..., :2]])
def test_images_that_are_none_are_refused(segmenter, wrong):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8 RGB"):
        segmenter.look(wrong)


@pytest.mark.parametrize("size", [(48, 64), (20, 20), (130, 90)])
def test_it_is_a_mask_source_and_its_answer_is_the_grid_before_duplicates_are_dropped(size):
    segmenter, shown = make_segmenter(duplicate=1.1, contained=1.1), image(*size)
    for budget in (1, 10, 1000):
        masks = checked_masks(segmenter.propose(shown, budget), shown, "prompts")
        assert 1 <= len(masks) <= min(budget, 4 * 4 * 3)
    masks, scores = segmenter.ranked(shown)
    assert (scores.diff() <= 0).all() and scores.shape == (len(masks),)
    centres = np.array([((x + 0.5) * size[1] / 4, (y + 0.5) * size[0] / 4) for y in range(4) for x in range(4)])
    _, quality = segmenter.masks_at(shown, points=centres)
    kept = [float(value) for value in quality.flatten().sort(descending=True).values]
    assert scores[0].item() == pytest.approx(kept[0], abs=1e-5) and len(masks) <= len(kept)


def test_proposals_leave_out_duplicates_and_what_a_better_mask_contains(segmenter):
    shown = image(96, 128)
    masks, scores = segmenter.ranked(shown)
    assert masks.shape[1:] == (64, 64), "as seen: the long side at image_size, both in whole cells of 32 pixels"
    points = np.array([((x + 0.5) * 32, (y + 0.5) * 24) for y in range(4) for x in range(4)])
    seen = segmenter.look(shown)
    answer = segmenter.network(
        seen.features, small_boxes(torch.tensor(points / (128, 96)).float()[None], 4 / 1024), "point"
    )
    logits, quality = answer[-1].mask_logits[0].flatten(0, 1), answer[-1].quality_logits[0].flatten().sigmoid()
    order = quality.argsort(descending=True, stable=True)
    kept = order[inner_nms(logits[order] > 0, 0.5, 0.7)]
    assert 1 <= len(kept) < 48
    torch.testing.assert_close(scores, quality[kept], atol=1e-5, rtol=0)


def test_batches_of_images_answer_for_the_grid(segmenter):
    images = torch.rand(2, 3, 48, 64)
    masks, quality = segmenter(images)
    assert masks.shape == (2, 48, 48, 64) and quality.shape == (2, 48)
    alone = segmenter(images[1:])
    torch.testing.assert_close(alone[0][0], masks[1], atol=1e-5, rtol=1e-4)


def test_a_prompt_looks_at_the_union_of_its_masks_and_everywhere_where_that_is_empty():
    logits = torch.full((1, 3, 2, 4, 4), -1.0)
    logits[0, 0, 0, :2, :2], logits[0, 0, 1, 2:, 2:], logits[0, 1, 0, :2, 2:] = 1.0, 1.0, 1.0
    found = where_to_look(logits, (2, 2))
    assert found[0].tolist() == [[True, False, False, True], [False, True, False, False], [True] * 4]


@pytest.mark.parametrize("positions", ["sine", "fourier"])
def test_a_file_gives_the_same_masks_again(positions, tmp_path):
    segmenter = make_segmenter(positions=positions)
    segmenter.save(tmp_path / "p.safetensors")
    torch.manual_seed(9)
    again = load_proposer(tmp_path / "p.safetensors")
    assert again.config == segmenter.config and not again.training
    assert torch.equal(again.propose(image(), 20), segmenter.propose(image(), 20))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_masks_little(segmenter, dtype):
    expected = segmenter.masks_at(image(), boxes=BOXES)[0]
    with torch.autocast("cpu", dtype=dtype):
        found = segmenter.masks_at(image(), boxes=BOXES)[0]
    assert found.dtype == torch.float32 and (found - expected).abs().mean() < 0.02


@pytest.mark.parametrize(
    "changes",
    [
        {"matching": "all"}, {"positions": "waves"}, {"quality_of": "none"}, {"granularities": 0}, {"channels": 12},
        {"points": 0, "boxes": 0}, {"jitter": -0.1}, {"areas": (0.5, 0.1)}, {"point_side": 0.0}, {"grid": 0},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises(ValueError, match=rf"^got {next(iter(changes))}=.*expected"):
        PromptConfig(**changes)


def test_without_a_learned_quality_the_surest_mask_comes_first():
    segmenter = make_segmenter(quality_weight=0.0, duplicate=1.1, contained=1.1)
    masks, scores = segmenter.ranked(image())
    assert (scores.diff() <= 0).all() and 0.5 < scores.min() and scores.max() <= 1 and len(masks) > 1
    logits = torch.tensor([[[3.0, -1.0], [1.0, -9.0]], [[-1.0, -2.0], [-3.0, -4.0]]])
    expected = (torch.tensor([3.0, 1.0]).sigmoid().mean().item(), 0.0)
    assert certainty(logits).tolist() == pytest.approx(expected)
