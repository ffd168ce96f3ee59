"""TCL's training: terms and gradients against all masks at once, what is frozen and until when, and two processes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kit.oracles.contrastive import slow_info_nce
from kit.oracles.released_tcl import unit, variation
from kit.oracles.tcl import released_terms
from kit.processes import launch, load
from kit.tcl_training import (
    ALL,
    BETWEEN,
    PAIRS,
    WEIGHTS,
    backward,
    both_ways,
    descend,
    halves,
    make_task,
    own_area,
    settings,
    threshold,
)
from ovs_lite import distributed
from ovs_lite.methods.tcl import training
from ovs_lite.methods.tcl.config import TclConfig
from ovs_lite.methods.tcl.training import TclTraining
from ovs_lite.models.text_masks import binary_gumbel
from ovs_lite.train import LoopConfig, train

STEPS = 3
ALONE = {name: {**dict.fromkeys(WEIGHTS, 0.0), name: 1.0} for name in WEIGHTS}  # one term at a time


def slow_terms(task, batch, uniform, priors):
    """The five terms as paper and release write them. uniform: (B, 1, h, w), what the Gumbel noise is made of."""
    clip, grounder, network = task.clip, task.model, task.clip.network
    images = (batch.pairs.images.double() - clip.mean) / clip.std
    pixels = task.method.pixel_embeddings(images, batch.train_block)
    with torch.no_grad():
        texts = unit(network.encode_text(clip.tokenizer(batch.pairs.captions)))
    own_texts = torch.arange(len(texts))
    similarity, own, others, roughness = released_terms(pixels, texts, grounder.scale, grounder.bias, own_texts)
    logits = own.logit()[:, None] + uniform.log() - (1 - uniform).log()
    soft = logits.sigmoid()
    hard = (logits > 0) + soft - soft.detach()
    masked = unit(network.encode_image(images * hard.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    pooled = unit(pixels.flatten(2).sum(2))
    return {
        "image": slow_info_nce(masked @ texts.T, grounder.image_scale),
        "feature": slow_info_nce(similarity, grounder.feature_scale),
        "area": (own.mean() - priors[0]).abs() + (others.mean() - priors[1]).abs(),
        "smooth": roughness + variation(pixels),
        "contrastive": slow_info_nce(pooled @ texts.T, grounder.image_scale),
    }


def gradients(task, terms):
    """Of a sum in which every term has a weight of its own; zeros where there is none."""
    loss = sum((number + 1) * terms[name] for number, name in enumerate(WEIGHTS))
    parameters = dict(task.model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    return {name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs}


@pytest.mark.parametrize(("unfreeze", "priors"), [(0, (0.4, 0.0)), (None, (0.05, 0.3))])
def test_terms_and_gradients_are_those_of_all_masks_at_once(unfreeze, priors):
    task = make_task(3, weights=ALL, unfreeze_batch=unfreeze, priors=priors)
    batch = task.batch(0)
    torch.manual_seed(5)
    found = task.losses(batch)
    torch.manual_seed(5)
    expected = slow_terms(task, batch, torch.rand(3, 1, 32, 32, dtype=torch.float64), priors)
    assert list(found) == list(expected) == list(WEIGHTS)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)
    right = gradients(task, expected)
    for name, grad in gradients(task, found).items():
        torch.testing.assert_close(grad, right[name], rtol=1e-7, atol=1e-9, msg=name)
        assert bool(grad.abs().sum() > 1e-6) == (unfreeze == 0 or not name.startswith("block")), name


@torch.no_grad()
def slope(task, batch, directions, size=1e-4):
    """The image term's derivative along one direction of several parameters, by a central difference."""
    parameters, values = dict(task.model.named_parameters()), []
    for factor in (size, -2 * size, size):  # and back to where they were
        for name, direction in directions.items():
            parameters[name] += factor * direction
        values.append(task.losses(batch)["image"].item())
    return (values[0] - values[1]) / (2 * size)


def test_the_image_term_reaches_the_grounder_through_the_frozen_clip(monkeypatch):
    """By finite differences of the soft sample, whose noise is the same each time."""

    def soft(logits):
        return binary_gumbel(logits, hard=False, generator=torch.Generator().manual_seed(3))

    monkeypatch.setattr(training, "binary_gumbel", soft)
    task, generator = make_task(2, weights=ALONE["image"], unfreeze_batch=0), torch.Generator().manual_seed(4)
    before = {name: value.clone() for name, value in task.clip.state_dict().items()}
    _, found = backward(task)
    for part in ("block", "decoder", "proj", "bias"):
        grads = {name: grad for name, grad in found.items() if name.startswith(part)}
        noise = {name: torch.randn(g.shape, generator=generator, dtype=g.dtype) for name, g in grads.items()}
        directions = {n: g + g.norm() / g.numel() ** 0.5 * noise[n] for n, g in grads.items()}
        expected = sum(float((g * directions[n]).sum()) for n, g in grads.items())
        assert expected > 1e-6 and slope(task, task.batch(0), directions) == pytest.approx(expected, rel=1e-4), part
    assert all(p.grad is None and not p.requires_grad for p in task.clip.parameters())
    assert all(torch.equal(value, before[name]) for name, value in task.clip.state_dict().items())


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_term_alone_trains_what_it_depends_on(name):
    task = make_task(3, dtype=torch.float32, weights=ALONE[name], unfreeze_batch=0)
    terms, found = backward(task)
    silent = {n for n, grad in found.items() if grad is None or not grad.any()}
    scales = {"image": {"image_scale"}, "contrastive": {"image_scale"}, "feature": {"feature_scale"}}.get(name, set())
    masks = set() if name == "contrastive" else {"scale", "bias"}
    assert terms.keys() == {name}
    assert silent == {"image_scale", "feature_scale", "scale", "bias"} - scales - masks


def test_a_term_without_weight_is_left_out_and_a_masked_picture_then_not_encoded(monkeypatch):
    task = make_task(3, dtype=torch.float32)
    assert list(task.losses(task.batch(0))) == ["image", "feature", "area", "smooth"], "contrastive is off by default"
    monkeypatch.setattr(task.clip, "encode_image", lambda images: pytest.fail("encoded for nothing"))
    task.weights = WEIGHTS | {"image": 0.0, "smooth": 0}
    assert list(task.losses(task.batch(0))) == ["feature", "area"]


@pytest.mark.parametrize("weights", [dict.fromkeys(WEIGHTS, 0.0), WEIGHTS | {"area": -0.1}])
def test_weights_of_which_nothing_can_be_learned_are_refused(weights):
    with pytest.raises(ValueError, match="expected none negative, and not all 0"):
        settings(weights)


def test_the_defaults_are_those_of_the_release():
    task = TclTraining(SimpleNamespace(grounder=None), None)
    assert task.weights == {"image": 0.1, "feature": 0.1, "area": 0.4, "smooth": 1.0, "contrastive": 0.0}
    assert (task.config.positive_area, task.config.negative_area, task.config.variant) == (0.4, 0.0, "released")


@pytest.mark.parametrize(
    ("unfreeze", "steps", "accumulation", "batch"),
    [(0.6, 60, 1, 36), (0.6, 60, 4, 144), (0.5, 3, 3, 6), (0.0, 9, 2, 0), (1.0, 60, 4, None)],
)
def test_a_share_of_the_steps_becomes_a_batch(unfreeze, steps, accumulation, batch):
    loop = replace(TclConfig().loop, steps=steps, accumulation=accumulation)
    task = TclTraining(SimpleNamespace(grounder=None), None, TclConfig(unfreeze=unfreeze, loop=loop))
    assert task.unfreeze_batch == batch


def changes(task, out):
    """For each step of the loop: whether the block moved, and whether all the rest of the grounder did."""
    seen, changed = [], []

    def on_step(*_):
        seen.append({name: value.clone() for name, value in task.model.state_dict().items()})
        if len(seen) > 1:
            moved = {name for name, value in seen[-1].items() if not torch.equal(value, seen[-2][name])}
            block = {name for name in seen[-1] if name.startswith("block")}
            assert moved >= seen[-1].keys() - block and moved & block in (set(), block)
            changed.append(bool(moved & block))

    on_step()
    loop = LoopConfig(steps=STEPS, lr=1e-3, muon_lr=0.0, weight_decay=0.5, warmup=0)
    train(task, loop, out, on_step=on_step, progress=False)
    return changed


@pytest.mark.parametrize(("unfreeze", "still"), [(None, STEPS), (0, 0), (1, 1)])
def test_the_block_rests_until_its_batch_also_under_weight_decay(unfreeze, still, tmp_path):
    task = make_task(2, dtype=torch.float32, unfreeze_batch=unfreeze)
    start = {name: value.clone() for name, value in task.clip.state_dict().items()}
    assert changes(task, tmp_path) == [False] * still + [True] * (STEPS - still)
    assert all(torch.equal(value, start[name]) for name, value in task.clip.state_dict().items()), "CLIP is frozen"
    assert not any(p.requires_grad for p in task.clip.parameters())


@pytest.mark.parametrize(("unfreeze", "trained"), [(None, []), (0, [0, 1, 9]), (1, [1, 9]), (9, [9])])
def test_a_batch_says_whether_the_block_learns_from_it(unfreeze, trained):
    task = make_task(2, unfreeze_batch=unfreeze)
    assert [index for index in (0, 1, 9) if task.batch(index).train_block] == trained


def trained_area(area, prior):
    task = make_task(3, dtype=torch.float32, weights=WEIGHTS | {"area": area}, priors=(prior, 0.0), unfreeze_batch=0)
    batch = task.batch(0)
    descend(task, batch, 4)
    return own_area(task, batch)


def test_the_prior_draws_the_own_masks_to_it_and_without_the_weight_does_not():
    free, none, wide = trained_area(0.0, 0.9), trained_area(2.0, 0.0), trained_area(2.0, 0.9)
    assert none < free - 0.02 and wide > free + 0.2


def test_the_loss_falls_on_one_batch():
    task = make_task(4, dtype=torch.float32, unfreeze_batch=0)
    losses = descend(task, task.batch(0), 8)
    assert losses[-1] < 0.7 * losses[0] and losses[-1] == min(losses), losses


def test_a_single_pair_and_half_precision_give_finite_terms(monkeypatch):
    """A single pair has no negatives: nothing to contrast, and an area of its own text alone."""
    monkeypatch.setattr(training, "binary_gumbel", threshold)
    one, task = make_task(1, dtype=torch.float32, weights=ALL), make_task(4, dtype=torch.float32, weights=ALL)
    with torch.no_grad():
        terms = one.losses(one.batch(0))
    assert [terms[name].item() for name in ("image", "feature", "contrastive")] == [0, 0, 0]
    assert float(terms["area"]) == pytest.approx(abs(own_area(one, one.batch(0)) - 0.4)) and terms["smooth"] > 0
    expected, _ = backward(task)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.losses(task.batch(0))
    sum(found.values()).backward()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=0.05), name
    assert all(p.grad.isfinite().all() for name, p in task.model.named_parameters() if not name.startswith("block"))


def test_a_task_serves_the_loop():
    task = make_task(3)
    batch, same = task.batch(2), task.batches(2)
    assert torch.equal(batch.pairs.images, same.images) and batch.pairs.captions == same.captions
    assert task.count(batch) == 3 and task.image_ids(batch) == same.image_ids
    assert sorted(same.image_ids) == ["p0", "p1", "p2"]
    assert task.model is task.method.grounder and task.clip is task.method.clip
    task.to(torch.device("meta"))
    assert all(value.is_meta for part in (task.model, task.clip) for value in part.state_dict().values())


def test_processes_that_each_hold_half_a_batch_count_all_of_it(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    task = make_task(4, dtype=torch.float32)
    batch = task.batch(0)
    assert task.count(batch) == 4 and len(task.image_ids(batch)) == len(batch.pairs.captions) == 2


@pytest.mark.slow
def test_two_processes_have_terms_gradients_and_training_of_one(tmp_path, monkeypatch):
    """Before the block is unfrozen and after, on areas that the prior parts: the halves' own signs would cancel."""
    done = launch("kit.tcl_training.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(training, "binary_gumbel", threshold)
    (expected, trained), task = both_ways(tmp_path / "one"), make_task(PAIRS)
    for found, weights in load(tmp_path):
        for (terms, grads), (right_terms, right_grads) in zip(found, expected, strict=True):
            torch.testing.assert_close(terms, right_terms, rtol=1e-10, atol=1e-12)
            assert grads.keys() == right_grads.keys()
            for name, grad in right_grads.items():
                if grad is None:
                    assert grads[name] is None and name.startswith("block"), name
                else:
                    torch.testing.assert_close(grads[name], grad, rtol=1e-8, atol=1e-11, msg=name)
        for name, value in trained.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-6, atol=1e-8, msg=name)
    assert [grads["block.mlp.c_fc.weight"] is None for _, grads in expected] == [True, False]
    areas = [own_area(task, half) for half in halves(task.batch(1))]
    assert min(areas) < BETWEEN < max(areas)


def test_the_papers_variant_normalises_pixels_before_they_are_pooled_and_smoothed(monkeypatch):
    """The same as the released one on a model whose pixel embeddings already have length 1; masks do not change."""
    task, paper = (make_task(PAIRS, weights=ALL, variant=variant) for variant in ("released", "paper"))
    plain, found = (t.losses(t.batch(0)) for t in (task, paper))
    assert not torch.isclose(plain["smooth"], found["smooth"]) and not torch.isclose(plain["feature"], found["feature"])
    torch.testing.assert_close(plain["area"], found["area"], atol=1e-9, rtol=1e-9)
    raw = task.method.pixel_embeddings
    monkeypatch.setattr(task.method, "pixel_embeddings", lambda *args: unit_pixels(raw(*args)))
    expected = task.losses(task.batch(0))
    for name in ("feature", "area", "smooth", "contrastive"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-9, rtol=1e-9)
    with pytest.raises(ValueError, match="got variant='both', expected one of released, paper"):
        settings(variant="both")


def unit_pixels(pixels):
    return pixels / pixels.square().sum(1, keepdim=True).sqrt()
