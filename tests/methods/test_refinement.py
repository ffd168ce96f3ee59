"""Refined captions: what is kept, dropped and added; sharded, resumable; the command; IconWorld's swapped captions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from kit.ovseg import pair
from kit.records import make_record, scene, toy
from ovs_lite import cli
from ovs_lite.clip import load_clip
from ovs_lite.data import parts
from ovs_lite.data.entities import ChunkParser, NounParser, tagged_parser
from ovs_lite.data.images import read_image
from ovs_lite.data.mismatch import mismatched_captions
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.measures.caption_entities import entity_truth
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods.refinement import NounConfig, NounRefiner, frequent_nouns, sentence_of, write_refined

TAGGER = load_tagger("shipped")
NOUNS = ["dog", "cat", "car", "tree", "boat", "cup"]


class AxisClip:
    """Noun number k is axis k; an image's red says how much of the axes 0, 1, ... it shows, by columns of 8 pixels."""

    name, image_size = "axes", 8

    def fingerprint(self):
        return "text"

    def image_fingerprint(self):
        return "image"

    def preprocess(self, images, size=8):
        return torch.stack([torch.from_numpy(np.array(image)[..., 0] / 255.0).float() for image in images])

    def encode_image(self, images):
        return F.normalize(images[:, 0, : len(NOUNS)], dim=1)

    def dense(self, images):
        return torch.stack([torch.diag(row) for row in images[:, 0, : len(NOUNS)]])[:, :, None]

    def text_embeddings(self, names, templates):
        known = torch.eye(len(NOUNS))
        return torch.stack([known[NOUNS.index(name.split()[-1])] for name in names])


def image(*shown):
    """Shows these nouns."""
    row = [255 * (noun in shown) for noun in NOUNS]
    return Image.fromarray(np.tile(np.array(row, np.uint8)[None, :, None], (2, 1, 3)))


def refined(captions, *shown, **changes):
    config = NounConfig(**{"least": 0.5, "sure": 0.5} | changes)
    return NounRefiner(AxisClip(), ChunkParser(TAGGER), NOUNS, config).refine([image(*shown)], [captions])[0]


def test_what_is_seen_stays_what_is_not_goes_and_what_is_missing_comes():
    assert refined(["a red dog and a boat"], "dog", "cat") == ["a photo of a red dog and a cat"]
    assert refined(["a red dog and a boat"], "dog", "cat", most=0) == ["a photo of a red dog"]
    assert refined(["a boat"], "dog", sure=9.0) == []
    assert refined([], "dog") == ["a photo of a dog"]
    assert refined(["a cup", "a dog"], "dog", "cup", "car", "tree", most=1) == ["a photo of a cup, a dog and a car"]


def test_a_score_is_in_standard_deviations_of_the_vocabulary():
    spread = torch.tensor([1.0, 0, 0, 0, 0, 0]).std().item()
    score = (1 - 1 / 6) / spread
    for least, kept in ((score - 0.01, True), (score + 0.01, False)):
        assert bool(refined(["a dog"], "dog", least=least, most=0)) == kept


def test_a_batch_gives_what_each_image_gives_alone():
    refiner = NounRefiner(AxisClip(), ChunkParser(TAGGER), NOUNS, NounConfig(least=0.5, sure=0.5))
    images, captions = [image("dog"), image("cat", "cup"), image("tree")], [["a dog"], ["a red cup"], []]
    alone = [refiner.refine([one], [some])[0] for one, some in zip(images, captions, strict=True)]
    assert refiner.refine(images, captions) == alone == [
        ["a photo of a dog"], ["a photo of a red cup and a cat"], ["a photo of a tree"],
    ]  # fmt: skip


def test_a_vocabulary_is_what_captions_say_often():
    captions = [["a dog and a cat", "two dogs"], ["a dog"], []]
    parser = NounParser((), TAGGER)
    assert frequent_nouns(captions, parser, NounConfig(often=1)) == ["dog", "cat"]
    assert frequent_nouns(captions, parser, NounConfig(often=2)) == ["dog"]
    with pytest.raises(ValueError, match="got a vocabulary of 1 nouns"):
        NounRefiner(AxisClip(), parser, ["dog", "dog"])
    with pytest.raises(ValueError, match="got most=-1, expected 0 or more"):
        NounConfig(most=-1)


def test_a_sentence_is_read_back_as_its_entities():
    entities = ["red fire truck", "owl", "grass"]
    assert sentence_of(entities) == "a photo of a red fire truck, an owl and a grass" and sentence_of([]) == ""
    assert ChunkParser(TAGGER).parse(sentence_of(entities)) == entities


@pytest.mark.slow
def test_swapped_captions_of_iconworld_become_truer():
    vocabulary, parser = load_vocabulary("icon-coco"), tagged_parser("chunks", (), TAGGER)
    records = list(iter_records(icon_sets("icon-coco")[0], 48, 96, seed=5))
    captions = [record["captions"][:1] for record in records]
    noisy, swapped = mismatched_captions(captions, 0.3)
    refiner = NounRefiner(load_clip("ConvNeXt-Lite"), parser, list(vocabulary.names))
    images = [read_image(record["image"]) for record in records]
    before, after = (entity_truth(records, some, vocabulary, parser) for some in (noisy, refiner.refine(images, noisy)))
    assert swapped.sum() == 14 and before.precision < 0.85
    assert after.precision > before.precision + 0.05 and after.recall > before.recall + 0.05


class Echo:
    """Says how many captions there were. stop: image at which it is stopped."""

    def __init__(self, stop=None):
        self.name, self.stop, self.seen = "echo", stop, 0

    def refine(self, images, captions):
        self.seen += len(images)
        if self.stop is not None and self.seen > self.stop:
            raise KeyboardInterrupt
        return [[f"{len(some)} of {one.width}"] for one, some in zip(images, captions, strict=True)]


def source(tmp_path, count=5):
    records = [toy(f"p{i}", scene(24 + i, 30 + i)) | {"captions": ["a dog"] * i} for i in range(count)]
    write_split(records, tmp_path / "source", progress=False)
    return tmp_path / "source"


def test_all_but_the_captions_stays_and_a_stop_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART", 2)
    folder, given = tmp_path / "out", source(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_refined(given, folder, Echo(stop=3), progress=False)
    again = Echo()
    assert write_refined(given, folder, again, progress=False) and again.seen == 3
    before, after = load_split(given), load_split(folder)
    assert after["captions"] == [[f"{i} of {30 + i}"] for i in range(5)]
    for old, new in zip(before, after, strict=True):
        assert all(old[key] == new[key] for key in old if key != "captions")
    assert write_refined(given, folder, Echo(stop=0), progress=False), "nothing is done twice"
    with pytest.raises(FileExistsError, match="comes from other settings"):
        write_refined(given, folder, Echo(), limit=2, progress=False)


def test_pairs_are_refused_and_masks_stay(tmp_path):
    record = make_record("m", np.zeros((8, 8, 3), np.uint8)) | {"masks": []}
    write_split([record], tmp_path / "masks", columns="masks", progress=False)
    assert write_refined(tmp_path / "masks", tmp_path / "out", Echo(), progress=False)
    assert load_split(tmp_path / "out")[0]["masks"] == []
    write_split([pair(0, "cat")], tmp_path / "pairs", columns="pairs", progress=False)
    with pytest.raises(ValueError, match="got mined pairs"):
        write_refined(tmp_path / "pairs", tmp_path / "no", Echo(), progress=False)


def test_the_command_writes_a_split(tmp_path, capsys):
    said = ["a dog and a cat", "a tree and a cat", "a dog"]
    records = [toy(f"p{i}", scene()) | {"captions": [text]} for i, text in enumerate(said)]
    write_split(records, tmp_path / "source", progress=False)
    words = ["refine", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--tagger", "shipped"]
    assert cli.main([*words, "--limit", "0"]) == 2 and "expected at least 1" in capsys.readouterr().err
    assert cli.main(words) == 2 and "lower --often" in capsys.readouterr().err
    assert cli.main([*words, "--often", "1", "--least", "-9", "--most", "0"]) == 0
    assert "wrote" in capsys.readouterr().out
    captions = load_split(tmp_path / "out")["captions"]
    assert captions[0] == ["a photo of a dog and a cat"] and len(captions) == 3
    assert cli.main([*words, "--parser", "chat", "--url", "file:///x", "--often", "1"]) == 2
    assert "expected http" in capsys.readouterr().err
