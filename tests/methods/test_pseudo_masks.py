"""Pseudo masks: which proposals become masks, the split that is written, stops, several workers, mistakes."""

import numpy as np
import pytest
import torch

from kit import warm
from kit.processes import working_process
from kit.proposers import make_proposer
from kit.records import scene, toy
from ovs_lite import cli
from ovs_lite.data import parts
from ovs_lite.data.loaders.mask_batches import MaskBatches
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.rle import decode_rle
from ovs_lite.files import file_digest
from ovs_lite.matching import pairwise_iou
from ovs_lite.methods import pseudo_masks as module
from ovs_lite.methods.pseudo_masks import pseudo_masks, write_pseudo_masks

LEAST = 0.5


class Knows:
    """A teacher with proposals and scores that are given."""

    def __init__(self, masks, scores):
        self.found = torch.tensor(np.array(masks, np.float32)), torch.tensor(scores)

    def ranked(self, image):
        return self.found


def blocks(*corners, side=16):
    masks = np.zeros((len(corners), side, side))
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[top : top + 6, left : left + 6] = 1
    return masks


def test_masks_are_sure_enough_never_twice_and_none_is_empty():
    masks = np.concatenate([blocks((0, 0), (8, 8), (0, 8), (0, 0)), np.zeros((1, 16, 16))])
    image = np.zeros((16, 16, 3), np.uint8)
    found = pseudo_masks(Knows(masks, [5.0, 3.0, 1.0, 4.0, 9.0]), image, least=3.0)
    assert found.dtype == bool and np.array_equal(found, masks[:2] > 0.5)
    assert len(pseudo_masks(Knows(masks, [5.0, 3.0, 1.0, 4.0, 9.0]), image, least=3.0, most=1)) == 1
    assert pseudo_masks(Knows(masks, [0.0] * 5), image, least=3.0).shape == (0, 16, 16)
    large = pseudo_masks(Knows(blocks((0, 0), side=8), [5.0]), image, least=3.0)
    assert large.shape == (1, 16, 16) and 100 < large.sum() < 160, "at the image's size"


@pytest.fixture
def files(tmp_path):
    """(teacher, source, folder to write): ten records with captions."""
    make_proposer("openseg-proposals").save(tmp_path / "teacher.safetensors")
    records = [toy(f"p{i}", scene(24 + i, 32)) | {"captions": [f"a dog number {i}"]} for i in range(10)]
    write_split(records, tmp_path / "source", progress=False)
    return tmp_path / "teacher.safetensors", tmp_path / "source", tmp_path / "out"


def write(files, **options):
    return write_pseudo_masks(*files, **{"least": LEAST, "progress": False} | options)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART", 3)


def test_the_split_has_the_images_and_captions_of_its_source_and_trains_as_any_other(files, small_parts):
    assert write(files)
    source, found = load_split(files[1]), load_split(files[2])
    assert len(found) == 10 and found["image_id"] == source["image_id"] and found["captions"] == source["captions"]
    teacher = module.load_proposer(files[0])
    for before, record in zip(source, found, strict=True):
        assert np.array_equal(np.array(before["image"]), np.array(record["image"])) and record["segments"] is None
        masks = np.array([decode_rle(rle) for rle in record["masks"]])
        assert len(masks) and np.array_equal(masks, pseudo_masks(teacher, np.array(record["image"]), LEAST))
        flat = torch.tensor(masks).flatten(1).float()
        assert (pairwise_iou(flat, flat) > 0.7).sum() == len(masks)
    batch = MaskBatches(found, 4, 32, words=str.split)(0)
    assert all(len(masks) and (labels == -1).all() for masks, labels in zip(batch.masks, batch.labels, strict=True))
    assert {words[1] for words in batch.words} == {"dog"}
    assert not list(files[2].parent.glob(".out.parts/*")), "parts are gone"


def test_a_run_that_was_stopped_resumes_and_gives_the_same_bytes(files, small_parts, monkeypatch, tmp_path):
    assert write(files)
    expected, seen, whole = digests(files[2]), [], module.pseudo_masks
    again = (*files[:2], tmp_path / "again")

    def stops(*arguments):
        seen.append(arguments)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(module, "pseudo_masks", stops)
    with pytest.raises(KeyboardInterrupt):
        write(again)
    assert not again[2].exists()
    assert write(again) and digests(again[2]) == expected
    assert len(seen) == 8 + 4, "two parts of three were done, the third and the fourth were left"


def test_parts_of_another_teacher_are_not_used(files, small_parts, monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "_joined", lambda *arguments: False)
    assert not write(files)
    monkeypatch.undo()
    monkeypatch.setattr(parts, "PART", 3)
    make_proposer("openseg-proposals", seed=1).save(files[0])
    assert write(files)
    fresh = (*files[:2], tmp_path / "fresh")
    assert write(fresh) and digests(fresh[2]) == digests(files[2])


def test_what_another_process_works_at_is_left_to_it(files, small_parts):
    home = files[2].with_name(".out.parts")
    home.mkdir()
    with working_process(home, ".000000003.work.lock"):
        assert not write(files) and not files[2].exists()
        assert sorted(p.name for p in home.glob("0*")) == ["000000000", "000000006", "000000009"]
    assert write(files)


def test_two_processes_share_the_work(files):
    words = ["kit.proposers.write_image_by_image", LEAST, *files]
    with warm.Process(*words) as one, warm.Process(*words) as other:
        codes, said = [one.wait(), other.wait()], [one.said(), other.said()]
    assert codes == [0, 0], said
    assert "True" in "".join(out for out, _ in said) and len(load_split(files[2])) == 10


def test_the_command_writes_and_names_mistakes(files, capsys):
    arguments = ["pseudo-masks", str(files[0]), str(files[1]), "--out", str(files[2]), "--least", str(LEAST)]
    assert cli.main(arguments) == 0 and f"wrote {files[2]}" in capsys.readouterr().out
    before = digests(files[2])
    assert cli.main(arguments) == 0, "a second time there is nothing to do"
    assert cli.main([*arguments[:-1], "0.6"]) == 1
    assert "exists, and comes from other settings; remove it to make it again" in capsys.readouterr().err
    assert digests(files[2]) == before
    assert cli.main([*arguments[:2], "nowhere", "--out", "x"]) == 2 and "no data set at" in capsys.readouterr().err
    arguments[1] = "none.safetensors"
    arguments[4] += "-new"
    assert cli.main(arguments) == 2 and "no such proposals" in capsys.readouterr().err


def digests(folder):
    """Of the records' files; the manifest says where they come from."""
    return {path.name: file_digest(path) for path in folder.iterdir() if path.suffix == ".arrow"}
