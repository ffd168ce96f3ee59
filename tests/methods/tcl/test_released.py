"""The released TCL checkpoint: masks, texts, losses and gradients against the released code's own computation.

`released_tcl` restates that code on the tensors of a file; here such files are written, with random weights, and read.
"""

import copy

import open_clip
import pytest
import torch

from kit import released_tcl as released
from kit.released_files import NAMES, SIDE, assert_agrees, open_clip_model, pictures, tokenize, written
from ovs_lite.checkpoints import load_official_tcl
from ovs_lite.clip import wrap_clip
from ovs_lite.data.loaders.pair_batches import PairBatch
from ovs_lite.methods.tcl import released as reader
from ovs_lite.methods.tcl.config import TclConfig
from ovs_lite.methods.tcl.training import TclTraining

CAPTIONS = ["a cat on the grass", "two dogs", "the sky over " + 20 * "green " + "hills"]


@pytest.fixture(scope="module", params=[64, 128], ids="width-{}".format)
def full(request, tmp_path_factory):
    """The tensors of a whole file with one or two heads, the file, and the method that was read from it."""
    tensors = released.random_released(width=request.param)
    path = tmp_path_factory.mktemp("tcl") / "tcl.pth"
    torch.save({"model": tensors, "step": 50000}, path)
    return tensors, path, load_official_tcl(path)


@pytest.fixture(scope="module")
def tensors():
    return released.random_released()


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (32, 72), (45, 70), (9, 33)])
@torch.no_grad()
def test_masks_are_those_of_the_released_code(full, size, refine):
    tensors, _, method = full
    texts = released.class_embeddings(tensors, NAMES, tokenize)
    assert not method.training
    images = pictures(*size)
    for count in (1, 5):
        found = {}
        for kp_weight in (0, 0.3, 1):
            found[kp_weight] = method.predict(images, texts[:count], refine=refine, kp_weight=kp_weight)
            expected = released.predict(tensors, images, texts[:count], refine, kp_weight)
            torch.testing.assert_close(found[kp_weight], expected, atol=2e-5, rtol=0)
        assert (found[0] - found[0.3]).abs().max() > 0.05 and (found[1] - found[0.3]).abs().max() > 0.05
    default = method.predict(images, texts)
    assert torch.equal(default, method.predict(images, texts, refine=True, kp_weight=0.3))


@torch.no_grad()
def test_in_double_precision_masks_agree_to_eleven_digits(full):
    tensors, path = released.doubled(full[0]), full[1]
    method, texts = load_official_tcl(path).double(), released.class_embeddings(tensors, NAMES, tokenize)
    images = pictures(45, 70, dtype=torch.float64)
    expected = released.predict(tensors, images, texts)
    torch.testing.assert_close(method.predict(images, texts), expected, atol=1e-11, rtol=0)


@torch.no_grad()
def test_texts_are_the_raw_mean_of_the_nine_sentences(full):
    tensors, _, method = full
    found = method.clip.text_embeddings(NAMES, method.templates)
    expected = released.class_embeddings(tensors, NAMES, tokenize)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    sentences = [[template.replace("{}", name) for template in released.TEMPLATES] for name in NAMES]
    of_units = torch.stack([released.unit(released.unit(released.text_tower(tensors, tokenize(nine))).mean(0))
                            for nine in sentences])  # fmt: skip
    assert (of_units - expected).abs().max() > 1e-4


def test_pictures_have_imagenets_statistics(full):
    clip = full[2].clip
    assert clip.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert clip.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    image = torch.tensor([0.714, 0.68, 0.181]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert clip.normalise(image)[0, :, 1, 1].tolist() == pytest.approx([1, 1, -1])


@pytest.mark.parametrize("width", [64, 128])
def test_sizes_are_inferred_and_a_head_is_64_wide(width, tmp_path):
    more = {"layers": 2, "patch": 4, "image": 16, "embed": 24, "text_layers": 1, "text_width": 192, "context": 9}
    path = written(released.random_released(width=width, vocabulary=50, **more), tmp_path / "tcl.pth")
    clip = load_official_tcl(path).clip
    visual, network = clip.network.visual, clip.network
    assert (clip.image_size, clip.patch_size, clip.embed_dim) == (16, 4, 24)
    assert len(visual.transformer.resblocks) == 2 and len(network.transformer.resblocks) == 1
    assert {block.attn.num_heads for block in visual.transformer.resblocks} == {width // 64}
    assert network.transformer.resblocks[0].attn.num_heads == 3
    assert network.context_length == 9 and network.vocab_size == 50


def grounder_keys(layers=3):
    """Every trained tensor of ours and where the released file has it, by hand."""
    block, net = f"masker.image_encoder.backbone.transformer.resblocks.{layers - 1}.", released.DECODER
    leaves = ["attn.in_proj_weight", "attn.in_proj_bias"]
    leaves += [f"{part}.{leaf}" for part in ("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
               for leaf in ("weight", "bias")]  # fmt: skip
    keys = {"block." + leaf: block + leaf for leaf in leaves}
    for stage in (0, 1):
        for ours, theirs in (("1", "conv"), ("2", "conv2")):
            for leaf in ("norm.weight", "norm.bias", "conv.weight", "conv.bias"):
                keys[f"decoder.stages.{stage}.{ours}.{leaf}"] = f"{net}{stage}.{theirs}.{leaf}"
            keys[f"decoder.stages.{stage}.{ours}.gate"] = f"{net}{stage}.{theirs}.gate.gate"
    last = "masker.image_encoder.decoder.image_proj."
    return keys | {
        "scale": "masker.sim2mask.w", "bias": "masker.sim2mask.b", "image_scale": "tcli_loss.logit_scale",
        "feature_scale": "tclf_loss.logit_scale", "norm.weight": last + "ln.weight", "norm.bias": last + "ln.bias",
        "proj": last + "proj",
    }  # fmt: skip


@pytest.mark.parametrize("unfreeze", [None, 0], ids=["block frozen", "block trained"])
def test_every_loss_and_every_gradient_is_that_of_the_released_code(full, unfreeze, monkeypatch):
    method, tensors = load_official_tcl(full[1]).double(), released.doubled(full[0], trained=True)
    generator = torch.Generator().manual_seed(2)
    images, uniform = (torch.rand(3, *shape, generator=generator, dtype=torch.float64)
                       for shape in ((3, SIDE, SIDE), (1, SIDE // 2, SIDE // 2)))  # fmt: skip
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    expected = released.losses(tensors, method.clip.normalise(images), tokenize(CAPTIONS), uniform)
    config = TclConfig(unfreeze=1.0 if unfreeze is None else 0.0)
    training = TclTraining(method, lambda index: PairBatch(images, CAPTIONS, ["a", "b", "c"], 3), config)

    def rand(shape, **_):
        assert tuple(shape) == uniform.shape, "one draw, for the own masks alone"
        return uniform

    monkeypatch.setattr(torch, "rand", rand)
    found = training.losses(training.batch(0))
    assert set(found) == {"image", "feature", "area", "smooth"}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-10)
    assert training.weights == {"image": 0.1, "feature": 0.1, "area": 0.4, "smooth": 1.0, "contrastive": 0.0}
    sum(training.weights[name] * value for name, value in found.items()).backward()
    expected["total"].backward()
    keys = grounder_keys()
    assert keys.keys() == dict(method.grounder.named_parameters()).keys()
    assert set(keys.values()) == {key for key in tensors if key.startswith(released.TRAINED)}
    for ours, theirs in keys.items():
        gradient = method.grounder.get_parameter(ours).grad
        if ours.startswith("block.") and unfreeze is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, tensors[theirs].grad, rtol=1e-8, atol=1e-10)
            assert tensors[theirs].grad.abs().max() > 1e-4
    assert all(value.grad is None for value in method.clip.parameters())


@torch.no_grad()
def test_a_clip_that_is_named_is_not_fetched_where_the_file_holds_both_towers(tensors, tmp_path, monkeypatch):
    path = written(tensors, tmp_path / "tcl.pth")
    monkeypatch.setattr(reader, "load_clip", lambda *_: pytest.fail("fetched"))
    assert_agrees(load_official_tcl(path, "ViT-B-16"), tensors)
    assert_agrees(load_official_tcl(str(path)), tensors)


@torch.no_grad()
def test_a_clip_that_is_named_is_openais(tensors, tmp_path, monkeypatch):
    asked = []
    given = wrap_clip(open_clip_model(tensors), "any")
    monkeypatch.setattr(reader, "load_clip", lambda *names: asked.append(names) or given)
    assert_agrees(load_official_tcl(written(released.minimal(tensors), tmp_path / "tcl.pth"), "ViT-B-16"), tensors)
    assert asked == [("ViT-B-16", "openai")]


@pytest.mark.parametrize("temperatures", [True, False])
@pytest.mark.parametrize("wrapped", [True, False], ids=["our Clip", "open_clip module"])
@torch.no_grad()
def test_a_minimal_file_stands_on_the_given_clip_and_leaves_it_alone(tensors, tmp_path, wrapped, temperatures):
    network = open_clip_model(tensors)
    given = wrap_clip(network, "any") if wrapped else network
    before = copy.deepcopy(network.state_dict())
    method = load_official_tcl(written(released.minimal(tensors, temperatures), tmp_path / "tcl.pth"), given)
    assert_agrees(method, tensors)
    expected = (2.9, 2.3) if temperatures else (2.659260, 2.659260)  # ln(1 / 0.07)
    assert (method.grounder.image_scale.item(), method.grounder.feature_scale.item()) == pytest.approx(expected)
    texts = released.class_embeddings(tensors, NAMES, tokenize)
    torch.testing.assert_close(method.clip.text_embeddings(NAMES, method.templates), texts, atol=1e-6, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(value.requires_grad for value in network.parameters()) and network is not method.clip.network
    if wrapped:
        assert given.mean.flatten().tolist() == pytest.approx(open_clip.OPENAI_DATASET_MEAN)


@torch.no_grad()
def test_the_files_own_towers_win(tensors, tmp_path):
    other = released.random_released(seed=5)
    path = written(tensors, tmp_path / "tcl.pth")
    assert_agrees(load_official_tcl(path, open_clip_model(other)), tensors)
    image_only = {key: value for key, value in tensors.items() if not key.startswith(released.TEXT)}
    method = load_official_tcl(written(image_only, path), open_clip_model(other))
    assert_agrees(method, tensors)
    found = method.clip.text_embeddings(NAMES, method.templates)
    torch.testing.assert_close(found, released.class_embeddings(other, NAMES, tokenize), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_the_device_is_the_given_clips(tensors, tmp_path):
    given = wrap_clip(open_clip_model(tensors), "any").to("meta")
    for held in (tensors, released.minimal(tensors)):
        method = load_official_tcl(written(held, tmp_path / "tcl.pth"), given)
        assert method.clip.device.type == method.grounder.scale.device.type == "meta"
