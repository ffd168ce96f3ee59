"""Prompts drawn from masks, the terms of a batch, images without masks, resumable batches; a tiny training learns."""

import numpy as np
import pytest
import torch

from kit.processes import launch, load
from kit.prompting import SHARED, Blocks, gradients, make_training
from ovs_lite.losses.prompted_masks import match_prompts, prompted_mask_losses, quality_loss
from ovs_lite.methods.uniovseg.prompts import small_boxes
from ovs_lite.methods.uniovseg.sampling import PromptBatches, jittered_box, random_point
from ovs_lite.methods.uniovseg.training import meant


def prompts(counts=(3, 0, 2), points=7, boxes=5, index=0, **options):
    return PromptBatches(Blocks(*counts), points, boxes, **options)(index)


def test_every_point_lies_in_the_mask_that_it_was_drawn_from():
    batch = prompts()
    assert batch.points.places.shape == (3, 7, 2) and batch.points.places.dtype == torch.float32
    for b, masks in enumerate(batch.masks):
        for (x, y), mask in zip(batch.points.places[b].tolist(), batch.points.wanted[b].tolist(), strict=True):
            assert mask == -1 if not len(masks) else masks[mask][int(y * 32), int(x * 32)]
    assert sorted(set(batch.points.wanted[0].tolist())) == [0, 1, 2], "no mask is drawn again before all were"


def test_boxes_are_those_of_the_masks_moved_by_the_jitter_at_the_most():
    exact, moved = prompts(jitter=0.0).boxes, prompts(jitter=0.1).boxes
    for b, masks in enumerate(prompts().masks):
        for i, mask in enumerate(exact.wanted[b].tolist()):
            if mask < 0:
                assert exact.places[b, i].tolist() == [0, 0, 1, 1]
                continue
            rows, columns = masks[mask].nonzero().T
            box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
            assert (32 * exact.places[b, i]).tolist() == pytest.approx(box)
            off = (moved.places[b, i] - exact.places[b, i]).abs() * 32
            assert moved.wanted[b, i] == mask and 0 < off.max() <= 1.2 + 1e-5  # a tenth of 12 pixels
    assert exact.places.min() >= 0 and moved.places.max() <= 1


def test_the_batch_of_an_index_is_the_same_again_and_others_differ():
    first, again, other = prompts(), prompts(), prompts(index=1)
    assert torch.equal(first.points.places, again.points.places) and torch.equal(first.boxes.places, again.boxes.places)
    assert not torch.equal(first.points.places, other.points.places)
    alone = PromptBatches(Share(3, 0, 2), 7, 5)(0)
    assert torch.equal(alone.points.places[0], first.points.places[2]), "an image's prompts are its own"


class Share(Blocks):
    """The last image of the same batch, as another process has it."""

    def __call__(self, index):
        batch = super().__call__(index)
        return type(batch)(batch.images[2:], batch.masks[2:], batch.labels[2:], batch.image_ids[2:], batch.total)

    def places(self, index):
        return super().places(index)[2:]


def test_of_too_many_masks_some_are_kept_at_random():
    many = Blocks(9)(0).masks[0]
    kept = [prompts((9,), most_masks=4, index=index).masks[0] for index in (0, 0, 1)]
    assert len(kept[0]) == 4 and torch.equal(kept[0], kept[1])
    assert all(any(torch.equal(mask, other) for other in many) for mask in kept[0])


def test_masks_that_are_too_small_or_too_large_are_neither_asked_for_nor_targets():
    every = Blocks(4)(0).masks[0]
    share = 12 * 12 / 32**2
    assert len(prompts((4,), areas=(share, share)).masks[0]) == len(every) == 4
    for areas in ((share + 1e-4, 1.0), (0.0, share - 1e-4)):
        batch = prompts((4,), areas=areas)
        assert len(batch.masks[0]) == 0 and (batch.points.wanted == -1).all()


def test_the_smallest_and_the_largest_masks_can_be_drawn():
    rng = np.random.default_rng(0)
    one, full = np.zeros((5, 7), bool), np.ones((5, 7), bool)
    one[4, 6] = True
    for _ in range(50):
        x, y = random_point(one, rng) * (7, 5)
        assert 6 < x < 7 and 4 < y < 5
        assert (jittered_box(one, 0.4, rng)[2:] > jittered_box(one, 0.4, rng)[:2]).all()
    assert jittered_box(full, 0.0, rng).tolist() == [0, 0, 1, 1]


def test_a_point_means_every_mask_that_contains_it_and_a_box_the_one_it_was_drawn_from():
    batch = prompts()
    points, boxes = meant(batch.points, batch.masks), meant(batch.boxes, batch.masks)
    for b, masks in enumerate(batch.masks):
        for p, (x, y) in enumerate(batch.points.places[b].tolist()):
            assert points[b][p].tolist() == [bool(mask[int(y * 32), int(x * 32)]) for mask in masks]
        for q, wanted in enumerate(batch.boxes.wanted[b].tolist()):
            assert boxes[b][q].tolist() == [j == wanted for j in range(len(masks))]
    assert points[1].shape == (7, 0)


@pytest.mark.parametrize("quality_of", ["matched", "all"])
def test_the_terms_are_the_sums_over_stages_and_kinds_of_prompts(quality_of):
    task = make_training(3, 2, num_points=0, quality_of=quality_of)
    batch, expected = task.batch(0), dict.fromkeys(task.weights, 0.0)
    features = task.model.look(task.proposer.normalise(batch.images))
    for kind, given in (("point", batch.points), ("box", batch.boxes)):
        places = small_boxes(given.places, task.config.point_side) if kind == "point" else given.places
        own = meant(given, batch.masks)
        answers = task.model(features, places, kind)
        assert len(answers) == 1 + task.config.layers
        for answer in answers:
            matches = match_prompts(answer.mask_logits, batch.masks, own, given.wanted)
            chosen = matches.matched
            if quality_of == "all":
                chosen = torch.stack([o.any(1) for o in own])[..., None].expand_as(chosen)
            found = prompted_mask_losses(answer.mask_logits, batch.masks, matches.pairs)
            found |= {"quality": quality_loss(answer.quality_logits, matches.quality, chosen)}
            for name, value in found.items():
                expected[name] += value.item()
    found = task.losses(batch)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-4)
    assert task.weights == {"bce": 2.0, "dice": 1.0, "quality": 1.0}


@pytest.mark.parametrize("counts", [(0, 2), (0, 0), (1,), (9, 0)])
@pytest.mark.parametrize("matching", ["many-to-many", "one-to-one", "best-of-k"])
def test_images_without_masks_cost_nothing(counts, matching):
    task = make_training(*counts, matching=matching)
    found = task.losses(task.batch(0))
    sum(found.values()).backward()
    grads = [parameter.grad for parameter in task.model.parameters() if parameter.grad is not None]
    assert all(grad.isfinite().all() for grad in grads) and all(value.isfinite() for value in found.values())
    nothing = not any(counts)
    assert all((value == 0) == nothing for value in found.values())
    assert not nothing or all((grad == 0).all() for grad in grads)


@pytest.mark.parametrize("changes", [{"boxes": 0}, {"points": 0}, {"quality_weight": 0.0}])
def test_either_kind_of_prompt_and_the_quality_may_be_left_out(changes):
    task = make_training(3, 2, **changes)
    found = task.losses(task.batch(0))
    assert set(found) == {"bce", "dice"} | (set() if "quality_weight" in changes else {"quality"})


def test_every_weight_but_the_frozen_backbones_learns():
    task = make_training(3, 2, layers=3)
    task.model.backbone.requires_grad_(False)
    for block in task.model.pixel_decoder.blocks:
        torch.nn.init.normal_(block.attention.offsets.weight)
        torch.nn.init.normal_(block.attention.weights.weight)
    sum(task.losses(task.batch(0)).values()).backward()
    trained = {name: p.grad for name, p in task.model.named_parameters() if p.requires_grad}
    still = [name for name, gradient in trained.items() if gradient is None or not gradient.any()]
    # a key's bias moves all of a query's logits alike
    assert [name for name in still if not name.endswith("attention.key.bias")] == []
    assert all(p.grad is None for p in task.model.backbone.parameters())


def test_a_tiny_training_learns_to_segment_blocks_from_boxes():
    task = make_training(3, 3, 3, 3, layers=3, num_points=0)
    task.model.backbone.requires_grad_(False)
    task.model.train()
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    optimiser, losses = torch.optim.AdamW(trained, lr=3e-3), []
    for step in range(40):
        loss = sum(task.weights[name] * value for name, value in task.losses(task.batch(step % 4)).items())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path):
    """Some shares have no mask at all."""
    done = launch("kit.prompting.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr
    for counts in SHARED:
        whole = gradients(counts)
        assert any(counts) == any(gradient.norm() > 0.01 for gradient in whole.values())
        for found in load(tmp_path):
            assert found[str(counts)].keys() == whole.keys()
            for name, gradient in whole.items():
                torch.testing.assert_close(found[str(counts)][name], gradient, atol=1e-4, rtol=1e-3)
