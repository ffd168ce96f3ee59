"""OpenSeg's training: terms are the two losses, words and their absence, two processes, what decides a run."""

import math

import pytest
import torch

from kit.openseg import BATCHES, WORDS, gradients, lseg_task, openseg_task, share, word_batch
from kit.oracles.grounding import slow_grounding_loss
from kit.processes import launch, load
from ovs_lite.clip.lite.files import shipped_path
from ovs_lite.data.loaders.mask_batches import MaskBatch
from ovs_lite.data.record import write_split
from ovs_lite.files import file_digest
from ovs_lite.losses.masks import best_match_dice_loss
from ovs_lite.methods import get_recipe
from ovs_lite.methods.openseg.config import OpenSegConfig
from ovs_lite.methods.openseg.method import OpenSeg
from ovs_lite.methods.openseg.proposal_training import covered_share
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.openseg.training import OpenSegTraining
from ovs_lite.methods.proposer import ProposalConfig
from ovs_lite.tensors import read_tensors, write_tensors

SIZES = {"backbone": "test_convnext", "channels": 16, "queries": 4, "layers": 1, "heads": 2, "image_size": 32}


def test_terms_are_eq_4_and_eq_1_of_what_the_network_sees():
    task, batch = openseg_task(), word_batch(2, 0, 3, 1)
    logits, pixels = task.model(batch.images)
    masks = logits.sigmoid().detach()
    regions = torch.einsum("bnhw,bdhw->bnd", masks, pixels).detach()
    words, valid = task.words.padded(batch.words, 3)
    assert valid.sum(1).tolist() == [3, 0, 1, 2]
    assert torch.equal(words[0, 1], task.method.clip.text_embeddings(["red"], "bare")[0])
    found = {name: value.item() for name, value in task.losses(batch).items()}
    expected = slow_grounding_loss(regions, words, valid, 0.07)
    assert found["grounding"] == pytest.approx(expected, rel=1e-4)
    targets = [covered_share(some, (8, 8)) for some in batch.masks]
    assert found["best_match_dice"] == pytest.approx(float(best_match_dice_loss(masks, targets)), rel=1e-5)
    assert task.weights == {"grounding": 1.0, "best_match_dice": 4.0}


def test_words_teach_the_masks_too_unless_pooling_is_hard():
    found = {}
    for pooling in ("sum", "hard"):
        task = openseg_task(alpha=0.0, pooling=pooling)
        assert task.losses(word_batch(2, 1)).keys() == {"grounding"}, "alpha = 0: no mask is shown"
        found[pooling] = gradients(task, word_batch(2, 1, 1))
    decoder = "proposer.network.to_mask.weight"
    assert found["sum"][decoder].abs().sum() > 0
    assert decoder not in found["hard"] or found["hard"][decoder].abs().sum() == 0


def test_images_without_words_count_for_masks_alone():
    three = word_batch(2, 1, 1, words=[["dog"], ["cat"], []])
    two = MaskBatch(three.images[:2], three.masks[:2], three.labels[:2], three.image_ids[:2], 2, three.words[:2])
    with torch.no_grad():
        first, second = (openseg_task().losses(batch)["grounding"] for batch in (three, two))
    torch.testing.assert_close(first, second)
    nothing = openseg_task().losses(BATCHES["no words"])
    assert nothing["grounding"] == 0 and nothing["best_match_dice"] > 0
    assert all(g.isfinite().all() for g in gradients(openseg_task(), BATCHES["no words"]).values())


def test_two_processes_train_as_one(tmp_path):
    done = launch("kit.openseg.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = load(tmp_path)
    for kind, task in (("openseg", openseg_task), ("lseg", lseg_task)):
        for name, batch in BATCHES.items():
            expected, key = gradients(task(), batch), f"{kind} {name}"
            for parameter, gradient in expected.items():
                assert torch.equal(first[key][parameter], second[key][parameter])
                torch.testing.assert_close(first[key][parameter], gradient, atol=2e-5, rtol=1e-3)
    batch, whole = BATCHES["a wordless image"], gradients(openseg_task(alpha=0.0), BATCHES["a wordless image"])
    halves = [gradients(openseg_task(sync=False, alpha=0.0), share(batch, number, 2)) for number in (0, 1)]
    for parameter, gradient in first["local"].items():
        torch.testing.assert_close(gradient, (halves[0][parameter] + halves[1][parameter]) / 2, atol=2e-5, rtol=1e-3)
    key = "meaning_head.2.weight"
    assert not torch.allclose(first["local"][key], whole[key], rtol=1e-2), "apart, images are told from fewer others"


def split_of(tmp_path, captions, name="set"):
    from kit.records import scene, toy

    records = [toy(f"{name}{i}", scene(), {1: 0, 2: 1, 3: 2}) | {"captions": list(c)} for i, c in enumerate(captions)]
    write_split(records, tmp_path / name, progress=False)
    return str(tmp_path / name)


def built(tmp_path, captions, **changes):
    config = OpenSegConfig(data=(split_of(tmp_path, captions),), batch=len(captions), **SIZES | {"keep": 1.0} | changes)
    return get_recipe("openseg").build(config)


CAPTIONS = [["a photo of two red fire hydrants"], ["the dog runs"], [], ["狗"]]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("noun", "adj"), [["dog"], ["red", "fire hydrant"], [], []]),
        (("noun",), [["dog"], ["fire hydrant"], [], []]),
        (("noun", "verb"), [["dog", "runs"], ["fire hydrant"], [], []]),
        (("all",), [["the", "dog", "runs"], ["photo", "of", "two", "red", "fire hydrant"], [], []]),
    ],
)
def test_words_of_captions_reach_the_batch(kinds, expected, tmp_path):
    task = built(tmp_path, CAPTIONS, kinds=kinds)
    assert sorted(task.batch(0).words, reverse=True) == sorted(expected, reverse=True)
    assert task.found["tagger"] in task.notes()[0]


def test_kp_drops_words_by_chance_and_the_same_at_every_call(tmp_path):
    task = built(tmp_path, [["a dog, a cat, a tree and a boat"]] * 8, keep=0.5)
    seen = [task.batch(index).words for index in range(40)]
    assert seen == [task.batch(index).words for index in range(40)]
    counts = [len(words) for batch in seen for words in batch]
    assert abs(sum(counts) / len(counts) - 2) < 4 * math.sqrt(1 / len(counts)) and {0, 4} <= set(counts)


def test_several_data_sets_have_equal_shares(tmp_path):
    first, second = split_of(tmp_path, [["a dog"]] * 3, "a"), split_of(tmp_path, [["a cat"]] * 30, "b")
    task = get_recipe("openseg").build(OpenSegConfig(data=(first, second), batch=6, keep=1.0, **SIZES))
    for index in range(5):
        batch = task.batch(index)
        assert [name[0] for name in batch.image_ids] == [*"aaabbb"] and batch.total == 6
        assert batch.words == [["dog"]] * 3 + [["cat"]] * 3 and len(batch.images) == len(batch.masks) == 6
    assert task.found["records"] == [3, 30]


def test_every_word_is_embedded_once(monkeypatch):
    task, asked = openseg_task(), []
    embed = task.method.clip.text_embeddings
    monkeypatch.setattr(task.method.clip, "text_embeddings", lambda w, t: asked.append(list(w)) or embed(w, t))
    for _ in range(3):
        task.words.padded(WORDS, 4)
    task.words.padded([["dog", "boat"]], 2)
    assert asked == [["cat", "dog", "grass", "red", "sky", "tree"], ["boat"]]


def frozen_task(tmp_path, **changes):
    """A run of words alone on proposals that were saved before, and those proposals."""
    torch.manual_seed(3)
    proposer = OpenSegProposer(ProposalConfig(**SIZES))
    with torch.no_grad():
        for parameter in proposer.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path / "proposals.safetensors"
    proposer.save(path)
    captions = [["a dog"], ["a red cat"], ["two trees"], ["the sky"]]
    return built(tmp_path, captions, proposals=str(path), alpha=0.0, rescale=(1.0, 1.0), **changes), proposer


def test_words_alone_leave_the_proposals_as_they_are_and_lose_nothing_by_keeping_them(tmp_path, monkeypatch):
    task, proposer = frozen_task(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(proposer.parameters(), task.model.proposer.parameters(), strict=True))
    batch, whole = task.batch(0), openseg_like(task)
    found, expected = task.losses(batch), whole.losses(batch)
    assert found.keys() == {"grounding"} and found["grounding"].item() == pytest.approx(
        expected["grounding"].item(),
        rel=2e-3,  # half precision
    )
    with torch.autocast("cpu", torch.bfloat16):
        mixed = task.losses(batch)["grounding"].item()
    assert mixed == pytest.approx(expected["grounding"].item(), rel=0.05)
    gradient, reference = gradients(task, batch), gradients(whole, batch)
    assert gradient.keys() == {name for name in reference if name.startswith(("meaning_head", "log_temperature"))}
    for name, value in gradient.items():
        torch.testing.assert_close(value, reference[name], atol=2e-3, rtol=2e-2)
    looks = []
    monkeypatch.setattr(task.model, "looked_at", lambda images: looks.append(images))
    assert torch.equal(task.losses(task.batch(7))["grounding"], task.losses(task.batch(7))["grounding"])
    assert len(task.kept) == 1 and not looks, "all records show one picture, which was looked at once"


def openseg_like(task):
    """The task that trains everything, with the same network."""
    other = OpenSegTraining(task.method, None, task.config, task.found)
    other.model.requires_grad_(True)
    other.model.zero_grad()
    return other


def test_words_alone_ask_for_proposals_of_their_own_kind_and_sizes(tmp_path):
    with pytest.raises(ValueError, match="expected alpha=0"):
        OpenSegConfig(proposals="some.safetensors")
    with pytest.raises(ValueError, match="'channels': 16.*expected.*'channels': 24"):
        frozen_task(tmp_path, channels=24)
    with pytest.raises(FileNotFoundError, match="ovs-lite train openseg-proposals"):
        built(tmp_path / "2", CAPTIONS, proposals=str(tmp_path / "none.safetensors"), alpha=0.0)


def test_limits_take_the_first_records_of_each_set(tmp_path):
    first, second = split_of(tmp_path, [["a dog"]] * 5, "a"), split_of(tmp_path, [["a cat"]] * 5, "b")
    task = get_recipe("openseg").build(OpenSegConfig(data=(first, second), limits=(2, 9), batch=4, **SIZES))
    assert task.found["records"] == [2, 5]
    assert {name for index in range(8) for name in task.batch(index).image_ids if name.startswith("a")} == {"a0", "a1"}
    for limits in ((2,), (2, 0)):
        with pytest.raises(ValueError, match="expected one, >= 1, of each"):
            OpenSegConfig(data=(first, second), limits=limits)


def test_a_backbone_starts_from_the_shipped_tower_another_or_nothing(tmp_path):
    file = tmp_path / "ConvNeXt-Lite.safetensors"
    tensors, about = read_tensors(shipped_path("ConvNeXt-Lite"))
    stem = "visual.trunk.stem.0.weight"
    write_tensors(file, tensors | {stem: tensors[stem] + 1}, about)
    split, found = split_of(tmp_path, CAPTIONS), {}
    sizes = SIZES | {"backbone": "convnext_lite"}
    for start in ("clip", "backbone", "random", str(file)):
        task = get_recipe("openseg").build(OpenSegConfig(data=(split,), batch=2, start=start, **sizes))
        found[start] = task.model.proposer.network.features.backbone.network.model.stem[0].weight
        assert (task.model.clip_map is not None) == (start == "clip")
        assert task.found.get("start") == (file_digest(file) if start == str(file) else None)
    torch.testing.assert_close(found["clip"], tensors[stem].float())
    assert torch.equal(found["clip"], found["backbone"]) and not torch.equal(found["clip"], found["random"])
    torch.testing.assert_close(found[str(file)], (tensors[stem] + 1).float())
    with pytest.raises(ValueError, match=r"got start='some'.*expected one of clip, backbone, random, a file"):
        OpenSegConfig(start="some")
    for ignored in ({"backbone": "resnet50"}, {"proposals": "some.safetensors", "alpha": 0.0}):
        with pytest.raises(ValueError, match="expected no proposals and 'convnext_lite'"):
            OpenSegConfig(start=str(file), **ignored)
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such checkpoint"):
        OpenSeg(task.method.clip, OpenSegConfig(start=str(tmp_path / "none.safetensors"), **sizes), fresh=True)
