"""Files that hold a released TCL in other ways, files with code in them, and files that are refused by name."""

import importlib
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kit.oracles import released_tcl as released
from kit.oracles.released_files import CONTEXT, assert_agrees, open_clip_model, written
from ovs_lite.checkpoints import load_official_tcl
from ovs_lite.clip import load_clip
from ovs_lite.methods.tcl import released as reader


@pytest.fixture(scope="module")
def tensors():
    return released.random_released()


@pytest.fixture(scope="module")
def mute():
    """The same with a small vocabulary, for files that nobody asks for words."""
    return released.random_released(vocabulary=50)


VARIANTS = {
    "prefix of DistributedDataParallel": lambda t: {"module." + key: value for key, value in t.items()},
    "kernels of PAMR": lambda t: t | released.pamr_kernels(),
    "scalars with an axis": lambda t: {k: v.reshape(1) if v.ndim == 0 else v for k, v in t.items()},
    "text tower in a module": lambda t: {k.replace(released.TEXT, released.TEXT + "clip."): v for k, v in t.items()},
    "temperature and mask of the text tower": lambda t: t | {
        released.TEXT + "logit_scale": torch.tensor(4.6), released.TEXT + "attn_mask": torch.zeros(CONTEXT, CONTEXT)},
}  # fmt: skip


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_other_ways_to_write_the_same_tensors(tensors, change, tmp_path):
    assert_agrees(load_official_tcl(written(change(tensors), tmp_path / "tcl.pth")), tensors)


@torch.no_grad()
def test_half_precision_safetensors_and_a_bare_dictionary(tensors, tmp_path):
    half = {key: value.half() for key, value in tensors.items()}
    method = load_official_tcl(written(half, tmp_path / "half.pth"))
    assert all(value.dtype == torch.float32 for value in method.parameters())
    rounded = {key: value.float() for key, value in half.items()}
    assert_agrees(method, rounded)
    method = load_official_tcl(written(released.minimal(half), tmp_path / "half.pth"), open_clip_model(tensors).half())
    assert all(value.dtype == torch.float32 for value in method.parameters())
    assert_agrees(method, rounded)
    save_file(tensors, tmp_path / "tcl.safetensors")
    assert_agrees(load_official_tcl(tmp_path / "tcl.safetensors"), tensors)
    torch.save(tensors, tmp_path / "bare.pth")
    assert_agrees(load_official_tcl(tmp_path / "bare.pth"), tensors)


TRAP = """
from pathlib import Path

class Node:
    def __getstate__(self):
        return ["lr", 7.5e-5]
    def __setstate__(self, state):
        spring("a class of the file was filled")

def spring(text):
    Path({mark!r}).write_text(text)

class Config:
    def __reduce__(self):
        return spring, ("a function of the file was called",)
"""


@pytest.mark.parametrize("importable", [True, False], ids=["importable", "gone"])
@pytest.mark.parametrize("kind", ["Node", "Config"])
@torch.no_grad()
def test_a_configuration_of_a_foreign_class_is_never_made(tensors, tmp_path, monkeypatch, kind, importable):
    name, mark, path = f"trap_{kind}_{importable}", tmp_path / "mark", tmp_path / "tcl.pth"
    (tmp_path / f"{name}.py").write_text(TRAP.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    trap = importlib.import_module(name)
    config = {"train": {"nodes": [getattr(trap, kind)()], "betas": (0.9, 0.999)}}
    torch.save({"config": config, "model": released.minimal(tensors), "step": 1}, path)
    torch.load(path, weights_only=False)
    assert mark.exists(), "a reader that trusts the file springs the trap"
    mark.unlink()
    if not importable:
        (tmp_path / f"{name}.py").unlink()
        monkeypatch.delitem(sys.modules, name)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert_agrees(load_official_tcl(path, open_clip_model(tensors)), tensors)
    assert not mark.exists()
    monkeypatch.delitem(sys.modules, name, raising=False)


def without(tensors, *keys):
    assert set(keys) <= tensors.keys()
    return {key: value for key, value in tensors.items() if key not in keys}


BLOCK = "masker.image_encoder.backbone.transformer.resblocks.2."
MISSING = [
    "masker.sim2mask.w", BLOCK + "mlp.c_fc.bias", released.DECODER + "1.conv2.gate.gate",
    released.DECODER + "0.conv.norm.weight", released.MASKER_PROJECTION + "ln.bias",
    released.MASKER_PROJECTION + "proj",
    released.VISUAL + "conv1.weight", released.VISUAL + "ln_pre.bias", released.VISUAL + "positional_embedding",
    released.VISUAL + "transformer.resblocks.1.ln_2.weight", released.PROJECTION + "proj",
    released.PROJECTION + "ln.weight", released.TEXT + "token_embedding.weight",
    released.TEXT + "positional_embedding", released.TEXT + "text_projection",
    released.TEXT + "transformer.resblocks.0.attn.in_proj_weight",
]  # fmt: skip


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_key_is_named_as_the_file_has_it(mute, tmp_path, key):
    path = written(without(mute, key), tmp_path / "tcl.pth")
    with pytest.raises(ValueError) as error:
        load_official_tcl(path, open_clip_model(mute))
    assert str(path) in str(error.value) and f"missing ['{key}']" in str(error.value)


def test_a_missing_block_and_a_missing_decoder_are_named(mute, tmp_path):
    for part, named in ((BLOCK, "resblocks.N.attn.in_proj_bias"), (released.DECODER, "net.0.conv.conv.bias")):
        kept = {key: value for key, value in mute.items() if not key.startswith(part)}
        with pytest.raises(ValueError, match=f"missing .*{named}"):
            load_official_tcl(written(kept, tmp_path / "tcl.pth"))


@pytest.mark.parametrize("key", [
    "masker.sim2mask.temperature", "masker.image_encoder.backbone.transformer.resblocks.1.ln_1.weight", "optimiser.lr",
    released.DECODER + "2.conv.norm.weight", released.DECODER + "0.conv3.gate.gate", released.VISUAL + "ln_post.weight",
    released.VISUAL + "transformer.resblocks.1.ls_1.gamma", released.PROJECTION + "bias", released.TEXT + "pooler.bias",
    "clip_text_encoder_2.bias",
])  # fmt: skip
def test_an_unexpected_key_is_named_as_the_file_has_it(mute, tmp_path, key):
    path = written(mute | {key: torch.ones(64)}, tmp_path / "tcl.pth")
    with pytest.raises(ValueError) as error:
        load_official_tcl(path)
    assert str(path) in str(error.value) and f"unexpected ['{key}']" in str(error.value)


def test_missing_unexpected_and_misshaped_keys_are_named_together(mute, tmp_path):
    wrong = without(mute, "masker.sim2mask.b") | {"masker.bias": torch.ones(1)}
    wrong |= {released.MASKER_PROJECTION + "proj": torch.ones(64, 31), released.VISUAL + "ln_pre.bias": torch.ones(3)}
    with pytest.raises(ValueError) as error:
        load_official_tcl(written(wrong, tmp_path / "tcl.pth"))
    for named in ("missing ['masker.sim2mask.b']", "unexpected ['masker.bias']",
                  "image_proj.proj (64, 31) for (64, 32)", "clip_visual.ln_pre.bias (3,) for (64,)"):  # fmt: skip
        assert named in str(error.value)


@pytest.mark.parametrize("key, axes", [("clip_image_encoder.clip_visual.conv1.weight", 4),
                                       ("clip_image_encoder.clip_proj.proj", 2),
                                       ("clip_text_encoder.token_embedding.weight", 2)])  # fmt: skip
def test_a_tensor_that_cannot_tell_a_size_is_named(mute, tmp_path, key, axes):
    path = written(mute | {key: torch.ones(64)}, tmp_path / "tcl.pth")
    with pytest.raises(ValueError, match=rf"{key} \(64,\) for {axes} axes"):
        load_official_tcl(path)


def test_a_text_tower_alone_no_clip_and_towers_that_do_not_meet(mute, tmp_path):
    path = tmp_path / "tcl.pth"
    towers = {key: value for key, value in mute.items() if key.startswith(("clip_image", "clip_text"))}
    with pytest.raises(ValueError, match="holds a text tower but no image tower .*expected both or neither"):
        text_only = without(mute, *(key for key in towers if key.startswith("clip_image")))
        load_official_tcl(written(text_only, path), open_clip_model(mute))
    image_only = without(mute, *(key for key in towers if key.startswith("clip_text")))
    for held in (released.minimal(mute), image_only):
        with pytest.raises(ValueError, match="holds no whole CLIP of its own; pass clip=.*'ViT-B-16'"):
            load_official_tcl(written(held, path))
    quick = pytest.warns(UserWarning, match="trained on OpenAI's CLIP with QuickGELU, ViT-Lite-8 has GELU")
    with quick, pytest.raises(ValueError, match="image tower of 32 dimensions.* ViT-Lite-8 .*128"):
        load_official_tcl(written(image_only, path), load_clip("ViT-Lite-8", pretrained=None))
    with quick, pytest.raises(ValueError, match=r"image_proj.proj \(64, 32\) for \(128, 128\)"):
        load_official_tcl(written(released.minimal(mute), path), load_clip("ViT-Lite-8", pretrained=None))
    with pytest.raises(ValueError, match="got image tower TimmModel, expected open_clip's ViT"):
        load_official_tcl(path, load_clip("ConvNeXt-Lite", pretrained=None))


def test_another_models_file_is_refused_before_a_clip_is_fetched(mute, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "load_clip", lambda *_: pytest.fail("fetched"))
    path = written({"visual.proj": torch.ones(2, 2)}, tmp_path / "clip.pth")
    with pytest.raises(ValueError, match="visual.proj.*none under 'masker.'"):
        load_official_tcl(path, "ViT-B-16")


def test_files_that_hold_no_tensors(mute, tmp_path):
    path = tmp_path / "tcl.pth"
    for content in ({}, {"model": {}}, {"model": 3}, [torch.ones(2)], torch.ones(2), {"model": nn.Linear(2, 2)}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="tcl.pth: no named tensors in it"):
            load_official_tcl(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_truncated_and_damaged_files(tmp_path, legacy):
    path, generator = tmp_path / "tcl.pth", torch.Generator().manual_seed(0)
    torch.save({"model": {"masker.x": torch.ones(8)}}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    damaged = [whole[: len(whole) * part // 40] for part in range(40)]
    for place in torch.randint(len(whole), (80,), generator=generator).tolist():
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    messages = []
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="tcl.pth: ") as error:
            load_official_tcl(path)
        messages.append(str(error.value))
    assert sum("not a readable checkpoint" in message for message in messages) > 50
    assert not any("weights_only" in message for message in messages), "torch's advice to trust the file"


@pytest.mark.parametrize("name", ["tcl.pth", "tcl.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello\n", b"PK\x03\x04", b"\x80\x02}q\x00.", b"<!doctype html>"])
def test_other_files_and_no_file(tmp_path, name, content):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=f"{name}: no such checkpoint"):
        load_official_tcl(path)
    with pytest.raises(ValueError, match=f"{tmp_path}: a folder; give the file of weights in it"):
        load_official_tcl(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: (not a readable checkpoint|an empty file|a web page)"):
        load_official_tcl(path)
