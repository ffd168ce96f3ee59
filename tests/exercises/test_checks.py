"""Checks reject answers that are nearly right, at a case that says why, and accept the package's own functions.

The package's functions and the oracles of the checks know nothing of each other, so each is a test of the other.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs_lite import exercises
from ovs_lite.clip.mask_prompt import kept_patches
from ovs_lite.evaluation import ConfusionMatrix, PanopticQuality
from ovs_lite.exercises.judging import NOT_RIGHT, SOLVED
from ovs_lite.losses import tcl
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.losses.grounding import grounding_scores
from ovs_lite.losses.masks import best_match_dice_loss
from ovs_lite.matching import pairwise_iou
from ovs_lite.methods.ovseg.method import ensemble
from ovs_lite.regions.fusion import label_map
from ovs_lite.regions.pooling import mask_pool


def unit(x):
    return F.normalize(x, dim=-1)


def panoptic(found, truth):
    """By the package's PanopticQuality, which wants maps of numbered segments; the rest is another class."""
    score = PanopticQuality([True, False])
    maps = [sum((n + 1) * mask.numpy() for n, mask in enumerate(masks)).astype(np.int64) for masks in (found, truth)]
    infos = [[{"id": n + 1, "category_id": 0} for n in range(len(masks))] for masks in (found, truth)]
    maps[1][maps[1] == 0] = 9
    score.update(maps[0], infos[0], maps[1], [*infos[1], {"id": 9, "category_id": 1}])
    return score.compute().per_class[0].pq


def mean_iou(both, predicted, shown, absent):
    """By the package's ConfusionMatrix: counts as pixels; what is wrong is taken for, or is, one further class."""
    classes, other = np.arange(len(both)), len(both)
    matrix = ConfusionMatrix(other + 1, ignore_index=-1)
    right, false, missed = (np.repeat(classes, some.numpy()) for some in (both, predicted - both, shown - both))
    for found, truth in ((right, right), (false, np.full_like(false, other)), (np.full_like(missed, other), missed)):
        matrix.update(found, truth)
    return np.nanmean(matrix.compute(absent).iou[:other])


def draw(logits, uniform):
    soft = (logits + (uniform / (1 - uniform)).log()).sigmoid()
    return soft + ((soft > 0.5).float() - soft).detach()


def area(masks, own, others):
    mine = torch.eye(len(masks), dtype=torch.bool)
    areas = masks.mean((2, 3))
    return tcl.area_loss(areas[mine], areas[~mine], own, others)


PACKAGE = {
    "00-3": lambda s, tau: info_nce(s, torch.tensor(1 / tau).log()),
    "01-3": lambda logits, masks: label_map(masks, logits.softmax(1)),
    "02-1": lambda s, t: best_match_dice_loss(s[None], [t]),
    "02-3": lambda p, t, least: (pairwise_iou(p.flatten(1), t.flatten(1)).amax(0) >= least).double().mean(),
    "03-1": lambda x, s, w: torch.einsum("nk,nhw->khw", unit(mask_pool(x[None], s[None])[0]) @ unit(w).T, s),
    "03-3": lambda z, w, tau: grounding_scores(z[None], w[None], torch.ones(1, len(w), dtype=torch.bool), tau)[0, 0],
    "04-1": tcl.feature_similarity,
    "04-2": area,
    "04-3": draw,
    "05-1": lambda t, m, p, patch: torch.where(kept_patches(m[None], patch)[0, :, None], t, p),
    "05-3": lambda a, b, weight: ensemble(
        a.softmax(1)[:, :-1], (100 * b).softmax(1), torch.ones(len(a), dtype=torch.bool), weight
    ),
    "06-1": lambda z, w: -torch.stack([unit(size) @ unit(w).T for size in z]).mean(0),
    "06-3": panoptic,
    "07-1": mean_iou,
}


@pytest.mark.parametrize("number", PACKAGE)
def test_the_package_solves_it(number):
    verdict = exercises.check(number, PACKAGE[number])
    assert verdict.status == SOLVED, verdict.message


def _square(side=96):
    picture, mask = np.full((side, side, 3), 255, np.uint8), np.zeros((side, side), bool)
    mask[24:72, 24:72] = True
    picture[mask] = (200, 30, 30)
    return picture, mask


def _masks(*boxes):
    masks = np.zeros((3, 64, 64), bool)
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


THIRDS = np.arange(96) // 32 + np.zeros((96, 1), int)
WRONG = [
    ("03-4", "two very old dogs on the green grass near several small red cars", "stop list"),
    ("00-1", lambda x, s, tau: (unit(x) @ unit(s.mean(1)).T / tau).softmax(1), "two pictures"),
    ("00-1", lambda x, s, tau: (unit(x) @ unit(s).mean(1).T / tau).softmax(1), "two pictures|disagree"),
    ("00-2", 1.0, "4.5"),
    ("00-2", -1.0, "above 0"),
    ("00-2", "warm", "a number"),
    ("00-4", ("a cat", "a dog"), "five words"),
    ("00-4", ("a red cat on a sofa", "a red cat on a sofa"), "another order"),
    ("00-4", ("a red cat on a sofa", "a red dog on a sofa"), "the same words"),
    ("01-1", lambda x, m, mean, std: (x * m - mean[:, None, None]) / std[:, None, None], "shape"),
    ("01-1", lambda x, m, mean, std: ((x * m - mean[:, None, None]) / std[:, None, None])[:, 1:4, 2:6], "mean colour"),
    ("01-2", 8, "at least 80"),
    ("01-2", 2, "larger ones do"),
    ("01-2", 3, "one of"),
    ("01-4", np.ones((64, 64)), "blank patches"),
    ("01-4", np.eye(256), "share of the picture"),
    ("02-1", lambda s, t: 1 - exercises.proposals.recall(s > 0.5, t > 0.5, 0.5), "five proposals"),
    ("02-1", lambda s, t: best_match_dice_loss(s[None], [t]).item(), "gradient"),
    ("02-1", lambda s, t: best_match_dice_loss(s[None], [t]) / (len(t) > 0), "nobody annotated"),
    ("02-2", 1.0, "49"),
    ("02-4", _square(), "graph segmentation"),
    ("02-4", (np.full((96, 96, 3), 200, np.uint8), _square()[1]), "contrast"),
    ("03-1", lambda x, s, w: torch.einsum("nk,nhw->khw", mask_pool(x[None], s[None])[0] @ unit(w).T, s), "six"),
    ("03-2", 0.07, "0.9"),
    ("03-4", "a cat on the grass", "8 words"),
    ("03-4", "there is a very old dog on the green grass near a small red bus", "plural"),
    ("03-4", "there are two very old dogs on the green grass near a small red bus", "stop list"),
    (
        "04-1",
        lambda x, t, w, b: tcl.feature_similarity(unit(x.movedim(1, -1)).movedim(-1, 1), t, w, b),
        "two pict|leng",
    ),
    ("04-2", lambda m, own, others: (m.mean((2, 3)).diag() - own).abs().mean(), "0.2 and 0.6"),
    ("04-2", lambda m, own, others: (m.mean((2, 3)).diag().mean() - own).abs() + (m.mean() - others).abs(), "0.6"),
    ("04-3", lambda x, u: ((x + (u / (1 - u)).log()) > 0).float(), "gradient"),
    ("04-4", (10.0, -2.5), "0.25"),
    ("04-5", SimpleNamespace(labels=THIRDS, queries=["sky", "sand"]), "3 or more"),
    ("04-5", SimpleNamespace(labels=THIRDS * 0, queries=["sky", "grass", "sand"]), "'sky'"),
    ("04-5", THIRDS, "Segmenter"),
    ("05-1", lambda t, m, p, patch: torch.where(kept_patches(m[None], patch)[0, :, None], p, t), "second of nine"),
    ("05-1", lambda t, m, p, n: torch.where(F.avg_pool2d(m[None].float(), n).view(-1, 1) > 0.5, t, p), "one pixel"),
    ("05-2", 0.5, "sure and wrong"),
    ("05-2", 1.0, "confuses"),
    ("05-4", "a cat on a bench", "four"),
    ("05-4", "a cat, a dog, a bench and a bus", "nobody annotated"),
    ("06-1", lambda z, w: (unit(z) @ unit(w).T).mean(0), "two sizes"),
    ("06-1", lambda z, w: -unit(z.mean(0)) @ unit(w).T, "two sizes"),
    ("06-2", 0.2, "precision"),
    ("06-2", 0.25, "recall"),
    ("06-4", ((15, 35), _masks((30, 40, 10, 20), (31, 40, 6, 34), (10, 44, 4, 60))), "stand out"),
    ("06-4", ((35, 15), _masks((30, 40, 10, 20), (16, 40, 6, 34), (10, 44, 4, 60))), "in each mask"),
    ("06-4", ((15, 35), _masks((10, 40, 10, 20), (10, 41, 10, 20), (10, 44, 4, 60))), "IoU of part in thing"),
    ("07-1", lambda b, p, t, absent: mean_iou(b, p, t, "target"), "never shown, union"),
    ("07-1", lambda b, p, t, absent: (b / (p + t - b)).mean(), "never shown, target"),
    ("07-1", lambda b, p, t, absent: (b / t).nanmean(), "three classes"),
    ("07-2", 40, "half-width 1"),
    ("07-2", 3000, "no more"),
    ("07-4", (THIRDS, THIRDS), "mean IoU"),
    ("07-4", (THIRDS * 0, THIRDS), "accuracy"),
]


@pytest.mark.parametrize("number, answer, why", WRONG, ids=[f"{row[0]} {row[2]}" for row in WRONG])
def test_a_wrong_answer_is_rejected_with_its_reason(number, answer, why):
    verdict = exercises.check(number, answer)
    assert verdict.status == NOT_RIGHT
    assert "first failing case" in verdict.message
    assert any(part in verdict.message for part in why.split("|")), verdict.message


def test_every_exercise_has_a_wrong_answer():
    hunts = {number for number, task in exercises.EXERCISES.items() if task.bug}
    assert {row[0] for row in WRONG} | hunts == set(exercises.EXERCISES)
