"""The training loop: exact resume, signals, the log, non-finite losses, accumulation, precision, optimisers."""

import json
import signal
import warnings

import pytest
import torch

from kit import warm
from kit.runs import Crash, assert_same_bits, crashing, last_checkpoint, rows
from kit.tasks import CONFIG, TinyContrast, TinyTask
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.distributed import Interrupts
from ovs_lite.train import LoopConfig, NonFiniteLoss, loop, total_loss, train
from ovs_lite.train.optim import learning_rate_factor
from ovs_lite.train.resume import truncate_log


def run(out, at=None, task=None, **changes):
    torch.set_num_threads(1)
    return train(task or TinyTask(), LoopConfig(**CONFIG | changes), out, on_step=crashing(at), progress=False)


def final(out):
    found = last_checkpoint(out)
    assert found.step == CONFIG["steps"]
    return found.tensors


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
    assert rows(tmp_path) == rows(whole)


def test_the_comparison_sees_dropout_and_noise(whole, tmp_path):
    run(tmp_path, seed=1)
    assert not torch.equal(final(tmp_path)["model.stem.weight"], final(whole)["model.stem.weight"])


def test_several_crashes_and_a_truncated_line_of_the_log(whole, tmp_path):
    for at in (5, 6, 9):
        with pytest.raises(Crash):
            run(tmp_path, at)
        with open(tmp_path / "log.jsonl", "a") as file:
            file.write('{"step": 99, "lo')
    run(tmp_path)
    assert_same_bits(final(tmp_path), final(whole))
    assert rows(tmp_path) == rows(whole)


@pytest.mark.parametrize("rest", ['{"step": 2, "x": "ü'.encode()[:-1], b"7", b'{"loss": 1}', b'{"step": "x"}'])
def test_the_log_is_kept_up_to_a_row_that_is_none(tmp_path, rest):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 0}\n{"step": 1}\n' + rest + b'\n{"step": 1}\n')
    truncate_log(tmp_path / "log.jsonl", 2)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n'


def test_the_log_holds_every_term_and_the_run_its_config(whole):
    logged = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == list(range(CONFIG["steps"] + 1)), "the last row is the run's cost"
    for row in logged[:-1]:
        assert row.keys() == {"step", "fit", "noise", "loss", "lr", "grad_norm", "images_per_s"}
        assert row["loss"] == pytest.approx(row["fit"] + 0.1 * row["noise"], abs=2e-6)
        assert (
            row["lr"] == pytest.approx(1e-2 * learning_rate_factor("cosine", row["step"], 12, 3))
            and row["images_per_s"] > 0
        )
    assert json.loads((whole / "config.json").read_text())["loop"] == CONFIG | {
        "weight_decay": 0.01, "grad_norm": 1.0, "accumulation": 1, "precision": "no", "seed": 0, "schedule": "cosine",
        "ema": 0.0, "backbone_factor": 1.0, "recompute": False, "compile": "no",
    }  # fmt: skip


def test_training_lowers_the_loss_and_ends_in_evaluation_mode(tmp_path):
    task = TinyTask()
    found = run(tmp_path, task=task, steps=80, checkpoint_every=80)
    assert found[-1]["fit"] < 0.7 * found[0]["fit"] and not task.model.training


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
    assert len(rows(tmp_path)) == 4


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
    assert [row["step"] for row in rows(tmp_path)] == list(range(6))
    report = json.loads((tmp_path / "non_finite.json").read_text())
    assert report["step"] == 6 and report["terms"]["fit"] == "nan" and set(report["terms"]) == {"fit", "noise", "loss"}
    assert report["image_ids"] == [f"row {number}" for number in range(16)]


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
        {"compile": "gcc"},
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
    step = loop.update

    def spy(optimizer, norm, scaler):
        norms.append(torch.cat([p.grad.flatten() for p in task.model.parameters() if p.grad is not None]).norm())
        step(optimizer, norm, scaler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "update", spy)
        found = run(tmp_path, task=task, grad_norm=0.5)
    assert all(row["grad_norm"] > 10 for row in found) and all(norm <= 0.5001 for norm in norms)


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


@pytest.mark.slow
@pytest.mark.parametrize("number, at, code", [(signal.SIGKILL, 6, -9), (signal.SIGTERM, 5, 0), (signal.SIGINT, 1, -2)])
def test_a_signal_then_the_same_command_gives_the_same_bits(whole, tmp_path, number, at, code):
    stopped = warm.run("kit.tasks.main", tmp_path, "--signal", str(int(number)), "--at", str(at))
    assert stopped.returncode == code, stopped.stderr
    step = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).step
    if number == signal.SIGKILL:
        assert step == 4, "the last regular one"
    else:
        assert step == at + 1 and f"stopped by a signal after {at + 1} steps" in stopped.stderr
    resumed = warm.run("kit.tasks.main", tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_bits(final(tmp_path), final(whole))
    assert rows(tmp_path) == rows(whole)


def test_ctrl_c_in_a_notebook_saves_and_gives_the_handler_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def on_step(step, row):
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="run the same command again"):
        train(TinyTask(), LoopConfig(**CONFIG), tmp_path, on_step=on_step, progress=False)
    assert load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).step == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_while_the_task_is_built_ends_before_the_first_step(tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, Interrupts(signal.SIGTERM):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # launchers pass theirs on, too
        run(tmp_path)
    assert end.value.code == 0 and "stopped by a signal after 0 steps" in capsys.readouterr().err
    assert latest_checkpoint(tmp_path / "checkpoints") is None and rows(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes fp16")
def test_fp16_without_a_gpu_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="got precision fp16 on a processor, expected bf16 or no"):
        train(TinyTask(), LoopConfig(**{**CONFIG, "precision": "fp16"}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "log.jsonl").exists()
