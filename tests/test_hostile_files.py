"""No file can run code: a harmful pickle, in each way that a library would unpickle, at every door that reads files."""

import io
import json
import os
import pickle

import numpy as np
import pytest
import torch

from kit.clips import random_clip
from kit.records import scene, toy
from kit.shards import member, sample, write_shard
from ovs_lite import cli
from ovs_lite.checkpoints import load_checkpoint, save_checkpoint
from ovs_lite.clip import load_clip, text_cache
from ovs_lite.config import read_changes
from ovs_lite.data import images
from ovs_lite.data.archives import unpack
from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.data.record import load_split, write_split
from ovs_lite.evaluation.blocks import CountFolder
from ovs_lite.files import file_digest
from ovs_lite.methods.proposer import load_proposer
from ovs_lite.segmenter import load
from ovs_lite.tensors import read_foreign, read_tensors


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def torch_file(content, new):
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


def numpy_file(content, save):
    stream = io.BytesIO()
    save(stream, np.array([content, None], dtype=object))
    return stream.getvalue()


FORMS = {
    "pickle 0": lambda harm: pickle.dumps(harm, 0),
    "pickle 4": lambda harm: pickle.dumps(harm, 4),
    "torch": lambda harm: torch_file({"state_dict": {"w": torch.ones(2)}, "config": harm}, True),
    "torch, old": lambda harm: torch_file({"state_dict": {"w": torch.ones(2)}, "config": harm}, False),
    "npy": lambda harm: numpy_file(harm, np.save),
    "npz": lambda harm: numpy_file(harm, lambda stream, array: np.savez(stream, samples=array, about=array)),
}


@pytest.fixture(params=FORMS)
def harmful(request, tmp_path):
    """(bytes, was it run?)"""
    mark = tmp_path / "ran"
    yield FORMS[request.param](Harmful(mark))
    assert not mark.exists(), "the pickle was executed"


def test_the_pickles_would_do_harm(tmp_path):
    for number, (name, form) in enumerate(FORMS.items()):
        stream = io.BytesIO(form(Harmful(tmp_path / str(number))))
        if name.startswith("pickle"):
            pickle.load(stream)
        elif name.startswith("torch"):
            torch.load(stream, weights_only=False)
        else:
            found = np.load(stream, allow_pickle=True)
            assert len(found) == 2 and (name == "npy" or len(found["about"]) == 2)
        assert (tmp_path / str(number)).is_dir(), name


METHODS = ("tcl", "openseg", "ovseg", "uniovseg")
WEIGHTS = {
    "safetensors": read_tensors,
    "any checkpoint": lambda path: read_foreign(path, "state_dict"),
    "CLIP's weights": lambda path: load_clip("ViT-Lite-8", path),
    "proposals": load_proposer,
} | {f"checkpoint of {name}": lambda path, name=name: load(name, checkpoint=path) for name in METHODS}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("door", WEIGHTS)
def test_weights(door, harmful, tmp_path):
    """Refused by name; of a torch file the tensors may be read, and what else is in it is not."""
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"harmful{suffix}"
        path.write_bytes(harmful)
        try:
            found = WEIGHTS[door](path)
        except ValueError as error:
            assert path.name in str(error)
        else:
            assert door == "any checkpoint" and list(found) == ["w"]


def test_checkpoints_of_training(harmful, tmp_path):
    saved = save_checkpoint(tmp_path / "checkpoints", 3, {"w": torch.ones(2)})
    (saved / "state.safetensors").write_bytes(harmful)
    vouching = {"step": 3, "sha256": file_digest(saved / "state.safetensors")}
    for manifest in (json.dumps(vouching).encode(), harmful):
        (saved / "manifest.json").write_bytes(manifest)
        with pytest.raises(ValueError, match="damaged checkpoint"):
            load_checkpoint(saved)


@pytest.fixture
def split(tmp_path):
    write_split([toy(f"p{i}", scene(), {1: 0, 2: 1, 3: 2}) for i in range(2)], tmp_path / "split", progress=False)
    return tmp_path / "split"


def test_prepared_data(harmful, split):
    """Each file of a split in turn, with a manifest that vouches for it, and the manifest itself."""
    whole = {path: path.read_bytes() for path in sorted(split.iterdir())}
    assert len(whole) == 4
    for path in whole:
        path.write_bytes(harmful)
        if path.name != "manifest.json":
            manifest = json.loads(whole[split / "manifest.json"])
            manifest["files"][path.name] = {"bytes": len(harmful), "sha256": file_digest(path)}
            (split / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match="damaged"):
            load_split(split)
        for name, content in whole.items():
            name.write_bytes(content)
    assert len(load_split(split)) == 2


def test_images_and_archives(harmful, tmp_path):
    for name, door in (
        ("x.jpg", images.read_image_file),
        ("x.zip", lambda path: unpack(path, tmp_path, progress=False)),
    ):
        (tmp_path / name).write_bytes(harmful)
        try:
            door(tmp_path / name)
        except ValueError as error:
            assert name in str(error)
        else:
            assert name == "x.zip" and harmful.startswith(b"PK"), "a zip of files, which nobody opens"


def test_shards_and_their_index(harmful, tmp_path):
    fields = [member(f"1.{kind}", harmful) for kind in ("jpg", "txt", "pkl", "pickle", "pyd", "pth", "cls")]
    path, cache = write_shard(tmp_path / "a.tar", [*fields, *sample(2)]), tmp_path / "cache"
    for _ in range(2):
        shards = WebShards([path], cache=cache)
        assert [record["captions"] for record in (shards[i] for i in range(len(shards)))][-1] == ["picture 2"]
        kept = list(cache.rglob("*.npz"))
        assert kept
        for index in kept:
            index.write_bytes(harmful)  # and read it again
    path.write_bytes(harmful)
    with pytest.raises((ValueError, FileNotFoundError)):
        len(WebShards([path], cache=cache))


def test_caches_and_counts(harmful, tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))
    clip = random_clip()
    expected = clip.text_embeddings(["a dog"], "bare")
    file = text_cache.path(clip.fingerprint(), "bare")
    assert file.exists()
    file.write_bytes(harmful)
    assert text_cache.read(file, clip.embed_dim) == {}
    assert torch.equal(random_clip().text_embeddings(["a dog"], "bare"), expected)
    kept = CountFolder(tmp_path / "counts", "key", ("a", "b"))
    kept.write(0, 2, {"n": np.ones(2)})
    (file,) = kept.folder.iterdir()
    file.write_bytes(harmful)
    assert kept.read(0, 2) is None


def test_configurations(harmful, tmp_path):
    path = tmp_path / "x.yaml"
    for content in (harmful, f"!!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']".encode()):
        path.write_bytes(content)
        try:
            read_changes(path)
        except ValueError as error:
            assert "x.yaml" in str(error)


def commands(path, split, out):
    """Every command that is given a file of weights."""
    (out / "a.png").write_bytes(images.encode_image(np.zeros((32, 32, 3), np.uint8)))
    for name in METHODS:
        yield ["segment", out / "a.png", "--queries", "dog", "--method", name, "--checkpoint", path]
    yield ["segment", out / "a.png", "--queries", "dog", "--method", "maskclip", "--pretrained", path]
    yield ["evaluate", "tcl", "--data", split, "--set", "icon-voc20", "--checkpoint", path]
    yield ["evaluate", "panoptic", "--method", "uniovseg", "--data", split, "--checkpoint", path]
    yield ["evaluate", "proposals", path, "--data", split]
    yield ["evaluate", "promptable", "--masks", path, "--data", split]
    yield ["evaluate", "grid", "--masks", path, "--classifier", "crops", "--data", split]
    yield ["mine", split, "--masks", path, "--out", out / "pairs"]
    yield ["pseudo-masks", path, split, "--out", out / "masks"]
    for flag in ("--start", "--pretrained"):
        yield ["train", "maskformer", "--profile", "smoke", "--data", split, flag, path, "--out", out / "run"]


@pytest.mark.slow
def test_commands(split, tmp_path, capsys):
    path = tmp_path / "harmful.safetensors"
    path.write_bytes(FORMS["torch"](Harmful(tmp_path / "ran")))
    for arguments in commands(path, split, tmp_path):
        assert cli.main([str(word) for word in arguments]) == 2, arguments
        assert "harmful.safetensors" in capsys.readouterr().err, arguments
        assert not (tmp_path / "ran").exists(), arguments
