"""`ovs-lite train tcl`: what a run leaves, the same bits after a crash, shards, the step that unfreezes; flags."""

import json
import shlex
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from ovs_lite.train.old_tcl import (
    EXAMPLE,
    WEIGHTS_FILE,
    build_parser,
    loop_config,
    pair_batches,
    tcl_config,
    tcl_task,
    training_pairs,
)
from safetensors import safe_open
from safetensors.torch import load_file
from test_train_proposals import Crash, assert_same_bits, rows

import ovs_lite
from kit.tcl import pairs, write_shard
from ovs_lite import cli
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint, load_method
from ovs_lite.clip import load_clip
from ovs_lite.config import PROFILES, TclConfig, get_profile
from ovs_lite.data.loaders.pair_batches import PairBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import write_split
from ovs_lite.iconworld.build import split_folder
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.methods.tcl.training import WEIGHTS
from ovs_lite.train import COMMANDS, LoopConfig, main

SMALL = "--profile smoke --steps 4 --batch 3 --unfreeze 0.5 --warmup 1 --threads 1"
TERMS = ["image", "feature", "area", "smooth"]
NUMBERS = [item.name for item in fields(TclConfig) if item.type in (int, float)]


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """Seven pairs where the smoke profile's icon-caption would lie; their folder."""
    root = tmp_path_factory.mktemp("data")
    folder = split_folder(root, get_profile("smoke").data, "icon-caption", "train")
    write_split(pairs(7), folder, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVS_DATA", str(root))
        yield folder


def run(out, *words, crash_after=None):
    """Weights that the command left, and every step's row."""
    seen = []

    def on_step(step, row):
        seen.append(row)
        if step == crash_after:
            raise Crash

    main(["tcl", *SMALL.split(), "--out", str(out), *map(str, words)], on_step)
    return load_file(out / WEIGHTS_FILE), seen


def task_of(count, config, seed=0, accumulation=1):
    return tcl_task(load_clip(), pair_batches(pairs(count), config, seed), config, accumulation)


def untrained():
    """Tensors of a grounder as seed 0 starts it."""
    torch.manual_seed(0)
    return Tcl(load_clip()).grounder.state_dict()


def moved(tensors):
    """Which of block and decoder are no longer as they started."""
    start = untrained()
    changed = {name for name, value in tensors.items() if not torch.equal(value.float(), start[name].half().float())}
    return {part for part in ("block", "decoder") if any(name.startswith(part) for name in changed)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(run folder, weights, every step's row) of four steps without an interruption, the last two with the block."""
    out = tmp_path_factory.mktemp("whole")
    return out, *run(out)


def test_a_run_leaves_weights_that_load_and_a_log_of_all_terms(whole):
    out, tensors, seen = whole
    assert [row["step"] for row in rows(out)] == [0, 3] and [row["step"] for row in seen] == [0, 1, 2, 3]
    for row in rows(out):
        assert list(row) == ["step", *TERMS, "loss", "grad_norm", "lr"]
        assert row["loss"] == pytest.approx(sum(WEIGHTS[name] * row[name] for name in TERMS), abs=1e-5)
    with safe_open(out / WEIGHTS_FILE, "pt") as file:
        about = file.metadata()
    assert about.items() >= {"method": "tcl", "clip": "ViT-Lite-8", "steps": "4", "seed": "0"}.items()
    method = load_method("tcl", load_clip(), out / WEIGHTS_FILE)
    assert_same_bits({name: value.half() for name, value in method.grounder.state_dict().items()}, tensors)
    final = load_checkpoint(latest_checkpoint(out / "checkpoints")).tensors
    assert_same_bits(tensors, {name: final[f"model.{name}"].half() for name in tensors})
    result = ovs_lite.load("tcl", checkpoint=out / WEIGHTS_FILE).segment(pairs(1)[0]["image"], "a red block, night")
    assert result.logits.shape == (2, 64, 64) and np.isfinite(result.logits).all()
    assert moved(tensors) == {"block", "decoder"}
    settings = {"steps": 4, "warmup": 1, "lr": 5e-3, "weight_decay": 0.05, "clip": 5.0, "muon_lr": 0.0, "seed": 0}
    assert json.loads((out / "loop.json").read_text()).items() >= settings.items()


def test_the_same_command_again_changes_nothing(whole, capsys):
    out, tensors, _ = whole
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.name != WEIGHTS_FILE}
    assert_same_bits(run(out)[0], tensors)
    assert before == {path: path.read_bytes() for path in out.rglob("*.*") if path.name != WEIGHTS_FILE}
    assert f"wrote {out / WEIGHTS_FILE}; last loss unchanged" in capsys.readouterr().out


def test_another_training_is_not_mistaken_for_the_one_in_the_folder(whole, tmp_path):
    run(tmp_path, "--steps", 1)
    before = (tmp_path / WEIGHTS_FILE).read_bytes()
    for words, message in ((["--area", 0], "area 0.4 -> 0.0"), (["--positive-area", 0.2], "positive_area 0.4 -> 0.2")):
        with pytest.raises(ValueError, match=f"other settings: {message}; choose another run folder or --fresh"):
            run(tmp_path, "--steps", 1, *words)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == before


@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_crash_and_the_same_command_again_give_the_same_bits(last, whole, tmp_path):
    """Before the block is unfrozen, at that very step, and after it."""
    out, tensors, seen = whole
    with pytest.raises(Crash):
        run(tmp_path, "--checkpoint-every", 1, crash_after=last + 1)
    done = latest_checkpoint(tmp_path / "checkpoints")
    assert not (tmp_path / WEIGHTS_FILE).exists() and load_checkpoint(done).step == last + 1
    torch.manual_seed(99)
    found, rest = run(tmp_path, "--checkpoint-every", 1)
    assert_same_bits(found, tensors)
    assert [row["loss"] for row in rest] == [row["loss"] for row in seen[last + 1 :]] and rows(tmp_path) == rows(out)


def test_more_steps_go_on_and_fresh_starts_over(whole, tmp_path):
    tensors, _ = run(tmp_path, "--steps", 1, "--unfreeze", 1)
    assert moved(tensors) == {"decoder"}, "1 is never"
    with pytest.warns(UserWarning, match="steps 1 -> 2"):
        _, seen = run(tmp_path, "--steps", 2)
    assert [row["step"] for row in seen] == [1] and [row["step"] for row in rows(tmp_path)] == [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again, _ = run(tmp_path, "--fresh")
    assert_same_bits(again, whole[1])


def test_the_seed_is_that_of_weights_batches_and_loop(whole, tmp_path):
    """An untrained decoder changes nothing, so that the first step's areas are another batch's."""
    tensors, (first, *_) = run(tmp_path, "--steps", 1, "--seed", 1)
    name = "decoder.stages.0.1.conv.weight"
    assert (tensors[name] - whole[1][name]).abs().mean() > 0.01 and first["area"] != whole[2][0]["area"]
    assert json.loads((tmp_path / "loop.json").read_text())["seed"] == 1


def test_threads_and_precision_are_those_given(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    run(tmp_path, "--steps", 1, "--threads", 3, "--precision", "bf16")
    assert seen[0] == 3 and json.loads((tmp_path / "loop.json").read_text())["precision"] == "bf16"


def test_accumulation_counts_steps_until_the_block_is_unfrozen(tmp_path):
    """Two steps of two batches each: the block rests in the first step's batches 0 and 1."""
    run(tmp_path, "--steps", 2, "--accumulation", 2, "--checkpoint-every", 1)
    start, states = untrained(), [load_checkpoint(path) for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert [state.step for state in states] == [1, 2]
    for name in start:
        first, second = (state.tensors[f"model.{name}"] for state in states)
        assert torch.equal(first, start[name]) or not name.startswith("block"), name
        assert not torch.equal(second, first) or name.startswith("decoder"), "open gates let the decoder learn, later"
    assert not torch.equal(states[0].tensors["model.proj"], start["proj"])


def test_shards_take_the_place_of_a_prepared_split(tmp_path, capsys, monkeypatch):
    """Every pair is met in the first epoch, the two without a text too; a shard that is none is left out."""
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "nowhere"))
    for number in (0, 1):
        write_shard(tmp_path / f"{number:05d}.tar", 4)
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    given = ["--shards", tmp_path / "{00000..00001}.tar", tmp_path / "b*.tar"]
    tensors, seen = run(tmp_path / "a", *given)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"wrote {tmp_path / 'a' / WEIGHTS_FILE}; last loss 0.")
    assert told[1] == "8 pairs in 2 shards, 1 bad shards left out; 2 bad pairs met by this process"
    assert moved(tensors) == {"block", "decoder"} and len(seen) == 4
    assert_same_bits(run(tmp_path / "b", *given)[0], tensors)


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        ("--area 0", {"image", "feature", "smooth"}),
        ("--image 0 --feature 0 --area 0 --smooth 0 --contrastive 1", {"contrastive"}),
    ],
)
def test_a_weight_of_0_drops_its_term(words, terms, tmp_path):
    _, (row,) = run(tmp_path, "--steps", 1, *words.split())
    assert row.keys() == terms | {"step", "loss", "grad_norm", "lr", "images_per_s"}


@pytest.mark.parametrize("name", PROFILES)
def test_flags_override_the_profile_and_nothing_else(name):
    profile = get_profile(name)
    assert tcl_config(profile, build_parser().parse_args([])) == profile.tcl
    for number, part in enumerate(NUMBERS):
        value = type(getattr(profile.tcl, part))((number + 2) / (1 if part in ("steps", "batch") else 1000))
        value = value or 7  # of whole numbers
        args = build_parser().parse_args([f"--{part.replace('_', '-')}", str(value)])
        assert tcl_config(profile, args) == replace(profile.tcl, **{part: value}) != profile.tcl, part
    args = build_parser().parse_args(["--augment", "timm", "--area", "0"])
    assert tcl_config(profile, args) == replace(profile.tcl, augment="timm", area=0.0)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_a_training_that_can_run(name):
    profile = get_profile(name)
    config, side = profile.tcl, {"ViT-Lite-8": 64, "ViT-B-16": 224}[profile.clip.vit]
    assert isinstance(config, TclConfig) and config.image_size == side
    assert {term: getattr(config, term) for term in WEIGHTS} == WEIGHTS
    assert (config.positive_area, config.negative_area, config.unfreeze) == (0.4, 0.0, 0.6)
    loop = loop_config(config, seed=3, accumulation=2)
    assert (loop.clip, loop.seed, loop.accumulation, loop.muon_lr, loop.ema) == (config.clip_norm, 3, 2, 0.0, 0.0)
    shared = {item.name for item in fields(TclConfig)} & {item.name for item in fields(LoopConfig)}
    assert len(shared) == 4 and all(getattr(loop, part) == getattr(config, part) for part in shared)
    assert config.warmup < config.steps or name == "smoke"


def test_the_paper_profile_has_the_released_numbers():
    config = get_profile("paper").tcl
    assert (config.batch, config.steps, config.warmup, config.lr) == (1024, 50_000, 15_000, 7.5e-5)
    assert (config.weight_decay, config.clip_norm, config.augment, config.scale) == (0.05, 5.0, "timm", (0.08, 1.0))
    task = task_of(2, config)
    assert task.unfreeze_batch == 30_000 and isinstance(task.batches, PairBatches) and task.batches.workers > 0


@pytest.mark.parametrize(
    ("unfreeze", "steps", "accumulation", "batch"),
    [(0.6, 60, 1, 36), (0.6, 60, 4, 144), (0.5, 3, 3, 6), (0.0, 9, 2, 0), (1.0, 60, 4, None)],
)
def test_a_share_of_the_steps_becomes_a_batch(unfreeze, steps, accumulation, batch):
    task = task_of(2, TclConfig(unfreeze=unfreeze, steps=steps, batch=2), accumulation=accumulation)
    assert task.unfreeze_batch == batch and task.batch(0).train_block == (batch == 0)


def test_the_task_draws_the_configured_batches():
    config = TclConfig(batch=3, image_size=32, scale=(1.0, 1.0), positive_area=0.2, negative_area=0.1, area=3.0)
    task = task_of(7, config, seed=2)
    batch = task.batch(1).pairs
    assert batch.images.shape == (3, 3, 32, 32) and isinstance(task.batches, Prefetched)
    assert task.priors == (0.2, 0.1) and task.weights == WEIGHTS | {"area": 3.0}
    wholes = {record["image_id"]: torch.from_numpy(record["image"]).permute(2, 0, 1) / 255 for record in pairs(7)}
    for name, image in zip(batch.image_ids, batch.images, strict=True):
        whole = torch.nn.functional.avg_pool2d(wholes[name], 2)
        assert min((whole - other).abs().mean() for other in (image, image.flip(-1))) < 0.05, "scale 1 cuts nothing"
    for other, same in ((2, True), (3, False)):
        again = task_of(7, config, other).batch(1).pairs
        assert torch.equal(again.images, batch.images) == same


@pytest.mark.parametrize(("augment", "workers"), [("timm", 0), ("crop", 1)])
def test_what_draws_globally_or_has_workers_is_not_prepared_in_a_thread(augment, workers):
    config = TclConfig(batch=2, augment=augment, workers=workers)
    task = task_of(3, config)
    assert isinstance(task.batches, PairBatches) and task.batches.workers == workers
    expected = PairBatches(pairs(3), 2, 64, 0, config.scale, augment=augment)(0)
    assert torch.equal(task.batch(0).pairs.images, expected.images)


@pytest.mark.parametrize("words", [["openseg"], ["--steps", "many"], ["--scale", "1"], ["--profile", "big"]])
def test_words_that_are_not_understood_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "tcl", *words])
    assert stopped.value.code == 2 and "ovs-lite train tcl: error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data nowhere", "no folder"),
        ("--shards nowhere.tar", "no shard at"),
        ("--steps 0", "expected positive sizes"),
        ("--batch 0", "expected positive sizes"),
        ("--unfreeze 1.5", "unfreeze in [0, 1]"),
        ("--image-size 60", "got image_size=60, expected a multiple of the CLIP's patch, 8 pixels"),
        ("--workers -1", "workers=-1"),
        ("--augment cutout", "got augment='cutout', expected one of crop, timm"),
        ("--image 0 --feature 0 --area 0 --smooth 0", "not all 0"),
        ("--area -1", "none negative"),
        ("--accumulation 0", "got accumulation=0"),
        ("--clip ConvNeXt-Lite", "got image tower TimmModel, expected open_clip's ViT"),
        ("--clip ViT-Lite-9", "got CLIP model 'ViT-Lite-9'"),
        ("--pretrained nothing", "nothing: no such checkpoint"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, tmp_path, capsys):
    given = ["train", "tcl", *SMALL.split(), "--out", str(tmp_path / "run"), *words.split()]
    assert cli.main(given) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("ovs-lite: ") and message in told[0]
    assert not (tmp_path / "run").exists()


def test_the_help_has_examples_that_parse(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "tcl", "--help"])
    assert end.value.code == 0 and "examples:\n  ovs-lite train tcl" in capsys.readouterr().out
    examples = [line.split(" tcl ")[1] for line in EXAMPLE.splitlines() if line.startswith("  ")]
    parsed = [build_parser().parse_args(shlex.split(words)) for words in examples]
    assert len([tcl_config(get_profile(args.profile), args) for args in parsed]) == 3
    assert cli.FORWARDED["train", "tcl"] == COMMANDS["tcl"] == "ovs_lite.train.old_tcl"


def test_the_profiles_shards_lie_below_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path))
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="cc3m"):
        training_pairs(PROFILES["paper"])
    for number, name in enumerate(("cc3m", "cc12m")):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "00000.tar", 2 + number)
    assert len(training_pairs(PROFILES["paper"])) == 5
    assert len(training_pairs(PROFILES["paper"], [str(tmp_path / "cc3m" / "*.tar")])) == 2
    with pytest.raises(FileNotFoundError, match="ovs-lite data build"):
        training_pairs(PROFILES["lite"])


def test_two_sources_of_pairs_are_one_too_many(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--data", "somewhere", "--shards", "a.tar"])
    assert "not allowed with argument --data" in capsys.readouterr().err
