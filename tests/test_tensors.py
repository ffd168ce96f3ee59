"""Weights on disk: the same bytes every time, no flipped bit unnoticed, and a word for what is no weights at all."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kit.processes import environment
from ovs_lite.tensors import load_exactly, products, read_foreign, read_tensors, write_tensors

ODD = {
    "quotes": 'a "b" \\ / c', "lines": "1\n2\t3\r\b\f", "letters": "é 猫 🌍 \u2028 \x7f \x01 \x1f",
    "": "", "b": "2", "a": "1",
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.safetensors"


def tensors():
    return {
        "w": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), "half": torch.ones(7).half(),
        "ids": torch.arange(4, dtype=torch.int32), "": torch.zeros(0, 2), "é": torch.tensor(True),
    }  # fmt: skip


def test_what_is_written_comes_back_and_others_can_read_it(path):
    write_tensors(path, tensors(), ODD)
    found, about = read_tensors(path)
    assert {**ODD, "sha256": about["sha256"]} == about and len(about["sha256"]) == 64
    for read in (found, load_file(path), read_foreign(path, "model")):
        assert read.keys() == tensors().keys()
        assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in tensors().items())


def test_the_same_content_gives_the_same_bytes(tmp_path):
    """Also in another process, whose hashes are seeded differently, and after reading and writing again."""
    write_tensors(tmp_path / "0", tensors(), ODD)
    for number in range(1, 6):
        write_tensors(tmp_path / str(number), dict(reversed(tensors().items())), dict(sorted(ODD.items())))
    write_tensors(tmp_path / "again", *read_tensors(tmp_path / "0"))
    code = "import sys; from ovs_lite.tensors import *; write_tensors(sys.argv[2], *read_tensors(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "0"), str(tmp_path / "process")]
    subprocess.run(command, check=True, env=environment())
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1 and len(list(tmp_path.iterdir())) == 8


def test_no_flipped_bit_gives_other_tensors_or_notes(path):
    """Every bit of a small file: refused, or (spaces that pad the header, the digest's own name) the same content."""
    write_tensors(path, tensors(), {"steps": "4"})
    whole, (good, about) = path.read_bytes(), read_tensors(path)
    body = 8 + int.from_bytes(whole[:8], "little")
    accepted = []
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found, notes = read_tensors(path)
        except ValueError as error:
            assert str(path) in str(error)
            continue
        accepted.append(bit // 8)
        assert found.keys() == good.keys() and all(torch.equal(found[key], good[key]) for key in good)
        assert notes["steps"] == about["steps"]
    assert all(place < body for place in accepted) and len(accepted) < 8 * 16, "no bit of the body"


@pytest.mark.parametrize("read", [read_tensors, lambda path: read_foreign(path, "model")], ids=["ours", "foreign"])
def test_a_flipped_bit_of_the_body_is_named(path, read):
    write_tensors(path, tensors())
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=f"{path}: damaged, its sha256 is not that of its metadata"):
        read(path)


def test_files_of_others_have_no_digest_and_are_read(path):
    for metadata in (None, {"format": "pt"}):
        save_file(tensors(), path, metadata)
        assert torch.equal(read_tensors(path)[0]["w"], tensors()["w"])
        assert read_tensors(path)[1] == (metadata or {})


def archive(kind):
    stream = io.BytesIO()
    if kind == "script":
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), stream)
    elif kind == "numpy":
        np.savez(stream, w=np.zeros(3))
    else:
        torch.save({"w": torch.zeros(2)}, stream)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("name", ["ViT-B-16.pt", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: archive("script"), "a TorchScript archive, which is a program; use pretrained='openai'"),
        (lambda: archive("numpy"), "a NumPy archive; use safetensors or a torch file"),
        (lambda: b"", "an empty file; fetch or train it again"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer.* git lfs pull"),
        (lambda: b"\n <!doctype html><title>404</title>", "a web page .*; fetch the file again"),
        (lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
        (lambda: b"GGUF" + bytes(64), "a GGUF file"),
    ],
    ids=["script", "numpy", "empty", "lfs", "web", "hdf5", "gguf"],
)
def test_what_is_no_weights_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content())
    for read in (read_tensors, lambda path: read_foreign(path, "model")):
        with pytest.raises(ValueError, match=f"^{path}: {message}") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_folder_is_no_weights(tmp_path):
    for read in (read_tensors, lambda path: read_foreign(path, "model")):
        with pytest.raises(ValueError, match=f"{tmp_path}: a folder; give the file of weights in it"):
            read(tmp_path)
    write_tensors(tmp_path / "tcl.safetensors", tensors())
    with pytest.raises(ValueError, match=f"a folder; give {tmp_path / 'tcl.safetensors'}"):
        read_tensors(tmp_path)


def test_a_pipe_is_no_weights_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(ValueError, match="w.pt: not a file"):
        read_foreign(tmp_path / "w.pt", "model")


def test_a_header_whose_length_reads_like_a_web_page(path):
    """The first byte of a length may be any, the sign < and whitespace among them."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, separators=(",", ":")).encode()
    for length in (0x3C, 0x3C20):
        path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + bytes([7]))
        assert read_tensors(path)[0]["w"].tolist() == [7], length


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_read_is_not_mapped(path):
    """Windows would refuse to replace or remove the file."""
    write_tensors(path, tensors())
    found = read_tensors(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    write_tensors(path, {"w": torch.zeros(1)})
    assert torch.equal(found[0]["w"], tensors()["w"])


def test_the_content_decides_not_the_name(tmp_path):
    (tmp_path / "torch.safetensors").write_bytes(archive("torch"))
    write_tensors(tmp_path / "ours.pt", {"w": torch.zeros(2)})
    for name in ("torch.safetensors", "ours.pt"):
        assert read_foreign(tmp_path / name, "model")["w"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="not a readable safetensors file .*a torch file"):
        read_tensors(tmp_path / "torch.safetensors")


def test_a_misfit_stays_one_short_line():
    module = nn.Sequential(*[nn.Linear(2, 2) for _ in range(50)])
    with pytest.raises(ValueError) as error:
        load_exactly(module, {f"other{i}": torch.zeros(1) for i in range(9)}, "w.safetensors")
    assert "and 95 more, unexpected ['other0'" in str(error.value) and "and 4 more" in str(error.value)
    assert len(str(error.value)) < 300 and json.dumps(str(error.value)).count("\\n") == 0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_products_are_exact_where_autocast_rounds_matrix_products(half, given):
    generator = torch.Generator().manual_seed(0)
    first, second = (nn.functional.normalize(torch.randn(5, 512, generator=generator), dim=1).to(given) for _ in "ab")
    exact = torch.tensor([[sum((a * b).double()) for b in second] for a in first])
    with torch.autocast("cpu", dtype=half):
        found, plain = products(first, second), first.float() @ second.float().T
    assert found.dtype == given and plain.dtype == half
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)
    assert (plain.double() - exact).abs().max() > 1e-5, "what it is for"
    assert products(first.to(half), second).dtype == torch.float32
