"""Training the adapter: pairs by the frozen CLIP, both losses, what is kept, two processes, files, a run that helps."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.processes import launch, load
from kit.prompting import make_segmenter
from kit.proposers import make_proposer
from kit.records import scene, toy, without_annotation
from kit.uniovseg import BATCHES, ENTITIES, alignment_task, entity_batch, gradients, own_masks, pixels_of, records
from ovs_lite.config import LoopConfig
from ovs_lite.data.chat_entities import ChatParser
from ovs_lite.data.entities import NounParser
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.tagging import load_tagger
from ovs_lite.files import file_digest
from ovs_lite.matching import match_masks_to_entities
from ovs_lite.methods.uniovseg.alignment_config import PRESETS, AlignmentConfig
from ovs_lite.methods.uniovseg.alignment_data import EntityBatches, entity_parser, mask_source
from ovs_lite.methods.uniovseg.alignment_training import (
    AlignmentTraining,
    RandomPairs,
    _distinct,
    build,
    joined_segmenter,
)
from ovs_lite.methods.uniovseg.segmenter import soft_masks
from ovs_lite.train.loop import train


def slow_pairs(task, entities):
    """Adapted regions and texts of all pairs of a batch, one image at a time through the whole model."""
    model, clip = task.aligned, task.clip
    regions, texts = [], []
    for record, some in zip(records(), entities, strict=True):
        if some:
            images, masks = clip.normalise(pixels_of(record)), own_masks(record, None)[None]
            text = clip.text_embeddings(list(some), "bare")
            plain = [alignment_task(short_sides=(side,)).aligned for side in model.short_sides]
            costs = [-(one(images, masks, adapted=False)[0] @ text.T) for one in plain]
            rows, cols = match_masks_to_entities(costs, task.config.threshold)
            regions.append(model(images, masks)[0][rows])
            texts.append(text[cols])
    return torch.cat(regions), torch.cat(texts)


def test_the_cosine_is_that_of_the_pairs_one_by_one():
    task = alignment_task(loss="cosine")
    regions, texts = slow_pairs(task, ENTITIES)
    assert len(regions) == 2 + 0 + 1 + 3, "three masks, four entities"
    expected = sum(1 - torch.cosine_similarity(r, t, dim=0) for r, t in zip(regions, texts, strict=True)) / len(regions)
    torch.testing.assert_close(task.losses(entity_batch())["alignment"], expected, atol=2e-3, rtol=0)


def test_the_contrast_tells_from_every_text_of_the_batch_once():
    task = alignment_task(loss="contrast")
    regions, texts = slow_pairs(task, ENTITIES)
    distinct = {tuple(text.tolist()) for text in texts}
    assert len(distinct) < len(texts), "two images have the dog"
    scale, total = task.clip.logit_scale.exp().item(), 0.0
    for region, own in zip(regions, texts, strict=True):
        cosines = [torch.cosine_similarity(region, torch.tensor(text), dim=0).item() * scale for text in distinct]
        total += np.log(np.exp(cosines).sum()) - torch.cosine_similarity(region, own, dim=0).item() * scale
    assert task.losses(entity_batch())["alignment"].item() == pytest.approx(total / len(regions), abs=2e-2)


def test_pairs_do_not_depend_on_the_adapter_and_a_threshold_drops_some():
    plain, moved = alignment_task(moved=False), alignment_task(moved=True)
    texts = plain.clip.text_embeddings(list(ENTITIES[3]), "bare")
    rows, cols = plain.matched(plain.seen(3), texts)
    assert all(torch.equal(a, b) for a, b in zip(moved.matched(moved.seen(3), texts), (rows, cols), strict=True))
    cosines = (plain.seen(3).regions.float().mean(0) @ texts.T)[rows, cols]
    middle = float(cosines.sort().values[1:].mean())
    kept = alignment_task(threshold=middle).matched(plain.seen(3), texts)[0]
    assert kept.tolist() == rows[cosines >= middle].tolist() and 0 < len(kept) < len(rows)


def test_random_pairs_keep_the_entities_and_draw_their_masks():
    """Of three masks and four entities every pair of them comes up, each mask once; of the seed alone."""
    model = alignment_task()
    drawn = RandomPairs(model.method, None, records(), own_masks)
    seen, texts = model.seen(3), model.clip.text_embeddings(list(ENTITIES[3]), "bare")
    (_, kept), pairs = model.matched(seen, texts), set()
    for number in range(60):
        torch.manual_seed(number)
        rows, cols = drawn.matched(seen, texts)
        assert torch.equal(cols, kept) and sorted(rows.tolist()) == [0, 1, 2]
        pairs |= set(zip(rows.tolist(), cols.tolist(), strict=True))
    assert len(pairs) == 9
    torch.manual_seed(59)
    assert torch.equal(drawn.matched(seen, texts)[0], rows)
    rows, cols = drawn.matched(seen, texts[kept[:1]])
    assert cols.tolist() == [0] and len(rows) == 1
    drawn.config = AlignmentConfig(threshold=1.0)
    assert len(drawn.matched(seen, texts)[0]) == 0, "an entity that is dropped stays dropped"
    assert drawn.losses(entity_batch())["alignment"] == 0


def test_a_word_that_differs_in_its_last_bits_is_the_same_and_near_words_are_not():
    texts = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    texts[2] = F.normalize(texts[1] + 1e-5, dim=0)
    given = torch.cat([texts, texts[1:2] * (1 + 2e-7), texts[:1]])
    distinct, which = _distinct(given, ["cat", "dog", "hound", "dog", "cat"])
    assert len(distinct) == 3 and torch.equal(which[[3, 4]], which[[1, 0]]) and len(set(which[:3].tolist())) == 3
    torch.testing.assert_close(distinct[which], given, atol=1e-6, rtol=0)
    assert [len(part) for part in _distinct(texts[:0], [])] == [0, 0]


@pytest.mark.parametrize("loss", ["cosine", "contrast"])
def test_batches_without_pairs_are_0_with_gradients_of_0(loss):
    found = gradients(alignment_task(loss=loss), entity_batch(BATCHES["no words"]))
    assert all(value.abs().max() == 0 for value in found.values())
    nothing = alignment_task(lambda record, image: torch.zeros(2, *image.shape[:2]), loss=loss)
    assert gradients(nothing, entity_batch())["loss"] == 0


def test_what_is_frozen_is_seen_once():
    asked = []
    task = alignment_task(lambda record, image: asked.append(record["image_id"]) or own_masks(record, image), kept=2)
    first = task.losses(entity_batch())["alignment"]
    assert asked == ["r0", "r2", "r3"] and list(task.kept) == [2, 3], "the image without entities is not looked at"
    assert torch.equal(task.losses(entity_batch([(), (), *ENTITIES[2:]]))["alignment"] * 0 + first, first)
    assert len(asked) == 3
    assert alignment_task(kept=0).losses(entity_batch())["alignment"] == first


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    done = launch("kit.uniovseg.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = load(tmp_path)
    for loss in ("cosine", "contrast"):
        for name, entities in BATCHES.items():
            expected, key = gradients(alignment_task(loss=loss), entity_batch(entities)), f"{loss} {name}"
            for parameter, gradient in expected.items():
                if parameter == "loss":
                    both = (first[key]["loss"] + second[key]["loss"]) / 2
                    torch.testing.assert_close(both, gradient, atol=1e-5, rtol=1e-4)
                    continue
                assert torch.equal(first[key][parameter], second[key][parameter])
                torch.testing.assert_close(first[key][parameter], gradient, atol=1e-5, rtol=1e-3)


def split_of(tmp_path, captions):
    made = [toy(f"r{i}", scene()) | {"captions": list(some)} for i, some in enumerate(captions)]
    write_split(made, tmp_path / "split", progress=False)
    return tmp_path / "split"


def test_batches_are_a_function_of_their_index_with_one_caption_each(tmp_path):
    split = load_split(split_of(tmp_path, [["a dog", "a cat"], [], ["a red boat"]]))
    parser = NounParser((), load_tagger("shipped"))
    batches = EntityBatches(split, 3, 0, parser)
    seen = {number: set() for number in range(3)}
    for index in range(12):
        batch, again = batches(index), EntityBatches(split, 3, 0, parser)(index)
        assert batch == again and sorted(batch.numbers) == [0, 1, 2] and batch.total == 3
        assert batch.image_ids == [f"r{number}" for number in batch.numbers]
        for number, entities in zip(batch.numbers, batch.entities, strict=True):
            seen[number].add(entities)
    assert seen == {0: {("dog",), ("cat",)}, 1: {()}, 2: {("boat",)}}


def test_masks_come_from_the_record_a_proposer_or_classical_grouping(tmp_path):
    record = toy("r", scene())
    image = np.array(record["image"])
    segmenter = make_segmenter()
    source, name = mask_source(AlignmentConfig(masks="own"), segmenter)
    assert torch.equal(source(record, image), own_masks(record, image)) and name == "own"
    with pytest.raises(ValueError, match="record 'bare' has no masks of its own; give a file"):
        source(without_annotation(), image)
    assert len(source(without_annotation(masks=[np.ones((8, 8), bool)]), image)) == 1
    source, name = mask_source(AlignmentConfig(masks="classical", budget=5), segmenter)
    assert 0 < len(source(record, image)) <= 5 and name == "classical"
    source, name = mask_source(AlignmentConfig(masks="segmenter", budget=3, grid=2), segmenter)
    ((masks, scores),) = segmenter.grid_masks(segmenter.look(image), 2)
    assert torch.equal(source(record, image), soft_masks(masks[:3][None], (40, 40))[0]) and name == "segmenter"
    points = [[10.0, 10], [30, 10], [10, 30], [30, 30]]
    assert scores[0] == segmenter.masks_at(image, points=points)[1].max()
    proposer = make_proposer("openseg-proposals")
    proposer.save(tmp_path / "p.safetensors")
    source, name = mask_source(AlignmentConfig(masks=str(tmp_path / "p.safetensors"), budget=3), segmenter)
    assert torch.equal(source(record, image), proposer.propose(image, 3)) and len(name) == 64
    task = alignment_task(source)
    task.to(torch.device("cpu"))
    assert any(module is source for module in task.whole.modules()), "so it moves to the device"
    with pytest.raises(FileNotFoundError, match="no such proposals"):
        mask_source(AlignmentConfig(masks="none.safetensors"), segmenter)


def test_parsers_are_those_that_the_configuration_names():
    parser = entity_parser(AlignmentConfig(tagger="shipped", compounds=("icon-coco",)))
    assert parser.name == "nouns by shipped" and len(parser.compounds) > 10
    assert entity_parser(AlignmentConfig(parser="chunks", tagger="shipped")).name == "chunks by shipped"
    chat = entity_parser(AlignmentConfig(parser="chat", url="http://localhost:1", chat_model="toy"))
    assert chat == ChatParser("http://localhost:1", "toy")


@pytest.mark.parametrize("loss", ["cosine", "contrast"])
def test_a_few_steps_lower_the_loss_and_leave_clip_alone(tmp_path, loss):
    task = alignment_task(loss=loss, moved=False)
    task.batches = lambda index: entity_batch()
    before = {name: value.clone() for name, value in task.clip.state_dict().items()}
    loop = LoopConfig(steps=30, lr=0.01, muon_lr=0.0, warmup=1, log_every=1)
    rows = train(task, loop, tmp_path, progress=False)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.05
    assert all(torch.equal(value, before[name]) for name, value in task.clip.state_dict().items())


def test_the_segmenter_that_joins_answers_prompts(tmp_path):
    segmenter, path = make_segmenter(), tmp_path / "p.safetensors"
    segmenter.save(path)
    found, digest = joined_segmenter(AlignmentConfig(segmenter=str(path)))
    shown = np.array(records()[0]["image"])
    assert torch.equal(found.propose(shown, 5), segmenter.propose(shown, 5)) and digest == file_digest(path)
    make_proposer("openseg-proposals").save(path)
    with pytest.raises(ValueError, match="weights of openseg-proposals, expected those of uniovseg-masks"):
        joined_segmenter(AlignmentConfig(segmenter=str(path)))
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        joined_segmenter(AlignmentConfig(segmenter="none.safetensors"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"loss": "dice"}, "got loss='dice', expected one of contrast, cosine"),
        ({"parser": "verbs"}, "got parser='verbs'"),
        ({"short_sides": ()}, "expected at least one size"),
        ({"rank": 0}, "got rank=0, expected 1 or more"),
        ({"threshold": 2.0}, "a cosine in -1..1"),
        ({"kept": -1}, "expected none negative"),
    ],
)
def test_settings_that_cannot_run_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig(**changes)


def test_the_paper_s_preset_is_eq_8_with_its_own_settings():
    paper = PRESETS["paper"]
    assert (paper.loss, paper.rank, paper.short_sides, paper.batch) == ("cosine", 8, (896, 1024), 56)


def test_a_run_is_built_from_a_split(tmp_path):
    folder = split_of(tmp_path, [["a dog"], ["a cat on the grass"], []])
    make_segmenter().save(tmp_path / "p.safetensors")
    settings = {"segmenter": str(tmp_path / "p.safetensors"), "masks": "own", "tagger": "shipped"}
    task = build(AlignmentConfig(data=str(folder), limit=2, batch=2, short_sides=(64,), **settings))
    assert isinstance(task, AlignmentTraining) and task.found["records"] == 2
    assert task.found["segmenter"] == file_digest(tmp_path / "p.safetensors")
    assert task.found["masks"] == "own" and task.found["parser"] == "nouns by shipped"
    assert torch.isfinite(task.losses(task.batch(0))["alignment"])
    assert task.notes() == ["entities: nouns by shipped; masks: own"]
    assert task.aligned is task.method.aligned and task.aligned.short_sides == (64,)
