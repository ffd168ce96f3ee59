"""The training loop: exact resume, signals, the log, non-finite losses, accumulation, precision, optimisers."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from kit.tasks import CONFIG, TinyContrast, TinyModel, TinyTask
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.train import LoopConfig, NonFiniteLoss, main, total_loss, train
from ovs_lite.train.optim import BlockOptimizer
from ovs_lite.train.schedules import SCHEDULES, learning_rate_factor

HERE = Path(__file__).parent


class Crash(Exception):
    """What stands for a kill inside this process."""


def run(out, at=None, task=None, **changes):
    def on_step(step, row):
        if step == at:
            raise Crash

    torch.set_num_threads(1)
    return train(task or TinyTask(), LoopConfig(**CONFIG | changes), out, on_step=on_step, progress=False)


def final(out):
    found = load_checkpoint(latest_checkpoint(out / "checkpoints"))
    assert found.step == CONFIG["steps"]
    return found.tensors


def log(out):
    """The rows of the log without their speed, the one thing that may differ."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "images_per_s"} for row in rows]


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


@pytest.mark.parametrize("at", [1, 3, 4, 7, 8, 10, 11])
def test_a_crash_after_any_step_and_resume_give_the_same_bits_and_log(whole, tmp_path, at):
    with pytest.raises(Crash):
        run(tmp_path, at)
    torch.manual_seed(99)  # whatever the process did in between
    saved = latest_checkpoint(tmp_path / "checkpoints") is not None
    assert saved == (at >= 4)
    run(tmp_path, task=TinyTask(seed=5 if saved else 0))  # what the new process started from is overwritten
    assert_same_bits(final(tmp_path), final(whole))
    assert log(tmp_path) == log(whole)


def test_the_comparison_sees_dropout_and_noise(whole, tmp_path):
    run(tmp_path, seed=1)
    assert not torch.equal(final(tmp_path)["model.stem.weight"], final(whole)["model.stem.weight"])


def test_several_crashes_and_a_torn_line_of_the_log(whole, tmp_path):
    for at in (5, 6, 9):
        with pytest.raises(Crash):
            run(tmp_path, at)
        with open(tmp_path / "log.jsonl", "a") as file:
            file.write('{"step": 99, "lo')
    run(tmp_path)
    assert_same_bits(final(tmp_path), final(whole))
    assert log(tmp_path) == log(whole)


def test_the_log_holds_every_term_and_the_run_its_config(whole):
    rows = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(CONFIG["steps"]))
    for row in rows:
        assert row.keys() == {"step", "fit", "noise", "loss", "lr", "grad_norm", "images_per_s"}
        assert row["loss"] == pytest.approx(row["fit"] + 0.1 * row["noise"], abs=2e-6)
        assert (
            row["lr"] == pytest.approx(1e-2 * learning_rate_factor("cosine", row["step"], 12, 3))
            and row["images_per_s"] > 0
        )
    assert json.loads((whole / "loop.json").read_text()) == CONFIG | {
        "weight_decay": 0.01, "clip": 1.0, "accumulation": 1, "precision": "no", "seed": 0, "schedule": "cosine",
        "ema": 0.0, "backbone_factor": 1.0,
    }  # fmt: skip


def test_training_lowers_the_loss_and_ends_in_evaluation_mode(tmp_path):
    task = TinyTask()
    rows = run(tmp_path, task=task, steps=80, checkpoint_every=80)
    assert rows[-1]["fit"] < 0.7 * rows[0]["fit"] and not task.model.training


@pytest.mark.parametrize("muon_lr", [0.02, 0.0])
def test_the_loop_trains_every_weight_that_has_a_gradient(tmp_path, muon_lr):
    task = TinyTask()
    before = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    run(tmp_path, task=task, muon_lr=muon_lr)
    still = {name for name, value in task.model.named_parameters() if torch.equal(value, before[name])}
    assert still == {"unused"}


def test_a_finished_run_is_left_alone_and_fresh_starts_over(tmp_path):
    run(tmp_path, steps=8)
    before = (tmp_path / "log.jsonl").read_bytes()
    assert run(tmp_path, steps=8) == [] and (tmp_path / "log.jsonl").read_bytes() == before
    train(TinyTask(), LoopConfig(**CONFIG | {"steps": 4}), tmp_path, resume=False, progress=False)
    assert load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).step == 4, "an older, longer run must not win"
    assert len(log(tmp_path)) == 4


def test_other_settings_warn_by_name(tmp_path):
    with pytest.raises(Crash):
        run(tmp_path, 7)
    with pytest.warns(UserWarning, match=r"not bit-identical: lr 0.01 -> 0.02, seed 0 -> 4"):
        run(tmp_path, lr=0.02, seed=4)


def test_the_same_settings_do_not_warn(tmp_path):
    with pytest.raises(Crash):
        run(tmp_path, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(tmp_path)


@pytest.mark.parametrize("change", [{"task": TinyContrast()}, {"muon_lr": 0.0}])
def test_a_checkpoint_of_another_model_or_optimiser_is_refused(tmp_path, change):
    with pytest.raises(Crash):
        run(tmp_path, 7)
    with pytest.raises(ValueError, match="belongs to another model"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(tmp_path, **change)


def test_a_damaged_checkpoint_stops_the_resume_and_its_remedy_works(whole, tmp_path):
    with pytest.raises(Crash):
        run(tmp_path, 9)
    newest = latest_checkpoint(tmp_path / "checkpoints")
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged checkpoint .* delete this folder"):
        run(tmp_path)
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    run(tmp_path)
    assert_same_bits(final(tmp_path), final(whole))


def test_a_non_finite_loss_stops_with_every_term_and_the_last_checkpoint_is_sound(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"step 6: .*'fit': nan.*'noise': nan.*'loss': nan"):
        run(tmp_path, task=TinyTask(bad_step=6))
    found = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints"))
    assert found.step == 4 and all(value.double().isfinite().all() for value in found.tensors.values())
    assert [row["step"] for row in log(tmp_path)] == list(range(6))
    report = json.loads((tmp_path / "non_finite.json").read_text())
    assert report["step"] == 6 and report["terms"]["fit"] == "nan" and set(report["terms"]) == {"fit", "noise", "loss"}
    assert report["ids"] == [f"row {number}" for number in range(16)]


def test_a_finite_loss_with_a_non_finite_gradient_stops_too(tmp_path):
    class Rooted(TinyTask):
        def losses(self, batch):
            terms = super().losses(batch)
            return terms | {"noise": (terms["fit"] * 0).sqrt()}  # 0, with an infinite slope

    with pytest.raises(NonFiniteLoss, match="'grad_norm': nan"):
        run(tmp_path, task=Rooted())


def test_a_term_without_a_weight_is_refused():
    one = torch.tensor(1.0)
    assert total_loss({"a": one, "b": 2 * one}, {"a": 3.0, "b": 0.5, "c": 9.0}) == 4.0
    with pytest.raises(ValueError, match="without a weight: b; weights exist for"):
        total_loss({"a": one, "b": one}, {"a": 1.0})


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"accumulation": 0},
        {"checkpoint_every": 0},
        {"log_every": -1},
        {"precision": "fp8"},
        {"schedule": "cosin"},
        {"ema": 1.0},
    ],
)
def test_values_that_cannot_run_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        LoopConfig(**CONFIG | change)


class Halves(TinyContrast):
    """A mean over samples, so that two halves of a batch accumulate to the whole."""

    weights = {"square": 1.0}

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def batch(self, index):
        step, part = divmod(index, self.parts)
        return super().batch(step).chunk(self.parts)[part]

    def losses(self, batch):
        return {"square": (self.model["a"](batch) - self.model["b"](batch)).square().mean()}


def test_accumulated_parts_train_like_the_whole_batch(tmp_path):
    run(tmp_path / "one", task=Halves(1))
    run(tmp_path / "four", task=Halves(4), accumulation=4)
    one, four = final(tmp_path / "one"), final(tmp_path / "four")
    for name, expected in one.items():
        torch.testing.assert_close(four[name], expected, rtol=1e-6, atol=1e-8, msg=name)


def test_accumulation_resumes_with_the_same_bits(tmp_path):
    run(tmp_path / "whole", accumulation=3)
    with pytest.raises(Crash):
        run(tmp_path / "cut", 6, accumulation=3)
    run(tmp_path / "cut", accumulation=3)
    assert_same_bits(final(tmp_path / "cut"), final(tmp_path / "whole"))


def test_precision_may_change_between_two_runs_of_a_process(tmp_path):
    seen = []

    class Looks(TinyTask):
        def losses(self, batch):
            seen.append(self.model.stem(batch).dtype)
            return super().losses(batch)

    for precision in ("no", "bf16", "no"):
        run(tmp_path / f"{len(seen)}", task=Looks(), precision=precision, steps=1)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


def test_gradients_are_clipped_to_the_norm(tmp_path):
    class Steep(TinyTask):
        weights = {"fit": 1e4, "noise": 0.0}

    task, norms = Steep(), []
    step = BlockOptimizer.step

    def spy(self, scaler=None):
        norms.append(torch.cat([p.grad.flatten() for p in task.model.parameters() if p.grad is not None]).norm())
        step(self, scaler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockOptimizer, "step", spy)
        rows = run(tmp_path, task=task, clip=0.5)
    assert all(row["grad_norm"] > 10 for row in rows) and all(norm <= 0.5001 for norm in norms)


def make_optimizer(muon_lr=0.02):
    torch.manual_seed(0)
    model = TinyModel()
    return model, BlockOptimizer(model.named_parameters(), 1e-2, muon_lr, 0.01)


def backward(model, scale=1.0):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    (model(x).square().mean() * scale).backward()


def test_muon_takes_the_block_matrices_and_adamw_the_rest():
    model, optimizer = make_optimizer()
    assert [id(parameter) for parameter, _ in optimizer.pairs] == [id(block.weight) for block in model.blocks]
    before = {name: value.clone() for name, value in model.named_parameters()}
    backward(model)
    optimizer.share_gradients()
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(before) - {"unused"}, "the 1x1 convolution moves through its view; the unused one stays"
    assert all(parameter.grad is None for parameter in model.parameters())
    assert make_optimizer(muon_lr=0.0)[1].pairs == []


def test_a_loss_scale_changes_nothing_and_an_overflow_skips_the_step():
    plain, optimizer = make_optimizer()
    scaled, with_scale = make_optimizer()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    backward(plain)
    optimizer.share_gradients()
    optimizer.step()
    for scale in (1.0, float("inf")):
        backward(scaled, 1024.0 * scale)
        scaler.scale(torch.tensor(1.0))  # as the loop does through accelerate
        with_scale.share_gradients()
        for part in with_scale.parts:
            scaler.unscale_(part)
        with_scale.step(scaler)
        for (name, expected), found in zip(plain.named_parameters(), scaled.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7, msg=name)
    assert scaler.get_scale() == 512.0


def test_the_schedules_warm_up_and_end_where_they_say():
    def factors(name):
        return [learning_rate_factor(name, step, 110, 10) for step in range(111)]

    for name in SCHEDULES:
        assert factors(name)[:11] == pytest.approx([(step + 1) / 10 for step in range(10)] + [1.0]), name
        assert all(later <= earlier for earlier, later in zip(factors(name)[10:], factors(name)[11:], strict=False))
    assert factors("cosine")[110] == pytest.approx(0.02) and factors("cosine")[60] == pytest.approx(0.51)
    assert factors("poly")[60] == pytest.approx(0.5**0.9) and factors("poly")[110] == 0.0
    steps = factors("step")
    assert [steps[94], steps[95], steps[104], steps[105], steps[110]] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
    assert factors("constant")[110] == 1.0
    assert learning_rate_factor("cosine", 0, 5, 0) == 1.0


def test_the_average_of_the_weights_is_what_a_run_with_ema_leaves(tmp_path):
    task, expected = TinyTask(), {}

    def on_step(step, row):
        for name, value in task.model.named_parameters():
            now = value.detach().clone()
            expected[name] = now if step == 0 else 0.8 * expected[name] + 0.2 * now

    train(task, LoopConfig(**CONFIG | {"ema": 0.8}), tmp_path, on_step=on_step, progress=False)
    raw = final(tmp_path)
    for name, value in task.model.named_parameters():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert not torch.equal(raw["model.stem.weight"], task.model.stem.weight), "the checkpoint goes on from the raw ones"
    again = TinyTask(seed=3)
    assert train(again, LoopConfig(**CONFIG | {"ema": 0.8}), tmp_path, progress=False) == []
    assert_same_bits(again.model.state_dict(), task.model.state_dict())


def test_a_run_with_ema_resumes_with_the_same_bits(tmp_path):
    run(tmp_path / "whole", ema=0.9)
    with pytest.raises(Crash):
        run(tmp_path / "cut", 6, ema=0.9)
    run(tmp_path / "cut", ema=0.9, task=TinyTask(seed=5))
    assert_same_bits(final(tmp_path / "cut"), final(tmp_path / "whole"))


@pytest.mark.parametrize("muon_lr", [0.02, 0.0])
def test_the_backbone_learns_at_its_own_rate(muon_lr):
    model = torch.nn.ModuleDict({"backbone": TinyModel(), "head": TinyModel()})
    optimizer = BlockOptimizer(model.named_parameters(), 1e-2, muon_lr, 0.01, backbone_factor=0.1)
    optimizer.set_factor(0.5)
    inside = {id(p) for p in model["backbone"].parameters()} | {id(v) for _, v in optimizer.pairs[:2]}
    seen = 0
    for part, base in zip(optimizer.parts, optimizer.base_lr, strict=True):
        for group in part.param_groups:
            for parameter in group["params"]:
                seen += 1
                scalar = 10.0 if parameter.ndim == 0 else 1.0
                share = 0.1 if id(parameter) in inside else 1.0
                assert group["lr"] == pytest.approx(base * 0.5 * scalar * share)
    assert seen == len(list(model.parameters()))


def process(out, *words):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "kit/tasks.py"), str(out), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, at, code", [(signal.SIGKILL, 6, -9), (signal.SIGTERM, 5, 128 + 15), (signal.SIGINT, 1, -2)]
)
def test_a_signal_then_the_same_command_gives_the_same_bits(whole, tmp_path, number, at, code):
    stopped = process(tmp_path, "--signal", str(int(number)), "--at", str(at))
    assert stopped.returncode == code, stopped.stderr
    step = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).step
    if number == signal.SIGKILL:
        assert step == 4, "the last regular one"
    else:
        assert step == at + 1 and f"stopped by a signal after step {at}" in stopped.stderr
    resumed = process(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_bits(final(tmp_path), final(whole))
    assert log(tmp_path) == log(whole)


def test_ctrl_c_in_a_notebook_saves_and_gives_the_handler_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def on_step(step, row):
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="run the same command again"):
        train(TinyTask(), LoopConfig(**CONFIG), tmp_path, on_step=on_step, progress=False)
    assert load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).step == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_names_what_it_can_train():
    with pytest.raises(
        SystemExit, match="expected one of clip, proposals, tcl; example: python -m ovs_lite.train clip --help"
    ):
        main(["clop"])


def test_the_commands_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        main(["clip", "--help"])
    assert end.value.code == 0 and "examples:" in capsys.readouterr().out
