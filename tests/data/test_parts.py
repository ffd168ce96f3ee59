"""Jobs of an array: the same bytes whatever their number and order, missing ones named, no lock, nothing done twice."""

import errno
import io
import signal

import numpy as np
import pytest
from PIL import Image

from kit.records import scene, toy
from ovs_lite import cli, locks
from ovs_lite.clip import load_clip
from ovs_lite.commands import mine
from ovs_lite.data import parts
from ovs_lite.data.parts import Share, write_in_parts
from ovs_lite.data.record import iter_encoded, load_split, write_split
from ovs_lite.files import file_digest
from ovs_lite.methods.refinement import write_refined

COUNT = 10


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART", 3)


def made(numbers, seen=None):
    """None of the source 4, two of the source 5, one of each other."""
    for number in numbers:
        if seen is not None:
            seen.append(number)
        for copy in range({4: 0, 5: 2}.get(number, 1)):
            yield toy(f"p{number}-{copy}", scene(20 + number, 24))


def write(folder, share=None, make=made, **creator):
    return write_in_parts(folder, make, COUNT, {"by": "test"} | creator, "segments", False, "toys", share)


def content(folder):
    return {path.name: file_digest(path) for path in folder.iterdir()}


@pytest.mark.parametrize("jobs", [1, 2, 3, 4, 7])
def test_the_merge_of_any_number_of_jobs_is_what_one_process_writes(tmp_path, jobs):
    assert write(tmp_path / "one" / "out") and load_split(tmp_path / "one" / "out")["image_id"][4:6] == ["p5-0", "p5-1"]
    seen = []
    for job in reversed(range(1, jobs + 1)):
        assert not write(tmp_path / "many" / "out", Share(job, jobs), lambda numbers: made(numbers, seen))
    assert sorted(seen) == list(range(COUNT)), "each source by one job"
    assert not (tmp_path / "many" / "out").exists() and write(tmp_path / "many" / "out", Share(0, jobs), None)
    assert (
        content(tmp_path / "many" / "out") == content(tmp_path / "one" / "out")
        and len(content(tmp_path / "one" / "out")) == 4
    )
    assert [path.name for path in (tmp_path / "many").iterdir()] == ["out"], "nothing else remains"


def test_a_missing_job_is_named_and_nothing_is_written(tmp_path):
    for job in (1, 3):
        write(tmp_path / "out", Share(job, 4))
    with pytest.raises(FileNotFoundError, match=r"parts of 2 of 4 jobs .*; missing: --part 2/4, 4/4; run these again"):
        write(tmp_path / "out", Share(0, 4))
    with pytest.raises(FileNotFoundError, match=r"parts of 0 of 4 jobs"):
        write(tmp_path / "out", Share(0, 4), by="other settings")
    assert not (tmp_path / "out").exists()
    write(tmp_path / "out", Share(2, 4))
    write(tmp_path / "out", Share(4, 4))
    assert write(tmp_path / "out", Share(0, 4), None)


def test_twice_does_nothing_and_a_killed_job_resumes(tmp_path):
    def stops(numbers):
        if 9 in numbers:
            raise KeyboardInterrupt
        return made(numbers)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", Share(2, 2), stops)
    seen = []
    for _ in range(2):
        assert not write(tmp_path / "out", Share(2, 2), lambda numbers: made(numbers, seen))
    assert seen == [9], "3, 4 and 5 were made"
    write(tmp_path / "out", Share(1, 2))
    for share in (Share(0, 2), Share(0, 2), Share(1, 2)):
        assert write(tmp_path / "out", share, None), "complete: whichever job comes again"
    with pytest.raises(FileExistsError, match="other settings"):
        write(tmp_path / "out", Share(1, 2), by="another")


@pytest.mark.parametrize("share", [None, Share(1, 1)], ids=["by locks", "a job"])
def test_a_signal_ends_after_the_part_and_the_same_call_makes_the_rest(tmp_path, share, capsys):
    def signalled(numbers):
        if 3 in numbers:
            signal.raise_signal(signal.SIGTERM)
        return made(numbers, seen)

    seen, before = [], signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        write(tmp_path / "out", share, signalled)
    assert end.value.code == 0 and seen == list(range(6)) and signal.getsignal(signal.SIGTERM) is before
    assert "resumes with the parts that are made" in capsys.readouterr().err
    write(tmp_path / "out", share, lambda numbers: made(numbers, seen))
    assert seen == list(range(COUNT))
    write(tmp_path / "one" / "out")
    assert share or content(tmp_path / "out") == content(tmp_path / "one" / "out")


def test_a_signal_while_a_command_loads_its_models_ends_it_before_the_first_part(tmp_path, monkeypatch, capsys):
    def loads(*_):
        signal.raise_signal(signal.SIGTERM)
        return load_clip()

    write_split([toy("p", scene(24, 30)) | {"captions": ["a dog"]}], tmp_path / "source", progress=False)
    monkeypatch.setattr(mine, "load_clip", loads)
    with pytest.raises(SystemExit) as end:
        cli.main(["mine", str(tmp_path / "source"), "--out", str(tmp_path / "out")])
    assert end.value.code == 0 and "resumes with the parts" in capsys.readouterr().err
    assert not list(tmp_path.glob("**/manifest.json"))[1:], "only the source is there"
    monkeypatch.undo()
    monkeypatch.setattr(parts, "PART", 3)
    assert cli.main(["mine", str(tmp_path / "source"), "--out", str(tmp_path / "out")]) == 0


def test_no_lock_is_needed(tmp_path, monkeypatch, recwarn):
    def none(stream):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", none)
    for job in (1, 2):
        write(tmp_path / "out", Share(job, 2))
    assert not [warning for warning in recwarn if "no locks there" in str(warning.message)]
    write(tmp_path / "one" / "out")
    assert any("no locks there" in str(warning.message) for warning in recwarn), "one that shares by locks says so"
    assert write(tmp_path / "out", Share(0, 2)) and content(tmp_path / "out") == content(tmp_path / "one" / "out")


@pytest.mark.parametrize(
    "words", [("--part", "0/4"), ("--part", "5/4"), ("--part", "3"), ("--part", "-1/2"), ("--merge", "0")]
)
def test_a_job_that_cannot_be_is_refused_before_anything_is_loaded(words, capsys):
    assert cli.main(["mine", "nowhere", "--out", "x", "=".join(words)]) == 2
    assert "expected K/N with K from 1 to N" in capsys.readouterr().err


def test_mining_and_refining_in_jobs_give_the_same_bytes(tmp_path, capsys):
    said = ["a dog and a cat", "a tree and a cat", "a dog", "the sky", "a cat on the grass", "a dog", "a red boat"]
    records = [toy(f"p{i}", scene(24 + i, 30)) | {"captions": [text]} for i, text in enumerate(said)]
    write_split(records, tmp_path / "source", progress=False)
    for command, *options in (["mine"], ["refine", "--often", "1", "--tagger", "shipped"]):
        words = [command, str(tmp_path / "source"), *options, "--out"]
        one, many = (tmp_path / command / name / "out" for name in ("one", "many"))
        assert cli.main([*words, str(one)]) == 0
        assert cli.main([*words, str(many), "--part", "2/2"]) == 0
        assert "made part 2/2" in capsys.readouterr().out
        assert cli.main([*words, str(many), "--merge", "2"]) == 2
        assert "missing: --part 1/2;" in capsys.readouterr().err
        for last in (["--part", "1/2"], ["--merge", "2"], ["--merge", "2"]):
            assert cli.main([*words, str(many), *last]) == 0
        assert content(many) == content(one)


def test_a_jpeg_stays_the_jpeg_that_it_is(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)).save(stream, "JPEG")
    record = toy("j", scene(24, 24)) | {"image": stream.getvalue(), "captions": ["a dog"]}
    write_split([record], tmp_path / "source", progress=False)

    class Same:
        name = "same"

        def refine(self, images, captions):
            assert images[0].mode == "RGB"
            return captions

    assert write_refined(tmp_path / "source", tmp_path / "out", Same(), progress=False)
    (found,) = iter_encoded(load_split(tmp_path / "out"))
    assert found["image"] == stream.getvalue()
