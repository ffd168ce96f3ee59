"""Training of both proposal models: terms against slow loops, odd batches, two processes, and a loss that falls."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit.processes import launch, load
from kit.proposal_training import BATCHES, ODD, TERMS, backward, make_batch, make_task, one_pixel
from kit.proposers import CLASSES, texts
from ovs_lite.data.loaders.mask_batches import MaskBatch
from ovs_lite.methods.maskformer.proposer import MaskFormer, MaskFormerOutput
from ovs_lite.methods.maskformer.training import MaskFormerTraining
from ovs_lite.methods.openseg.proposal_training import BestMatchTraining, covered_share

BOTH = pytest.mark.parametrize("kind", TERMS)


def quarter(masks):
    return F.avg_pool2d(masks[:, None].float(), 4)[:, 0]


@BOTH
@pytest.mark.parametrize("what", ODD)
def test_every_batch_gives_finite_terms_and_gradients(kind, what):
    task = make_task(kind)
    found, terms = backward(task, ODD[what]())
    assert set(terms) == set(task.weights) == TERMS[kind]
    assert all(term.shape == () and term.isfinite() and term >= 0 for term in terms.values())
    assert found and all(grad.isfinite().all() for grad in found.values())
    learns = any(grad.abs().sum() > 0 for grad in found.values())
    assert learns == (what != "no masks at all" or kind is MaskFormerTraining), "'no object' is learned even then"
    if what == "no masks at all":
        assert all(terms[name] == 0 for name in terms if name != "class")


@torch.no_grad()
def test_best_match_is_the_mean_over_images_with_targets():
    task, batch = make_task(BestMatchTraining), make_batch(2, 0, 3)
    probs = task.model(2 * batch.images - 1).sigmoid()
    losses = []
    for image, masks in zip(probs, batch.masks, strict=True):
        best = [max(float(2 * (p * t).sum() / (p.sum() + t.sum())) for p in image) for t in quarter(masks)]
        losses += [1 - sum(best) / len(best)] if best else []
    assert len(losses) == 2
    assert float(task.losses(batch)["best_match_dice"]) == pytest.approx(sum(losses) / 2, abs=1e-5)


def enlarged(logits):
    """(8, 8) -> (32, 32), bilinear."""
    return F.interpolate(logits[None, None], scale_factor=4, mode="bilinear", align_corners=False)[0, 0]


def pair_losses(logits, target):
    """(focal, dice) of one proposal and one target; MaskFormer's alpha 0.25, gamma 2, smooth 1."""
    p = logits.sigmoid().double()
    focal = -0.25 * (1 - p) ** 2 * p.log() * target - 0.75 * p**2 * (1 - p).log() * (1 - target)
    return float(focal.mean()), float(1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1))


def assignments(proposals, targets):
    """Every way to pair off as many as possible: lists of (proposal, target)."""
    for chosen in itertools.permutations(range(max(proposals, targets)), min(proposals, targets)):
        yield [(n, m) if targets <= proposals else (m, n) for m, n in enumerate(chosen)]


def slow_image(logits, mask_logits, label, targets, no_object):
    """One image's sums {"class", "weight", "focal", "dice"} under the cheapest of all assignments.

    As released: costs at the predictions' size, with targets at every fourth pixel; losses at the targets' size.
    """
    pairs = [((n, m), p, t) for n, p in enumerate(mask_logits) for m, t in enumerate(targets)]
    costs = {pair: pair_losses(p, t[::4, ::4]) for pair, p, t in pairs}
    losses = {pair: pair_losses(enlarged(p), t) for pair, p, t in pairs}
    log_probs = logits.log_softmax(-1).tolist()

    def cost(pairs):
        return sum(20 * costs[n, m][0] + costs[n, m][1] - math.exp(log_probs[n][label[m]]) for n, m in pairs)

    best = dict(min(assignments(len(logits), len(targets)), key=cost))
    sums = {"class": 0.0, "weight": 0.0}
    for n, row in enumerate(log_probs):
        share = 1.0 if n in best else no_object
        sums["class"] -= share * (row[label[best[n]]] if n in best else row[-1])
        sums["weight"] += share
    return sums | {name: sum(losses[pair][i] for pair in best.items()) for i, name in enumerate(("focal", "dice"))}


def slow_maskformer(task, batch, no_object):
    """The three terms: sums over images, divided by all weights or all targets, then summed over layers."""
    totals, targets = {"class": 0.0, "focal": 0.0, "dice": 0.0}, [masks.float() for masks in batch.masks]
    for answer in task.model(2 * batch.images - 1):
        logits = task.model.class_logits(answer.embeddings, texts())
        labels = [label.tolist() for label in batch.labels]
        images = [slow_image(*one, no_object) for one in zip(logits, answer.mask_logits, labels, targets, strict=True)]
        for name in totals:
            count = sum(i["weight"] for i in images) if name == "class" else sum(len(t) for t in targets)
            totals[name] += sum(i[name] for i in images) / count
    return totals


@torch.no_grad()
@pytest.mark.parametrize("no_object", [0.1, 0.5])
@pytest.mark.parametrize("counts", [(2, 0, 3), (5, 1)])
def test_maskformers_terms_equal_the_slow_loops(no_object, counts):
    """Also with a target more than there are queries: it goes without, and counts in the mean."""
    task, batch = make_task(MaskFormerTraining, no_object=no_object), make_batch(*counts)
    task.model.pixel_head.weight.mul_(20)  # so that the layers disagree about the best assignment
    expected, found = slow_maskformer(task, batch, no_object), task.losses(batch)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


class Knowing(nn.Module):
    """Answers with the masks and embeddings that it was given."""

    def __init__(self, masks, embeddings, no_object):
        super().__init__()
        self.answer = MaskFormerOutput(40 * masks[None] - 20, embeddings[None])
        self.no_object = nn.Parameter(no_object)

    def forward(self, images):
        return [self.answer]

    class_logits = MaskFormer.class_logits


@torch.no_grad()
def test_the_right_masks_with_the_right_labels_cost_nothing():
    """Four quarters of the picture, of which two are annotated; the others have to say 'no object'."""
    quarters = torch.zeros(4, 32, 32, dtype=torch.bool)
    for number, mask in enumerate(quarters):
        mask[16 * (number // 2) :, 16 * (number % 2) :][:16, :16] = True
    basis = torch.eye(12)
    model = Knowing(quarters.float(), basis[[0, 11, 2, 11]], basis[11])
    proposer = SimpleNamespace(network=model, classes=basis[:CLASSES], normalise=lambda images: images)
    task = MaskFormerTraining(proposer, None)
    right = MaskBatch(torch.zeros(1, 3, 32, 32), [quarters[[2, 0]]], [torch.tensor([2, 0])], ["p"], 1)
    swapped = MaskBatch(right.images, right.masks, [torch.tensor([0, 2])], ["p"], 1)
    assert all(value < 0.01 for value in task.losses(right).values())
    assert task.losses(swapped)["class"] > 50 and task.losses(swapped)["dice"] < 0.01


@BOTH
def test_the_loss_falls_on_two_small_pictures(kind):
    batch, task = make_batch(2, 2), make_task(kind)
    task.model.train()
    optimiser = torch.optim.AdamW(task.model.parameters(), 2e-3)
    losses = []
    for _ in range(30):
        losses.append(sum(task.weights[name] * value for name, value in task.losses(batch).items()))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.6 * losses[0], [round(float(loss), 3) for loss in losses]


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert (found[name] - grad).norm() <= 1e-3 * grad.norm() + 1e-6, name


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path):
    """Some shares have no target, or every image of theirs has more targets than queries."""
    done = launch("kit.proposal_training.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr
    for ranks, kind, counts in itertools.product(load(tmp_path), TERMS, BATCHES):
        whole, _ = backward(make_task(kind), make_batch(*counts))
        assert any(counts) == any(grad.norm() > 0.01 for name, grad in whole.items() if "mask" in name)
        assert_same_gradients(ranks[f"{kind.__name__} {counts}"], whole)


@BOTH
def test_a_task_serves_the_loop(kind):
    task = make_task(kind, lambda index: make_batch(1, 2, seed=index))
    batch = task.batch(3)
    assert torch.equal(batch.images, make_batch(1, 2, seed=3).images)
    assert task.count(batch) == 2 and task.image_ids(batch) == ["p0", "p1"]
    task.to(torch.device("meta"))
    assert all(parameter.is_meta for parameter in task.model.parameters()) and task.device.type == "meta"
    assert kind is BestMatchTraining or task.proposer.classes.is_meta


@BOTH
def test_images_are_normalised_and_a_mask_of_one_pixel_counts(kind):
    """The only pixel lies where the nearest of a coarser grid does not look."""
    batch, task = one_pixel(), make_task(kind)
    for mask in itertools.chain(*batch.masks):
        assert covered_share(mask[None], (8, 8)).sum() == 1 / 16 and mask[::4, ::4].sum() == 0
    first = task.losses(batch)
    if kind is BestMatchTraining:
        assert first["best_match_dice"] < 1
    task.proposer.mean.fill_(0.0)
    assert not torch.isclose(sum(first.values()), sum(task.losses(batch).values()), rtol=1e-5)


def test_points_instead_of_all_pixels_stay_near_the_whole():
    whole, points = (make_task(MaskFormerTraining, num_points=p).losses(make_batch(2, 3)) for p in (None, 4000))
    torch.testing.assert_close(points["class"], whole["class"])
    for name in ("focal", "dice"):
        assert 1e-4 < (points[name] / whole[name] - 1).abs() < 0.8, f"{name}: uncertain points are not all points"


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, (2, 2)), (7, 9, (2, 3)), (5, 5, (5, 5)), (3, 3, (1, 1))])
def test_the_covered_share_of_every_cell(height, width, size):
    masks = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) < 0.4
    found = covered_share(masks, size)
    for m, y, x in itertools.product(range(3), range(size[0]), range(size[1])):
        rows = slice(y * height // size[0], -(-(y + 1) * height // size[0]))
        columns = slice(x * width // size[1], -(-(x + 1) * width // size[1]))
        assert float(found[m, y, x]) == pytest.approx(masks[m, rows, columns].float().mean().item())
    assert covered_share(torch.zeros(0, 8, 8, dtype=torch.bool), (2, 2)).shape == (0, 2, 2)


@pytest.mark.parametrize("label", [-1, CLASSES, 300])
def test_a_label_that_is_no_class_is_refused_with_its_picture(label):
    batch = make_batch(1, 2)
    batch.labels[1][1] = label
    with pytest.raises(ValueError, match=rf"{label}.* in 'p1', expected those of the 5 classes, 0\.\.4"):
        make_task(MaskFormerTraining).losses(batch)
    make_task(BestMatchTraining).losses(batch)
