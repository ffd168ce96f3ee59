"""Vectors are written as the general writer writes them, and read by the general reader."""

import os

import pytest
import torch

from ovs_lite import files
from ovs_lite.clip.vector_file import write_vectors
from ovs_lite.tensors import read_tensors, write_tensors

ODD = ["z", "a", "cat, dog", 'a "quoted" name', "back\\slash", "tab\there", "Äpfel", "名前", "\U0001f408", "", "A"]


@pytest.mark.parametrize("names", [["cat"], ODD, [f"word {number}" for number in range(300)]])
@pytest.mark.parametrize("size", [1, 3, 128])
def test_the_bytes_are_those_of_the_general_writer(names, size, tmp_path):
    vectors = {name: torch.randn(size) for name in names}
    write_vectors(tmp_path / "fast.safetensors", vectors)
    write_tensors(tmp_path / "slow.safetensors", vectors)
    assert (tmp_path / "fast.safetensors").read_bytes() == (tmp_path / "slow.safetensors").read_bytes()
    found, about = read_tensors(tmp_path / "fast.safetensors")
    assert about.keys() == {"sha256"} and found.keys() == vectors.keys()
    assert all(torch.equal(found[name], vectors[name]) for name in names)


def test_a_disk_that_is_full_is_an_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_vectors(path, {"cat": torch.ones(2)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_vectors(path, {"dog": torch.ones(2)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.safetensors"]
