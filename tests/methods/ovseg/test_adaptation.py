"""Adapting CLIP to masked crops: what learns, the contrast, repeated words, the orders of tuning, two processes."""

import json

import pytest
import torch

from kit.clips import tiny_clip
from kit.oracles.contrastive import slow_info_nce
from kit.ovseg import WORDS, gradients, make_ovseg, make_task, pairs, region_batch
from kit.processes import launch, load
from kit.proposers import make_proposer
from kit.records import scene, toy
from ovs_lite.checkpoints import save_method
from ovs_lite.config import override
from ovs_lite.data.record import write_split
from ovs_lite.methods import get_recipe
from ovs_lite.methods.ovseg import adaptation
from ovs_lite.methods.ovseg.adaptation import contrast
from ovs_lite.methods.ovseg.config import REPEATED, OVSegConfig
from ovs_lite.train import train
from ovs_lite.train.command import run_recipe


def state(method):
    return {key: value.clone() for key, value in method.network["clip"].state_dict().items()}


@pytest.mark.parametrize(
    ("tune", "prompts", "tower"), [("prompts", True, False), ("tower", False, True), ("both", True, True)]
)
def test_only_what_is_tuned_changes(tmp_path, tune, prompts, tower):
    method = make_ovseg(tune=tune, **{"loop.lr": 0.01})
    before, text = state(method), method.clip.text_embeddings(WORDS)
    segmenter = {key: value.clone() for key, value in method.network["segmenter"].state_dict().items()}
    train(make_task(method), method.config.loop, tmp_path, progress=False)
    changed = {key for key, value in state(method).items() if not torch.equal(value, before[key])}
    assert ("mask_embedding" in changed) == prompts
    assert bool(changed - {"mask_embedding"}) == tower
    assert torch.equal(method.clip.text_embeddings(WORDS), text)
    assert all(torch.equal(value, segmenter[key]) for key, value in method.network["segmenter"].state_dict().items())


def test_the_contrast_is_info_nce_of_regions_and_words():
    method = make_ovseg()
    task, batch = make_task(method), region_batch(["dog", "tree", "cat"])
    regions = method.prompted.encode_masked(method.prompted.normalise(batch.images), batch.masks)
    text = method.clip.text_embeddings(batch.words, "bare")
    expected = slow_info_nce((regions @ text.T).double(), method.clip.logit_scale.detach().double())
    assert float(task.losses(batch)["contrast"].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def repeated_words(kind, seed=0):
    """The contrast of five regions with three words, and its gradient by region."""
    draw = torch.Generator().manual_seed(seed)
    regions = torch.randn(5, 8, generator=draw, dtype=torch.float64).requires_grad_()
    texts, words = torch.randn(3, 8, generator=draw, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 0])
    loss = contrast(regions @ texts[words].T / 8, torch.tensor(1.5), words, kind)
    return loss.detach(), torch.autograd.grad(loss, regions)[0]


@pytest.mark.parametrize("seed", range(5))
def test_soft_targets_over_equal_words_are_the_released_loss(seed):
    for found, expected in zip(repeated_words("equal", seed), repeated_words("negatives", seed), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("seed", range(5))
def test_ignored_repetitions_are_in_no_denominator(seed):
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    words, total = [0, 1, 0, 2, 0], 0.0
    for lines in (similarity, similarity.T):
        for b, line in enumerate(lines):
            others = [line[c].exp() for c in range(5) if c == b or words[c] != words[b]]
            total += (sum(others) / line[b].exp()).log()
    found = contrast(similarity, torch.tensor(0.0), torch.tensor(words), "ignored")
    torch.testing.assert_close(found, total / 10)
    assert found < contrast(similarity, torch.tensor(0.0), torch.tensor(words))


def test_the_configuration_decides_what_repetitions_are():
    batch = region_batch(["dog", "cat", "dog"])
    found = {kind: float(make_task(repeated=kind).losses(batch)["contrast"].detach()) for kind in REPEATED}
    assert found["ignored"] < found["negatives"] == pytest.approx(found["equal"], rel=1e-5)


def test_training_lowers_the_contrast(tmp_path):
    method = make_ovseg(tune="both", **{"loop.lr": 0.01, "loop.steps": 30, "loop.warmup": 1, "loop.log_every": 1})
    rows = train(make_task(method, count=4), method.config.loop, tmp_path, progress=False)
    assert sum(row["loss"] for row in rows[-5:]) < sum(row["loss"] for row in rows[:5]) - 1


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A method with prompts of depth 2 and a tuned tower on disk, and the tiny CLIP for what is loaded by name."""
    clip = tiny_clip()
    monkeypatch.setattr(adaptation, "load_clip", lambda name, pretrained: clip)
    method = make_ovseg(depth=2, tune="both", **{"loop.lr": 0.01})
    train(make_task(method), method.config.loop, tmp_path / "run", progress=False)
    save_method(method, tmp_path / "ovseg.safetensors")
    return method, str(tmp_path / "ovseg.safetensors")


def test_a_run_starts_from_another_runs_tower_and_keeps_prompts_of_as_many_layers(saved):
    method, path = saved
    kept = adaptation.start(OVSegConfig(start=path, depth=2, tune="tower")).prompted
    assert torch.equal(kept.mask_embedding, method.prompted.mask_embedding.half().float())
    fresh = adaptation.start(OVSegConfig(start=path, depth=1)).prompted
    assert fresh.depth == 1 and not torch.equal(fresh.mask_embedding[0], kept.mask_embedding[0])
    assert adaptation.start(OVSegConfig(start=path, depth=1, last=True)).prompted.last
    for made in (kept, fresh):
        tower = method.prompted.network.visual.conv1.weight
        assert torch.equal(made.network.visual.conv1.weight, tower.half().float())
        assert not torch.equal(made.network.visual.conv1.weight, tiny_clip().network.visual.conv1.weight)


def test_proposals_that_say_nothing_of_classes_are_refused_with_the_command(tmp_path):
    make_proposer("openseg-proposals").save(tmp_path / "proposals.safetensors")
    with pytest.raises(ValueError, match="got proposals of openseg-proposals.* expected those of maskformer; train"):
        adaptation.start(OVSegConfig(segmenter=str(tmp_path / "proposals.safetensors")))


def test_a_split_without_pairs_is_refused_with_the_command(tmp_path, monkeypatch):
    write_split([toy("a", scene(20, 20))], tmp_path / "plain", progress=False)
    with pytest.raises(ValueError, match="expected pairs; mine pairs with: ovs-lite mine"):
        adaptation.build(OVSegConfig(data=str(tmp_path / "plain")))
    with pytest.raises(FileNotFoundError, match="none: no such pairs; mine pairs with: ovs-lite mine"):
        adaptation.build(OVSegConfig(data=str(tmp_path / "none")))


def test_build_reads_mined_pairs(tmp_path, saved):
    write_split(pairs(5), tmp_path / "pairs", columns="pairs", progress=False)
    task = adaptation.build(OVSegConfig(data=str(tmp_path / "pairs"), start=saved[1], depth=1, batch=4))
    assert task.found["pairs"] == 5 and task.found["words"] == len(WORDS)
    assert torch.isfinite(task.losses(task.batch(0))["contrast"])
    assert task.notes()[0].startswith(f"{task.model.mask_embedding.numel():,} of ")


@pytest.mark.parametrize("seed", [0, 3])
def test_a_training_starts_from_the_prompts_that_start_gives_after_the_same_seed(tmp_path, saved, seed):
    """So what untrained prompts do is measured with the very numbers that the training changes."""
    write_split(pairs(5), tmp_path / "pairs", columns="pairs", progress=False)
    config = OVSegConfig(data=str(tmp_path / "pairs"), start=saved[1], depth=1, batch=4)
    config = override(config, {"loop.steps": 1, "loop.seed": seed})
    path = run_recipe(get_recipe("ovseg"), config, tmp_path / "begun", progress=False).parent / "config.json"
    torch.manual_seed(seed)
    began = adaptation.start(config).prompted.image_fingerprint()
    assert json.loads(path.read_text())["found"]["start"] == began
    assert adaptation.start(config).prompted.image_fingerprint() != began, "other random numbers"


@pytest.mark.parametrize(
    "changes",
    [
        {"tune": "all"}, {"repeated": "no"}, {"depth": 0}, {"batch": 0}, {"margin": -1.0}, {"cut": 1.0},
        {"threshold": 1.5}, {"smallest": 0},
    ],
)  # fmt: skip
def test_settings_that_cannot_run_are_refused(changes):
    with pytest.raises(ValueError, match="got .*expected"):
        OVSegConfig(**changes)


def test_two_processes_train_as_one(tmp_path):
    done = launch("kit.ovseg.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = load(tmp_path)
    for kind in REPEATED:
        alone = gradients(make_task(tune="both", repeated=kind, batch=6))
        assert first[kind].keys() == alone.keys() and "mask_embedding" in alone
        for name, value in alone.items():
            assert torch.equal(first[kind][name], second[kind][name])
            torch.testing.assert_close(first[kind][name], value, atol=1e-6, rtol=1e-3)
