"""The oracle's best overlaps against loops over single masks, in parts of any length."""

import pytest
import torch

from kit.images import random_masks
from ovs_lite.evaluation.metrics import oracle_iou
from ovs_lite.evaluation.metrics.oracle_iou import best_of_all, best_of_own

MASKS, TARGETS = random_masks(24, 20, 24, filled=0.9, seed=0), random_masks(6, 20, 24, filled=0.9, seed=1)


def slow_iou(mask, target):
    return int((mask & target).sum()) / max(1, int((mask | target).sum()))


@pytest.mark.parametrize("length, room", [(24, 1 << 24), (5, 1 << 24), (7, 2 * 20 * 24), (24, 1)])
def test_the_best_of_all_is_the_loops_in_parts_of_any_length(length, room, monkeypatch):
    monkeypatch.setattr(oracle_iou, "VALUES_AT_ONCE", room)
    expected = [max(slow_iou(mask, target) for mask in MASKS) for target in TARGETS]
    found = best_of_all(MASKS.split(length), TARGETS)
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx(expected, rel=1e-12) and max(expected) > 0.2
    soft = torch.where(MASKS, 0.51, 0.5)
    assert torch.equal(best_of_all(iter(soft.split(length)), TARGETS), found)


def test_the_best_of_its_own_looks_at_no_other_masks():
    own = MASKS.view(6, 4, 20, 24)
    expected = [max(slow_iou(mask, target) for mask in some) for some, target in zip(own, TARGETS, strict=True)]
    found = best_of_own(torch.where(own, 0.7, 0.2), TARGETS)
    assert found.tolist() == pytest.approx(expected, rel=1e-12) and (found <= best_of_all([MASKS], TARGETS)).all()
    assert (found < best_of_all([MASKS], TARGETS)).any()
    assert best_of_own(TARGETS[:, None], TARGETS).tolist() == [1.0] * 6


def test_order_copies_and_flips_change_nothing():
    found, own = best_of_all([MASKS], TARGETS), MASKS.view(6, 4, 20, 24)
    turned = [MASKS.flip(0, 2), MASKS[:3].flip(2), ~MASKS[:0]]
    assert torch.equal(best_of_all(turned, TARGETS.flip(0, 2)), found.flip(0))
    assert torch.equal(best_of_own(own.flip(0, 1, 3), TARGETS.flip(0, 2)), best_of_own(own, TARGETS).flip(0))


def test_without_masks_or_targets():
    assert best_of_all([], TARGETS).tolist() == best_of_own(MASKS[:0].view(6, 0, 20, 24), TARGETS).tolist() == [0.0] * 6
    assert (
        best_of_all([MASKS], TARGETS[:0]).shape == best_of_own(MASKS.view(6, 4, 20, 24)[:0], TARGETS[:0]).shape == (0,)
    )
    nothing = torch.zeros(1, 20, 24, dtype=torch.bool)
    assert best_of_own(nothing[None], nothing).tolist() == [0.0]
    with pytest.raises(ValueError, match=r"expected .M, K, H, W. and .M, H, W."):
        best_of_own(MASKS[:6], TARGETS)
    with pytest.raises(ValueError, match=r"expected .N, H, W. and .M, H, W."):
        best_of_all([MASKS[:, 1:]], TARGETS)
