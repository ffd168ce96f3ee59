"""Pair mining: the best region of each noun, its crop and mask, what is left out, stops, the command."""

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from kit.ovseg import pair as mined_pair
from kit.proposers import make_proposer
from kit.real_data import found
from kit.records import scene, toy
from ovs_lite import cli
from ovs_lite.clip import load_clip
from ovs_lite.data import parts
from ovs_lite.data.loaders.mask_batches import MaskBatches
from ovs_lite.data.readers.coco import iter_coco
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.readers.real_data import find_coco
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.rle import decode_rle
from ovs_lite.data.segments import record_masks
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.files import file_digest
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods import pair_mining as mining
from ovs_lite.methods.pair_mining import MiningConfig, caption_nouns, mine, mine_record, pair_statistics
from ovs_lite.regions.classifiers import region_scores

CAPTIONS = [["a dog on the grass", "two fire hydrants and a dog"], ["it is quite happy"], [], ["a cat"], ["the sky"]]


@pytest.fixture(scope="module")
def clip():
    return load_clip("ViT-Lite-8")


def records():
    return [toy(f"p{i}", scene(24 + i, 32)) | {"captions": list(said)} for i, said in enumerate(CAPTIONS)]


def source(tmp_path):
    write_split(records(), tmp_path / "source", progress=False)
    return tmp_path / "source"


def mined(tmp_path, clip, name="pairs", proposer=None, **changes):
    path = tmp_path / "source"
    path = path if path.exists() else source(tmp_path)
    assert mine(path, tmp_path / name, clip, proposer, MiningConfig(**changes), progress=False)
    return load_split(tmp_path / name)


def test_nouns_come_once_with_the_first_caption_that_says_them():
    nouns = caption_nouns(CAPTIONS[0], ["fire hydrant"], load_tagger("shipped"))
    assert nouns == dict(zip(["dog", "grass", "fire hydrant"], [CAPTIONS[0][0]] * 2 + [CAPTIONS[0][1]], strict=True))
    assert caption_nouns(CAPTIONS[1], [], load_tagger("shipped")) == {}


@torch.no_grad()
def test_every_noun_has_the_region_that_fits_it_best_one_by_one(tmp_path, clip):
    split, pairs = records(), mined(tmp_path, clip, templates="bare")
    assert [(pair["source"], said) for pair, [said] in zip(pairs["pair"], pairs["captions"], strict=True)] == [
        ("p0", "dog"), ("p0", "grass"), ("p3", "cat"), ("p4", "sky"),
    ]  # fmt: skip
    assert pairs["image_id"] == ["p0-000", "p0-001", "p3-000", "p4-000"]
    for pair in pairs:
        origin, record = pair["pair"], next(r for r in split if r["image_id"] == pair["pair"]["source"])
        masks, _ = record_masks(record)
        pixels = clip.normalise(torch.from_numpy(record["image"]).permute(2, 0, 1) / 255)
        text = clip.encode_text(pair["captions"])
        scores = [region_scores("masked crops", clip, pixels, torch.tensor(m[None]), text).item() for m in masks]
        assert origin["mask"] == int(np.argmax(scores)) and origin["score"] == pytest.approx(max(scores), abs=1e-5)
        rows, columns = masks[origin["mask"]].nonzero()
        left, top, right, bottom = origin["box"]
        assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.array_equal(np.array(pair["image"]), record["image"][top:bottom, left:right]), "with its background"
        assert np.array_equal(decode_rle(pair["masks"][0]), masks[origin["mask"]][top:bottom, left:right])


def test_in_its_own_world_clip_finds_the_regions(clip):
    """With the true masks, most nouns that name a segment get that segment; chance would be one in three or four."""
    vocabulary, tagger = load_vocabulary("icon-coco"), load_tagger("shipped")
    hits = []
    for record in iter_records(icon_sets("icon-coco")[0], 24, 96, seed=7):
        nouns = caption_nouns(record["captions"][:1], vocabulary.names, tagger)
        _, labels = record_masks(record)
        for pair in mine_record(record, nouns, clip, None, MiningConfig()):
            [noun] = pair["captions"]
            if noun in vocabulary.names and vocabulary.index(noun) in labels:
                hits.append(vocabulary.index(noun) == labels[pair["pair"]["mask"]])
    assert len(hits) > 30 and np.mean(hits) > 0.6


def test_options_say_how_many_captions_and_how_alike(tmp_path, clip):
    one, five = mined(tmp_path, clip), mined(tmp_path, clip, "five", captions=5)
    assert [noun for [noun] in five["captions"]] == ["dog", "grass", "fire hydrant", "cat", "sky"] and len(one) == 4
    assert [pair["caption"] for pair in five["pair"]][2] == CAPTIONS[0][1]
    scores = sorted(pair["score"] for pair in five["pair"])
    assert len(mined(tmp_path, clip, "sure", captions=5, least=(scores[1] + scores[2]) / 2)) == 3
    said = pair_statistics(five)
    assert (said["pairs"], said["nouns"], said["images"]) == (5, 5, 3)
    assert said["mean cosine"] == pytest.approx(np.mean(scores))
    with pytest.raises(ValueError, match="got no records"):
        mined(tmp_path, clip, "none", least=1.0)
    for name, wrong, expected in (("captions", 0, "1 or more"), ("budget", 0, "1 or more"), ("least", 1.5, "a cosine")):
        with pytest.raises(ValueError, match=f"got {name}={wrong}, expected {expected}"):
            MiningConfig(**{name: wrong})


def test_proposals_come_from_a_model_and_empty_ones_are_left_out(tmp_path, clip):
    proposer = make_proposer("openseg-proposals")
    pairs = mined(tmp_path, clip, proposer=proposer, budget=3)
    for pair in pairs:
        image = np.array(records()[int(pair["pair"]["source"][1:])]["image"])
        masks = proposer.propose(image, 3) > 0.5
        left, top, right, bottom = pair["pair"]["box"]
        mask = masks[pair["pair"]["mask"], top:bottom, left:right].numpy()
        assert np.array_equal(decode_rle(pair["masks"][0]), mask)
    empty = type("Nothing", (), {"propose": lambda self, image, budget: torch.zeros(2, *image.shape[:2])})()
    assert mine_record(records()[0], {"dog": "a dog"}, clip, empty, MiningConfig()) == []


def test_stopped_and_started_again_it_gives_the_same_pairs(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(parts, "PART", 1)
    expected, seen, whole = mined(tmp_path, clip), [], mining.mine_record

    def stops(*arguments):
        seen.append(arguments)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(mining, "mine_record", stops)
    with pytest.raises(KeyboardInterrupt):
        mined(tmp_path, clip, "again")
    assert mined(tmp_path, clip, "again").to_dict() == expected.to_dict() and len(seen) == 4 + 2
    with pytest.raises(FileExistsError, match="comes from other settings"):
        mined(tmp_path, clip, "again", captions=2)
    digests = [{p.name: file_digest(p) for p in (tmp_path / n).glob("*.arrow")} for n in ("pairs", "again")]
    assert digests[0] == digests[1]


def test_the_command_says_what_was_mined_and_shows_it(tmp_path, capsys):
    arguments = ["mine", str(source(tmp_path)), "--out", str(tmp_path / "out"), "--captions", "5"]
    arguments += ["--sheet", str(tmp_path / "pairs.png")]
    for _ in range(2):
        assert cli.main(arguments) == 0
        assert "out: pairs 5, nouns 5, images 3, mean cosine" in capsys.readouterr().out
    assert min(Image.open(tmp_path / "pairs.png").size) > 100
    batch = MaskBatches(load_split(tmp_path / "out"), 2, 32, words=lambda caption: [caption])(0)
    assert all(len(words) == 1 for words in batch.words) and all(len(masks) == 1 for masks in batch.masks)
    assert cli.main([*arguments, "--limit", "0"]) == 2 and "expected at least 1" in capsys.readouterr().err
    assert cli.main([*arguments, "--masks", "none.safetensors"]) == 2
    assert "no such proposals" in capsys.readouterr().err


@pytest.mark.real
def test_real_captions_and_segments_are_mined(tmp_path, clip):
    """Of photographs, which this CLIP has never seen: every pair comes from a caption's noun and a true segment."""
    [split, *_] = [split for split in found(find_coco, "COCO 2017") if split.instances and split.captions]
    photographs = list(
        islice(iter_coco(split.images, split.instances, split.captions, ReaderReport(), subset=True), 80)
    )
    write_split(photographs, tmp_path / "source", progress=False)
    pairs = mined(tmp_path, clip, captions=5, compounds=("coco",))
    origins = {record["image_id"]: record for record in load_split(tmp_path / "source")}
    assert len(pairs) > 3 * len(photographs) and pair_statistics(pairs)["nouns"] > 100
    for [noun], pair in zip(pairs["captions"], pairs["pair"], strict=True):
        record = origins[pair["source"]]
        assert 0 <= pair["mask"] < len(record_masks(record)[0]) and pair["caption"] in record["captions"]
        assert noun[0] in pair["caption"].lower()


def test_classes_of_segments_are_words_without_any_caption(tmp_path, clip):
    vocabulary = load_vocabulary("icon-coco")
    scenes = list(islice(iter_records(icon_sets("icon-coco")[0], 3, 64, seed=5), 3))
    write_split(scenes, tmp_path / "source", progress=False)
    pairs = mined(tmp_path, clip, classes="icon-coco")
    expected = [vocabulary.names[label] for record in scenes for label in record_masks(record)[1]]
    assert [captions[0] for captions in pairs["captions"]] == expected and len(expected) >= 3
    first, masks = pairs[0], record_masks(scenes[0])[0]
    left, top, right, bottom = first["pair"]["box"]
    assert np.array_equal(decode_rle(first["masks"][0]), masks[0][top:bottom, left:right])
    assert first["pair"]["caption"] == "" and -1 <= first["pair"]["score"] <= 1
    least = sorted(pair["score"] for pair in pairs["pair"])[len(pairs) // 2] - 1e-4
    assert len(mined(tmp_path, clip, "few", classes="icon-coco", least=least)) == len(pairs) - len(pairs) // 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": ["a", "b"]}, "got 1 masks and 2 captions, expected one of each"),
        ({"masks": []}, "got 0 masks and 1 captions"),
        ({"box": [0, 0, 20, 24]}, "expected XYXY of the crop's 24 x 20 pixels"),
        ({"box": [-1, 0, 23, 20]}, "got box .-1, 0, 23, 20."),
    ],
)
def test_a_pair_is_one_region_with_one_word_in_its_box(tmp_path, changes, message):
    record = mined_pair(0, "cat")
    if "box" in changes:
        record["pair"] = record["pair"] | changes
    else:
        record |= changes
    with pytest.raises(ValueError, match=message):
        write_split([record], tmp_path / "pairs", columns="pairs", progress=False)
    assert not (tmp_path / "pairs").exists()
