"""Shipped weights: half precision and only the used token rows go out, the same network comes back."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovs_lite.clip import load_clip
from ovs_lite.clip.lite import files
from ovs_lite.clip.lite.files import ROW_IDS, ROWS, TABLE, load_lite, save_lite, shipped_path
from ovs_lite.tensors import read_tensors

TEXTS = ["a photo of a cat.", "a red boat and a tree"]


def network(name="ViT-Lite-8", seed=0):
    torch.manual_seed(seed)
    return load_clip(name, pretrained=None).network


def used(name="ViT-Lite-8"):
    return load_clip(name, pretrained=None).tokenizer(TEXTS).unique()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_lite(network(), path, used(), {"steps": "7"})
    return path


@pytest.mark.parametrize("name", ["ViT-Lite-8", "ConvNeXt-Lite"])
def test_round_trip_keeps_everything_but_unused_rows(name, tmp_path):
    path, before, after = tmp_path / "weights.safetensors", network(name), network(name, seed=1)
    ids = used(name)
    save_lite(before, path, ids, {"steps": "7", "command": "ovs-lite train clip"})
    load_lite(after, path)
    assert read_tensors(path)[1].items() >= {"steps": "7", "command": "ovs-lite train clip"}.items()
    old, new = before.state_dict(), after.state_dict()
    assert (old[TABLE][ids].half().float() == new[TABLE][ids]).all()
    unused = torch.ones(len(old[TABLE]), dtype=torch.bool).index_fill(0, ids, False)
    assert not (old[TABLE][unused][:50] == new[TABLE][unused][:50]).any(1).all()
    for key in set(old) - {TABLE}:
        expected = old[key].half().to(old[key].dtype) if old[key].is_floating_point() else old[key]
        assert (expected == new[key]).all() and new[key].dtype == old[key].dtype, key


def test_the_file_is_small_and_holds_no_full_table(saved):
    tensors = load_file(saved)
    assert TABLE not in tensors and tensors[ROWS].shape == (len(used()), 128)
    assert tensors[ROW_IDS].tolist() == used().tolist()
    assert all(value.dtype == torch.float16 for value in tensors.values() if value.is_floating_point())
    kept = sum(value.numel() for key, value in network().named_parameters() if key != TABLE)
    assert saved.stat().st_size < 2.2 * kept
    assert list(saved.parent.iterdir()) == [saved]


def test_unused_rows_are_the_same_on_every_load_and_random_numbers_untouched(saved):
    first, second = network(seed=1), network(seed=2)
    torch.manual_seed(5)
    load_lite(first, saved)
    drawn = torch.rand(3)
    load_lite(second, saved)
    assert (first.state_dict()[TABLE] == second.state_dict()[TABLE]).all()
    torch.manual_seed(5)
    assert (drawn == torch.rand(3)).all()
    rows = first.state_dict()[TABLE]
    unused = torch.ones(len(rows), dtype=torch.bool).index_fill(0, used(), False)
    assert float(rows[unused].std()) == pytest.approx(0.02, rel=0.01)


def test_wrong_tensors_are_named_with_the_file(saved):
    good = load_file(saved)
    without = {key: value for key, value in good.items() if key != "visual.proj"}
    cases = [
        (without, "missing .'visual.proj'., unexpected .., of another shape .."),
        ({**good, "extra": torch.zeros(1)}, "missing .., unexpected .'extra'., of another shape .."),
        (
            {**good, "visual.proj": torch.zeros(3, 4)},
            "missing .., unexpected .., of another shape .'visual.proj .3, 4. for ",
        ),
        ({key: value for key, value in good.items() if key != ROW_IDS}, f"expected the tensors {ROWS} and {ROW_IDS}"),
    ]
    for tensors, message in cases:
        save_file(tensors, saved)
        untouched = network()
        with pytest.raises(ValueError, match=f"{saved}: {message}"):
            load_lite(untouched, saved)
        expected = network().state_dict()
        assert all((value == expected[key]).all() for key, value in untouched.state_dict().items())


def test_a_damaged_or_missing_file_is_named(saved, tmp_path, monkeypatch):
    content = saved.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], bytes(range(256)) * 9):
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{saved}: (an empty file|not a readable safetensors file)"):
            load_lite(network(), saved)
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such weights"):
        load_lite(network(), tmp_path / "none.safetensors")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "files.py"))
    with pytest.raises(FileNotFoundError, match="ViT-Lite-8.safetensors is missing: .*ovs-lite train clip ViT-Lite-8"):
        shipped_path("ViT-Lite-8")
    with pytest.raises(FileNotFoundError, match="ViT-Lite-8.safetensors is missing"):
        load_clip("ViT-Lite-8")
