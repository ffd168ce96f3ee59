"""The optimiser: who is trained by Muon, what a step does, an overflow in any part, the state, rates and schedules."""

import pytest
import timm.optim.muon
import torch

from kit.runs import assert_same_bits
from kit.tasks import TinyModel
from ovs_lite.config import SCHEDULES, LoopConfig
from ovs_lite.train import optim
from ovs_lite.train.optim import (
    CURVES,
    build_optimizer,
    learning_rate_factor,
    load_state_tensors,
    scale_rates,
    state_tensors,
    update,
)


def make_optimizer(muon_lr=0.02, model=None, **changes):
    torch.manual_seed(0)
    model = TinyModel() if model is None else model
    config = LoopConfig(steps=1, lr=1e-2, muon_lr=muon_lr, weight_decay=0.01, **changes)
    return model, build_optimizer(model.named_parameters(), config)


def backward(model, scale=1.0):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    (model(x).square().mean() * scale).backward()


def muon_names(optimizer):
    return [n for group in optimizer.param_groups if "momentum" in group and not group.get("use_fallback")
            for n in group["names"]]  # fmt: skip


def test_muon_takes_the_block_matrices_and_adamw_the_rest():
    model, optimizer = make_optimizer()
    assert muon_names(optimizer) == ["blocks.0.weight", "blocks.1.weight"], "1x1 convolutions are matrices"
    before = {name: value.clone() for name, value in model.named_parameters()}
    backward(model)
    update(optimizer, 1.0)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(before) - {"unused"} and all(p.grad is None for p in model.parameters())
    assert isinstance(make_optimizer(muon_lr=0.0)[1], torch.optim.AdamW)


def test_muons_step_depends_on_the_gradients_direction_alone_and_is_as_long_as_its_rate():
    """Newton-Schulz brings the leading singular values near 1, whatever the gradient's size."""
    steps = {}
    for scale in (1.0, 1024.0):  # a power of two: no other rounding
        model, optimizer = make_optimizer()
        before = [block.weight.detach().flatten(1).clone() for block in model.blocks]
        backward(model, scale)
        update(optimizer, 1.0)
        after = [block.weight.detach().flatten(1) for block in model.blocks]
        steps[scale] = [(old * (1 - 0.02 * 0.01) - new) / 0.02 for old, new in zip(before, after, strict=True)]
    for small, large in zip(*steps.values(), strict=True):
        assert 0.7 < torch.linalg.svdvals(small).max() < 1.3
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)


def test_the_fallback_is_torchs_adamw():
    """Of a model in which Muon has nothing to train but one matrix, all else moves as under torch's AdamW."""
    mixed, with_muon = make_optimizer()
    plain, adamw = make_optimizer(muon_lr=0.0)
    for _ in range(3):
        for model in (mixed, plain):
            with torch.no_grad():  # same block matrices in both, so that the others see the same gradients
                for mine, other in zip(mixed.blocks, plain.blocks, strict=True):
                    other.weight.copy_(mine.weight)
            backward(model)
        update(with_muon, 1.0)
        update(adamw, 1.0)
    for (name, found), expected in zip(mixed.named_parameters(), plain.parameters(), strict=True):
        if name not in ("blocks.0.weight", "blocks.1.weight"):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=name)


def scaled_step(model, optimizer, scaler, spoil=None):
    backward(model, scaler.get_scale())
    scaler.scale(torch.tensor(1.0))  # as the loop does through accelerate
    if spoil is not None:
        dict(model.named_parameters())[spoil].grad.view(-1)[0] = float("inf")
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1e9))
    update(optimizer, norm, scaler)


@pytest.mark.parametrize("spoil", ["blocks.0.weight", "stem.weight", "scale"])
def test_an_overflow_in_any_part_skips_the_whole_step(spoil):
    """Muon's matrices, AdamW's, a scalar: with one optimiser per part, the shared clipping once poisoned the other."""
    plain, optimizer = make_optimizer()
    scaled, with_scale = make_optimizer()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    backward(plain)
    update(optimizer, 1.0)
    scaled_step(scaled, with_scale, scaler)
    scaled_step(scaled, with_scale, scaler, spoil)
    for (name, expected), found in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7, msg=name)
    assert scaler.get_scale() == 512.0 and all(p.grad is None for p in scaled.parameters())


def orthogonal_by_hand(matrix):
    """Muon's quintic iteration in float64, with the five sets of coefficients of modded-nanogpt's train_gpt_medium."""
    x = matrix.double() / matrix.double().norm()
    for a, b, c in (
        (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012),
    ):  # fmt: skip
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x


@pytest.mark.parametrize(("fast", "near"), [(True, 5e-2), (False, 1e-5)])
def test_without_instructions_for_bf16_muon_iterates_in_float32(monkeypatch, fast, near):
    monkeypatch.setattr(optim, "multiplies_bf16", lambda: fast)
    theirs = timm.optim.muon.zeropower_via_newtonschulz
    matrix = torch.nn.Parameter(torch.zeros(4, 6))
    optimizer = build_optimizer([("blocks.0.weight", matrix)], LoopConfig(steps=1, lr=1e-2, muon_lr=1.0))
    matrix.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    expected = -orthogonal_by_hand(matrix.grad)
    optimizer.step()
    assert torch.allclose(matrix.detach().double(), expected, atol=near)
    assert torch.allclose(matrix.detach().double(), expected, atol=1e-4) is not fast, "bf16 has eight bits"
    assert timm.optim.muon.zeropower_via_newtonschulz is theirs


def test_timms_function_is_given_back_after_a_step_that_fails(monkeypatch):
    monkeypatch.setattr(optim, "multiplies_bf16", lambda: False)
    theirs = timm.optim.muon.zeropower_via_newtonschulz
    _, optimizer = make_optimizer()
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert timm.optim.muon.zeropower_via_newtonschulz is theirs


@pytest.mark.parametrize("muon_lr", [0.02, 0.0])
def test_the_state_as_tensors_goes_on_with_the_same_bits(muon_lr):
    whole, optimizer = make_optimizer(muon_lr)
    for _ in range(2):
        backward(whole)
        update(optimizer, 1.0)
    weights = {name: value.clone() for name, value in whole.state_dict().items()}
    state = {name: value.clone() for name, value in state_tensors(optimizer).items()}
    again, other = make_optimizer(muon_lr)
    again.load_state_dict(weights)
    load_state_tensors(other, state)
    for model, opt in ((whole, optimizer), (again, other)):
        backward(model)
        update(opt, 1.0)
    assert_same_bits(again.state_dict(), whole.state_dict())
    with pytest.raises(ValueError, match="another model or other options"):
        load_state_tensors(other, {"nobody|exp_avg": torch.zeros(2)})


@pytest.mark.parametrize("muon_lr", [0.02, 0.0])
def test_the_backbone_learns_at_its_own_rate(muon_lr):
    model = torch.nn.ModuleDict({"backbone": TinyModel(), "head": TinyModel()})
    _, optimizer = make_optimizer(muon_lr, model, backbone_factor=0.1)
    scale_rates(optimizer, 0.5)
    inside, muon, seen = {id(p) for p in model["backbone"].parameters()}, muon_names(optimizer), 0
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            seen += 1
            base = muon_lr if name in muon else 1e-2 * (10.0 if parameter.ndim == 0 else 1.0)
            assert group["lr"] == pytest.approx(0.5 * base * (0.1 if id(parameter) in inside else 1.0))
            assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0)
    assert seen == len(list(model.parameters()))


def test_a_factor_of_nothing_freezes_the_backbone():
    model = torch.nn.ModuleDict({"backbone": TinyModel(), "head": TinyModel()})
    _, optimizer = make_optimizer(0.02, model, backbone_factor=0.0)
    names = {name for group in optimizer.param_groups for name in group["names"]}
    assert names == {name for name, _ in model.named_parameters() if name.startswith("head.")}
    assert not any(parameter.requires_grad for parameter in model["backbone"].parameters())


def test_the_schedules_warm_up_and_end_where_they_say():
    def factors(name):
        return [learning_rate_factor(name, step, 110, 10) for step in range(111)]

    assert tuple(CURVES) == SCHEDULES
    for name in CURVES:
        assert factors(name)[:11] == pytest.approx([(step + 1) / 10 for step in range(10)] + [1.0]), name
        assert all(later <= earlier for earlier, later in zip(factors(name)[10:], factors(name)[11:], strict=False))
    assert factors("cosine")[110] == pytest.approx(0.02) and factors("cosine")[60] == pytest.approx(0.51)
    assert factors("poly")[60] == pytest.approx(0.5**0.9) and factors("poly")[110] == 0.0
    steps = factors("step")
    assert [steps[94], steps[95], steps[104], steps[105], steps[110]] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
    assert factors("constant")[110] == 1.0
    assert learning_rate_factor("cosine", 0, 5, 0) == 1.0
