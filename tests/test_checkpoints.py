"""Checkpoints: what is saved comes back, a kill or a full disk never loses the last one, and damage is refused."""

import itertools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from kit import warm
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint

SHARED = torch.arange(6.0).view(2, 3)
TENSORS = {
    "model.a": SHARED, "model.tied": SHARED, "model.view": SHARED.T, "count": torch.tensor(7),
    "half": torch.full((3,), 0.1, dtype=torch.bfloat16), "none": torch.zeros(0, 4),
}  # fmt: skip
NOTES = {"settings": {"seed": 3, "torch": "2", "lr": 1e-3}, "scaler": {}}


def save_on_and_on(folder: str, last: str) -> None:
    """In a process of its own, until it is killed: tells each step that is saved."""
    for step in itertools.count(int(last) + 1):
        save_checkpoint(Path(folder), step, {"w": torch.full((400, 1000), float(step))})
        print(step, flush=True)


def save_on_a_full_disk(folder: str) -> None:
    """In a process of its own, which may then write small files only."""
    import resource

    save_checkpoint(Path(folder), 1, {"w": torch.ones(10)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    save_checkpoint(Path(folder), 2, {"w": torch.ones(100_000)})


@pytest.fixture
def saved(tmp_path):
    return save_checkpoint(tmp_path / "checkpoints", 12, TENSORS, NOTES)


def test_what_is_saved_comes_back(saved):
    found = load_checkpoint(saved)
    assert found.step == 12 and found.notes == NOTES and found.tensors.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        assert found.tensors[name].dtype == expected.dtype and torch.equal(found.tensors[name], expected), name
    assert sorted(path.name for path in saved.iterdir()) == ["manifest.json", "state.safetensors"]


def test_the_newest_two_stay_and_leftovers_go(tmp_path):
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / ".state-killed.safetensors").write_bytes(b"half")
    (tmp_path / "notes").mkdir()
    for step in (1, 3, 10, 9):
        save_checkpoint(tmp_path, step, {"w": torch.tensor(float(step))})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step-00000009", "step-00000010"]
    assert load_checkpoint(latest_checkpoint(tmp_path)).step == 10
    remove_checkpoints(tmp_path)
    assert latest_checkpoint(tmp_path) is None and (tmp_path / "notes").is_dir()


def test_a_removal_killed_halfway_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"w": torch.tensor(float(step))})

    def killed(path):
        (path / "state.safetensors").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_checkpoints(tmp_path)
    complete = {path.parent for path in tmp_path.glob("step-*/manifest.json")}
    assert len(complete) == 1 and complete == {path.parent for path in tmp_path.glob("step-*/state.safetensors")}
    monkeypatch.undo()
    remove_checkpoints(tmp_path)
    assert latest_checkpoint(tmp_path) is None


def test_no_checkpoint_is_none(tmp_path):
    assert latest_checkpoint(tmp_path / "absent") is None
    (tmp_path / "step-00000005").mkdir()
    assert latest_checkpoint(tmp_path) is None, "a folder without a manifest is not complete"


def refused(path: Path, file: str) -> None:
    with pytest.raises(ValueError, match="delete this folder to resume from the checkpoint before it") as error:
        load_checkpoint(path)
    assert str(path / file) in str(error.value)


MANY = pytest.param(1000, marks=pytest.mark.fault)


@pytest.mark.parametrize("flips", [400, MANY])
@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
def test_a_flipped_bit_is_refused(saved, file, flips):
    whole, rng = (saved / file).read_bytes(), random.Random(0)
    bits = range(8 * len(whole)) if file == "manifest.json" else rng.sample(range(8 * len(whole)), flips)
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (saved / file).write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged checkpoint"):
            load_checkpoint(saved)
    assert len(bits) >= 400
    (saved / file).write_bytes(whole)
    assert load_checkpoint(saved).step == 12


@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
def test_a_truncated_empty_or_missing_file_is_refused_by_name(saved, file):
    whole = (saved / file).read_bytes()
    for length in {0, 1, len(whole) // 2, *range(0, len(whole) - 2, max(1, len(whole) // 100))}:
        (saved / file).write_bytes(whole[:length])
        refused(saved, file)
    (saved / file).unlink()
    refused(saved, file)


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", "null", '{"step": "x", "sha256": ""}', '{"step": 12, "sha256": null}', "[" * 200_000]
)
def test_a_strange_manifest_is_refused(saved, manifest):
    (saved / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match="damaged checkpoint"):
        load_checkpoint(saved)


def test_a_checkpoint_under_another_steps_name_is_refused(saved):
    refused(saved.rename(saved.with_name("step-00000013")), "manifest.json")


def test_a_pickle_in_its_place_is_not_executed(saved, tmp_path):
    """A file that torch.load would run, with a manifest that vouches for it."""
    from ovs_lite.files import file_digest

    (saved / "state.safetensors").write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "ran").encode())
    manifest = {"step": 12, "sha256": file_digest(saved / "state.safetensors")}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    refused(saved, "state.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="needs limits on the size of a file")
def test_a_full_disk_is_told_and_the_last_checkpoint_stays(tmp_path):
    done = warm.run("test_checkpoints.save_on_a_full_disk", tmp_path)
    assert done.returncode == 1 and "OSError" in done.stderr, done.stderr
    assert "step-00000002: not written" in done.stderr, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_checkpoint(latest_checkpoint(tmp_path)).step == 1


@pytest.mark.slow
@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.fault)])
def test_sigkill_while_saving_leaves_a_checkpoint_that_loads(tmp_path, kills):
    rng, step = random.Random(0), 0
    for _ in range(kills):
        with warm.Process("test_checkpoints.save_on_and_on", tmp_path, step) as process:
            while not process.said()[0]:
                assert process.poll() is None, process.said()
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            told = list(map(int, process.said()[0].split()))
        found = load_checkpoint(latest_checkpoint(tmp_path))
        assert found.step in (told[-1], told[-1] + 1), "what was reported as saved is there"
        assert torch.equal(found.tensors["w"], torch.full((400, 1000), float(found.step)))
        step = found.step
    assert step >= kills


def test_killed_at_any_file_operation_the_newest_complete_one_loads(tmp_path, monkeypatch):
    """Stop the save at each of its operations on the disk in turn, as a kill would: the folder is left as it is."""

    class Killed(BaseException):
        pass

    operations = ["mkdir", "unlink", "write_text"]
    points = 0
    for stop in range(200):
        folder = tmp_path / str(stop)
        for step in (1, 2):
            save_checkpoint(folder, step, {"w": torch.tensor(float(step))})
        calls = 0

        def counted(original, limit=stop):
            def call(*args, **options):
                nonlocal calls
                calls += 1
                if calls > limit:
                    raise Killed
                return original(*args, **options)

            return call

        with monkeypatch.context() as patch:
            for name in operations:
                patch.setattr(Path, name, counted(getattr(Path, name)))
            for owner, name in ((os, "replace"), (os, "fsync"), (shutil, "rmtree")):
                patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                save_checkpoint(folder, 3, {"w": torch.tensor(3.0)})
                break
            except Killed:
                points += 1
        found = load_checkpoint(latest_checkpoint(folder))
        assert found.step in (2, 3) and found.tensors["w"] == found.step
        save_checkpoint(folder, 4, {"w": torch.tensor(4.0)})
        assert load_checkpoint(latest_checkpoint(folder)).step == 4 and len(list(folder.iterdir())) == 2
    assert points >= 8
