"""TCL as a method: what it is before training, what its scores may depend on, what is frozen, how weights are kept."""

import copy
from unittest.mock import ANY

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

import ovs_lite
import ovs_lite.pamr as module
from kit.clips import random_texts, shaken, tiny_clip
from kit.images import normal_images
from ovs_lite.checkpoints import check_checkpoint, load_method, save_method
from ovs_lite.clip import load_clip
from ovs_lite.config import LoopConfig
from ovs_lite.data.loaders.pair_batches import PairBatch
from ovs_lite.methods import get_method
from ovs_lite.methods.tcl.config import TclConfig
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.methods.tcl.training import TclTraining
from ovs_lite.pamr import pamr
from ovs_lite.tensors import read_tensors, write_tensors

NO_WEIGHTS = "tcl.safetensors: no such weights; train them with: ovs-lite train tcl"
SIZES = [(64, 64), (128, 96), (72, 64)]


@pytest.fixture(scope="module")
def clip():
    return load_clip("ViT-Lite-8")


@pytest.fixture(scope="module")
def untrained(clip):
    return Tcl(copy.deepcopy(clip)).eval()


@pytest.fixture(scope="module")
def trained(clip):
    method = Tcl(copy.deepcopy(clip)).eval()
    shaken(method.grounder, 0.05, seed=2)
    return method


def maskclip_masks(clip, images, text):
    """Eq. 5 with its start values on MaskCLIP's patches, (B, K, h, w)."""
    cosines = torch.einsum("bdhw,kd->bkhw", F.normalize(clip.dense(images, "value"), dim=1), text)
    return torch.sigmoid(10 * cosines - 2.5)


def enlarged(masks, size):
    return F.interpolate(masks, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_untrained_and_unrefined_it_is_maskclip_enlarged(untrained, size):
    images, text = normal_images(*size), random_texts(3)
    nearest = maskclip_masks(untrained.clip, images, text).repeat_interleave(4, 2).repeat_interleave(4, 3)
    found = untrained.predict(images, text, refine=False, kp_weight=0)
    torch.testing.assert_close(found, enlarged(nearest, size), rtol=0, atol=1e-5)
    plain = get_method("maskclip", untrained.clip).predict(images, text)
    agree = found.argmax(1) == plain.argmax(1)
    assert agree.float().mean() > 0.85


@torch.no_grad()
def test_the_papers_kept_masks_use_the_learned_scale_and_bias(clip, untrained):
    method = Tcl(copy.deepcopy(clip)).eval()
    method.grounder.scale.fill_(7.0), method.grounder.bias.fill_(-1.0)
    images, text = normal_images(64, 64), random_texts(3)
    kept = method.predict(images, text, kp_weight=1, kp_variant="paper").logit()
    patches = F.normalize(clip.dense(images, "value"), dim=1)
    masks = torch.sigmoid(7 * torch.einsum("bdhw,kd->bkhw", patches, text) - 1)
    expected = enlarged(enlarged(masks, (32, 32)), (64, 64))
    torch.testing.assert_close(kept.sigmoid(), expected, rtol=0, atol=1e-5)
    same = (untrained.predict(images, text, kp_variant=variant) for variant in ("paper", "released"))
    torch.testing.assert_close(*same, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="got kp_variant='learned', expected released or paper"):
        method.predict(images, text, kp_variant="learned")


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_kp_weight_mixes_in_the_frozen_masks(trained, size):
    images, text = normal_images(*size), random_texts(3)
    small = maskclip_masks(trained.clip, images, text)
    frozen = enlarged(enlarged(small, [4 * side for side in small.shape[2:]]), size)
    for refine in (True, False):
        grounded = trained.predict(images, text, refine=refine, kp_weight=0)
        torch.testing.assert_close(trained.predict(images, text, refine=refine, kp_weight=1), frozen, rtol=0, atol=1e-5)
        for weight in (0.3, 0.8):
            expected = (1 - weight) * grounded + weight * frozen
            found = trained.predict(images, text, refine=refine, kp_weight=weight)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert (grounded - frozen).abs().max() > 0.08
    assert torch.equal(trained.predict(images, text), trained.predict(images, text, refine=True, kp_weight=0.3))


@torch.no_grad()
def test_refinement_is_pamr_at_the_masks_own_size(trained):
    images, text = normal_images(64, 96), random_texts(3)
    pixels = trained.pixel_embeddings(images)
    assert pixels.shape == (2, 128, 32, 48)
    grounder = trained.grounder
    masks = torch.sigmoid(
        grounder.scale * torch.einsum("bdhw,kd->bkhw", F.normalize(pixels, dim=1), text) + grounder.bias
    )
    shrunk = F.interpolate(images, (32, 48), mode="bilinear", align_corners=True)
    expected = enlarged(pamr(shrunk, masks), (64, 96))
    torch.testing.assert_close(trained.predict(images, text, refine=True, kp_weight=0), expected, rtol=0, atol=1e-5)
    unrefined = trained.predict(images, text, refine=False, kp_weight=0)
    torch.testing.assert_close(unrefined, enlarged(masks, (64, 96)), rtol=0, atol=1e-5)
    assert (unrefined - expected).abs().max() > 0.08


def test_another_word_reads_no_colours_again(trained, monkeypatch):
    """PAMR's weights belong to the picture: they are computed for the first words and kept."""
    calls, affinity = [], module.affinity
    monkeypatch.setattr(module, "affinity", lambda *given: calls.append(1) or affinity(*given))
    features = trained.encode(normal_images(64, 64))
    first = trained.scores(features, random_texts(2, trained.clip.embed_dim))
    assert len(calls) == 2, "once for each image"
    again = trained.scores(features, random_texts(2, trained.clip.embed_dim))
    assert len(calls) == 2 and torch.equal(first, again)


@pytest.mark.parametrize(
    "size, margins", [((64, 64), (0, 0)), ((61, 70), (1, 1)), ((50, 57), (3, 3)), ((3, 9), (2, 3))]
)
@torch.no_grad()
def test_other_sides_are_padded_on_both_sides_and_cut_again(trained, size, margins):
    """An odd pixel goes to the end: 70 columns get one zero before and one after, 61 rows one and two."""
    images, text = normal_images(*size), random_texts(2)
    padded = torch.zeros(2, 3, *(-(-side // 8) * 8 for side in size))
    inside = (..., slice(margins[0], margins[0] + size[0]), slice(margins[1], margins[1] + size[1]))
    padded[inside] = images
    found = trained.predict(images, text)
    assert found.shape == (2, 2, *size)
    torch.testing.assert_close(found, trained.predict(padded, text)[inside], rtol=0, atol=1e-6)


def test_scores_are_probabilities_without_gradient(trained):
    images, text = normal_images(40, 50).requires_grad_(), random_texts(4).requires_grad_()
    found = trained.predict(images, text)
    assert found.shape == (2, 4, 40, 50) and found.dtype == torch.float32 and not found.requires_grad
    assert 0 < found.min() and found.max() < 1 and torch.equal(found, trained.predict(images, text))


@pytest.mark.parametrize("refine", [True, False])
@torch.no_grad()
def test_classes_and_pictures_are_independent(trained, refine):
    images, text = normal_images(48, 64, batch=3), random_texts(9)
    found = trained.predict(images, text, refine=refine)
    for count in (1, 4, 8):
        alone = trained.predict(images, text[:count], refine=refine)
        torch.testing.assert_close(alone, found[:, :count], rtol=0, atol=1e-5)
    order = torch.tensor([3, 5, 0, 1, 4, 2, 8, 7, 6])
    torch.testing.assert_close(trained.predict(images, text[order], refine=refine), found[:, order], rtol=0, atol=1e-5)
    single = torch.cat([trained.predict(image[None], text, refine=refine) for image in images])
    torch.testing.assert_close(single, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("weight", [-0.1, 1.01, float("nan")])
def test_a_kp_weight_outside_is_refused(trained, weight):
    with pytest.raises(ValueError, match=f"got kp_weight={weight}, expected 0 .* to 1"):
        trained.predict(normal_images(8, 8), random_texts(1), kp_weight=weight)


def test_a_convnet_is_refused():
    with pytest.raises(ValueError, match="got image tower TimmModel, expected open_clip's ViT with a projection"):
        Tcl(load_clip("ConvNeXt-Lite", pretrained=None))


def test_the_grounder_starts_as_copies_of_clip(clip, untrained):
    visual, grounder = untrained.clip.network.visual, untrained.grounder
    last = visual.transformer.resblocks[-1]
    for copied, original in ((grounder.block, last), (grounder.norm, visual.ln_post)):
        assert all(torch.equal(v, original.state_dict()[k]) for k, v in copied.state_dict().items())
        assert {v.data_ptr() for v in copied.parameters()}.isdisjoint(v.data_ptr() for v in original.parameters())
    assert torch.equal(grounder.proj, visual.proj) and grounder.proj.data_ptr() != visual.proj.data_ptr()
    assert (grounder.scale.item(), grounder.bias.item()) == (10, -2.5)
    assert grounder.image_scale.item() == grounder.feature_scale.item() == pytest.approx(2.65926)
    assert untrained.trained_part() is grounder and all(value.requires_grad for value in grounder.parameters())


@pytest.mark.parametrize("unfreeze", [None, 0, 1])
def test_training_moves_the_grounder_and_never_clip(unfreeze):
    method = Tcl(tiny_clip())
    shaken(method.grounder, 0.05, seed=2)
    before = copy.deepcopy(method.clip.state_dict())
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    config = TclConfig(loop=LoopConfig(steps=2), unfreeze=1.0 if unfreeze is None else unfreeze / 2)
    batch = PairBatch(images, ["a cat", "a dog", "sky"], ["a", "b", "c"], 3)
    training = TclTraining(method, lambda index: batch, config)
    for index in (0, 1):
        method.zero_grad(set_to_none=True)
        sum(training.losses(training.batch(index)).values()).backward()
        assert all(value.grad is None and not value.requires_grad for value in method.clip.parameters())
        learns = unfreeze is not None and index >= unfreeze
        for name, value in method.grounder.named_parameters():
            if name.startswith("block."):
                assert (value.grad is not None) == learns, name
            else:
                assert value.grad.abs().max() > 0, name
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    assert all(torch.equal(value, before[key]) for key, value in method.clip.state_dict().items())


@torch.no_grad()
def test_weights_are_kept_in_half_precision_with_what_they_belong_to(clip, trained, tmp_path):
    path = tmp_path / "tcl.safetensors"
    save_method(trained, path, {"steps": "7", "clip": "not this"})
    with safe_open(path, "pt") as file:
        about, dtypes = file.metadata(), {file.get_tensor(key).dtype for key in file.keys()}
    assert dtypes == {torch.float16}
    known = f"{clip.fingerprint()}-{clip.image_fingerprint()}"
    assert about == {"method": "tcl", "clip": "ViT-Lite-8", "clip_fingerprint": known, "steps": "7", "sha256": ANY}
    read = load_method("tcl", clip, path)
    assert isinstance(read, Tcl) and read.clip is clip and not read.training
    for key, value in trained.grounder.state_dict().items():
        assert torch.equal(read.grounder.state_dict()[key], value.half().float()), key
    images, text = normal_images(64, 64), random_texts(3)
    expected = trained.predict(images, text)
    torch.testing.assert_close(read.predict(images, text), expected, rtol=0, atol=2e-2)
    assert (load_method("tcl", clip, str(path)).predict(images, text) == read.predict(images, text)).all()


def rewritten(path, changes, **about):
    """A copy of a weights file with other tensors and notes."""
    tensors, notes = read_tensors(path)
    tensors |= changes
    write_tensors(path, {k: v for k, v in tensors.items() if v is not None}, notes | about)
    return path


def test_weights_of_another_clip_are_refused(trained, tmp_path):
    path = tmp_path / "tcl.safetensors"
    save_method(trained, path)
    image_only = copy.deepcopy(trained.clip)
    image_only.network.visual.proj.data[0, 0] += 1
    for other in (load_clip("ViT-Lite-8", pretrained=None), image_only):
        with pytest.raises(ValueError, match="CLIP 'ViT-Lite-8', whose weights or configuration are not those of the"):
            load_method("tcl", other, path)


def test_weights_of_another_method_and_other_tensors_are_refused_by_name(clip, trained, tmp_path):
    path = tmp_path / "tcl.safetensors"
    save_method(trained, path)
    with pytest.raises(ValueError, match="tcl.safetensors: weights of 'openseg', expected those of 'tcl'"):
        load_method("tcl", clip, rewritten(path, {}, method="openseg"))
    changes = {"scale": None, "gamma": torch.ones(1), "norm.bias": torch.ones(3)}
    message = r"tcl.safetensors: missing \['scale'\], unexpected \['gamma'\], of another shape \['norm.bias \(3,\) for"
    with pytest.raises(ValueError, match=message):
        load_method("tcl", clip, rewritten(path, changes, method="tcl"))
    save_file({"scale": torch.ones(())}, path)
    with pytest.raises(ValueError, match="tcl.safetensors: unexpected keys .*'scale'.*is this TCL's file?"):
        load_method("tcl", clip, path)


def test_damaged_and_missing_weights(clip, trained, tmp_path):
    path = tmp_path / "tcl.safetensors"
    save_method(trained, path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:100], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="tcl.safetensors: (an empty file|not a readable safetensors file)"):
            load_method("tcl", clip, path)
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match="tcl.safetensors: no such weights; train them with: ovs-lite train tcl"
    ):
        load_method("tcl", clip, path)


def test_load_says_that_shipped_weights_are_missing_before_anything_is_built(tmp_path, monkeypatch, clip, trained):
    monkeypatch.setattr("ovs_lite.methods.trained.shipped_weights", lambda kind: tmp_path / f"{kind.name}.safetensors")
    with pytest.raises(
        FileNotFoundError, match="tcl.safetensors: no such weights; train them with: ovs-lite train tcl"
    ):
        ovs_lite.load("tcl", clip="no such clip")
    save_method(trained, tmp_path / "tcl.safetensors")
    segmenter = ovs_lite.load("tcl", device="cpu")
    assert segmenter.name == "tcl" and check_checkpoint("tcl", None) == tmp_path / "tcl.safetensors"
    scale = segmenter.method.grounder.scale.item()
    assert scale == pytest.approx(trained.grounder.scale.item(), rel=1e-3) and scale != 10


def test_methods_that_train_nothing_keep_no_weights(clip, tmp_path):
    assert check_checkpoint("maskclip", None) is None and load_method("maskclip", clip).name == "maskclip"
    with pytest.raises(ValueError, match="'x.safetensors', but maskclip has no trained weights of its own"):
        load_method("maskclip", clip, "x.safetensors")
    with pytest.raises(ValueError, match="got the method maskclip, expected one with trained weights"):
        save_method(get_method("maskclip", clip), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="got method 'tcll', .*did you mean 'tcl'"):
        load_method("tcll", clip)
