"""`ovs-lite train proposals`: both kinds leave a file that loads, a rerun is idle, a crash changes no bit; flags."""

import json
import warnings
from dataclasses import fields, replace

import pytest
import torch
from ovs_lite.train.old_proposals import (
    WEIGHTS,
    build_parser,
    class_embeddings,
    loop_config,
    proposal_config,
    proposal_task,
)
from safetensors.torch import load_file

from kit.proposer import make_proposer, noise
from ovs_lite import cli
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.clip import load_clip
from ovs_lite.config import PROFILES, ProposalConfig, get_profile
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.iconworld.build import build_set, split_folder
from ovs_lite.methods.proposer import KINDS, load_proposer, new_proposer
from ovs_lite.train import LoopConfig, main

SMALL = "--profile smoke --steps 3 --batch 2 --channels 16 --queries 6 --layers 1 --heads 2 --image-size 64 --threads 1"
TERMS = {"openseg": {"best_match_dice"}, "maskformer": {"class", "focal", "dice"}}


class Crash(Exception):
    """What stands for a kill inside this process."""


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """Smoke-size icon-coco; the training split's folder."""
    root = tmp_path_factory.mktemp("data")
    build_set("icon-coco", get_profile("smoke").data, root, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVS_DATA", str(root))
        yield split_folder(root, get_profile("smoke").data, "icon-coco", "train")


def run(kind, out, *words, crash_after=None):
    def on_step(step, row):
        if step == crash_after:
            raise Crash

    main(["proposals", kind, *SMALL.split(), "--out", str(out), *map(str, words)], on_step)
    return load_file(out / WEIGHTS)


def rows(out):
    """The log without its speed, the one thing that may differ."""
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "images_per_s"} for row in found]


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """(kind, run folder, weights) of three steps without an interruption."""
    out = tmp_path_factory.mktemp(request.param)
    return request.param, out, run(request.param, out)


def test_a_run_leaves_a_proposer_that_loads(whole):
    kind, out, tensors = whole
    proposer = load_proposer(out / WEIGHTS)
    assert proposer.kind == kind and proposer.propose(noise(50, 40)).shape == (6, 50, 40)
    given = {"steps": 3, "batch": 2, "channels": 16, "queries": 6, "layers": 1, "heads": 2, "image_size": 64}
    assert proposer.config == replace(getattr(get_profile("smoke"), kind), **given)
    assert [row["step"] for row in rows(out)] == [0, 2]
    assert all(row.keys() == {"step", "loss", "lr", "grad_norm"} | TERMS[kind] for row in rows(out))
    settings = json.loads((out / "loop.json").read_text())
    assert settings["clip"] == proposer.config.clip_norm and settings["weight_decay"] == 1e-5
    torch.manual_seed(0)
    classes = tensors["classes"] if kind == "maskformer" else None
    fresh = new_proposer(kind, proposer.config, classes).network.state_dict()
    assert sum(not torch.equal(tensors[f"network.{name}"], value) for name, value in fresh.items()) > len(fresh) / 2


def test_the_same_command_again_changes_nothing(whole, capsys):
    kind, out, tensors = whole
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.name != WEIGHTS}
    assert_same_bits(run(kind, out), tensors)
    assert before == {path: path.read_bytes() for path in out.rglob("*.*") if path.name != WEIGHTS}
    assert f"wrote {out / WEIGHTS}; last loss unchanged" in capsys.readouterr().out


def test_a_crash_and_the_same_command_again_give_the_same_bits(whole, tmp_path):
    kind, out, tensors = whole
    with pytest.raises(Crash):
        run(kind, tmp_path, "--checkpoint-every", 1, crash_after=1)
    assert not (tmp_path / WEIGHTS).exists() and load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).step == 1
    torch.manual_seed(99)
    assert_same_bits(run(kind, tmp_path, "--checkpoint-every", 1), tensors)
    assert rows(tmp_path) == rows(out)


def test_more_steps_go_on_and_fresh_starts_over(tmp_path, capsys):
    run("openseg", tmp_path)
    with pytest.warns(UserWarning, match="steps 3 -> 4"):
        run("openseg", tmp_path, "--steps", 4)
    assert [row["step"] for row in rows(tmp_path)] == [0, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = run("openseg", tmp_path, "--steps", 2, "--fresh")
    assert [row["step"] for row in rows(tmp_path)] == [0, 1]
    assert not torch.equal(
        again["network.to_mask.bias"], run("openseg", tmp_path / "b", "--seed", 1)["network.to_mask.bias"]
    )


def test_with_ema_the_file_holds_the_average(tmp_path):
    tensors = run("openseg", tmp_path, "--ema", 0.5)
    state = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).tensors
    name = "to_mask.weight"
    assert torch.equal(tensors[f"network.{name}"], state[f"average.module.{name}"])
    assert not torch.equal(tensors[f"network.{name}"], state[f"model.{name}"])


def test_a_run_folder_of_the_other_kind_is_refused(whole):
    kind, out, _ = whole
    with pytest.raises(ValueError, match="with other settings: kind .*; choose another run folder"):
        run(KINDS[1 - KINDS.index(kind)], out)


def test_maskformers_classes_are_the_vocabularys_names_in_order():
    clip, names = load_clip("ViT-Lite-8"), load_vocabulary("icon-coco").names
    found = class_embeddings("icon-coco", clip)
    assert found.shape == (len(names), clip.embed_dim)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(names)))
    for place in (0, 7, len(names) - 1):
        torch.testing.assert_close(found[place], clip.text_embeddings([names[place]])[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per", ["segment", "class"])
def test_the_task_draws_the_configured_batches(kind, per, world):
    proposer = make_proposer(kind, batch=3, image_size=48, scale=(0.3, 0.3), per=per)
    task = proposal_task(proposer, load_split(world), seed=2)
    batch = task.batch(0)
    assert batch.images.shape == (3, 3, 48, 48) and set(task.weights) == TERMS[kind]
    assert all(len(labels.unique()) == len(labels) for labels in batch.labels) or per == "segment"
    corners = proposer.normalise(batch.images)[:, :, (0, 0, -1, -1), (0, -1, 0, -1)]
    assert (corners.abs().amax(1) < 1e-5).any(1).all(), "what is missing has the mean colour"
    assert torch.equal(batch.images, proposal_task(proposer, load_split(world), seed=2).batch(0).images)
    assert not torch.equal(batch.images, proposal_task(proposer, load_split(world), seed=3).batch(0).images)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROFILES)
def test_flags_override_the_profile_and_nothing_else(kind, name):
    profile = get_profile(name)
    config = getattr(profile, kind)
    assert proposal_config(profile, kind) == proposal_config(profile, kind, build_parser().parse_args([kind])) == config
    words = "--lr 0.5 --clip-norm 2 --backbone resnet50 --warmup 0 --per class --schedule step".split()
    args = build_parser().parse_args([kind, *words])
    given = {"lr": 0.5, "clip_norm": 2.0, "backbone": "resnet50", "warmup": 0, "per": "class", "schedule": "step"}
    assert proposal_config(profile, kind, args) == replace(config, **given)


def test_the_paper_profile_has_the_papers_numbers():
    openseg, maskformer = get_profile("paper").openseg, get_profile("paper").maskformer
    assert (openseg.queries, openseg.image_size, openseg.scale, openseg.channels) == (128, 640, (0.8, 1.2), 640)
    assert (openseg.lr, openseg.batch, openseg.steps, openseg.schedule) == (0.005, 1024, 30_000, "cosine")
    assert (openseg.per, openseg.weight_decay, openseg.backbone) == ("segment", 1e-5, "tf_efficientnet_b7.ns_jft_in1k")
    assert (maskformer.queries, maskformer.image_size, maskformer.per) == (100, 640, "class")
    assert (maskformer.lr, maskformer.batch, maskformer.steps, maskformer.schedule) == (6e-5, 32, 120_000, "poly")
    assert (maskformer.weight_decay, maskformer.clip_norm, maskformer.warmup) == (0.01, 0.01, 1500)
    assert maskformer.backbone.startswith("swin_base") and openseg.pretrained and maskformer.pretrained
    assert openseg.muon_lr == maskformer.muon_lr == 0, "no Muon in either paper"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_run_its_loop(kind, name):
    config = getattr(get_profile(name), kind)
    loop = loop_config(config, seed=3, accumulation=2)
    assert (loop.clip, loop.seed, loop.accumulation, loop.ema) == (config.clip_norm, 3, 2, 0.0)
    shared = {item.name for item in fields(ProposalConfig)} & {item.name for item in fields(LoopConfig)}
    assert len(shared) == 7 and all(getattr(loop, part) == getattr(config, part) for part in shared)
    assert config.warmup <= config.steps or name == "smoke"
    if name != "paper":
        proposer = make_proposer(kind, **{item.name: getattr(config, item.name) for item in fields(config)})
        assert proposer.propose(noise(40, 24)).shape == (config.queries, 40, 24) and not config.pretrained


@pytest.mark.parametrize("words", [["mask2former"], [], ["openseg", "--scale", "1"], ["openseg", "--steps", "many"]])
def test_words_that_are_not_understood_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(words)
    assert stopped.value.code == 2 and "ovs-lite train proposals: error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "build it with: ovs-lite data build"),
        (["--steps", "0"], "got steps=0"),
        (["--schedule", "cosin"], "got schedule='cosin'"),
        (["--per", "thing"], "got per='thing', expected one of segment, class"),
        (["--backbone", "resnet"], "got backbone 'resnet'"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, tmp_path, capsys):
    assert cli.main(["train", "proposals", "openseg", *SMALL.split(), "--out", str(tmp_path), *words]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("ovs-lite: ") and message in told and not (tmp_path / WEIGHTS).exists()


def test_the_help_has_examples(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "proposals", "--help"])
    assert end.value.code == 0 and "examples:\n  ovs-lite train proposals openseg" in capsys.readouterr().out
