"""The segmenter: every kind of picture, every kind of mistake, and the promises of its result."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ovs_lite
from kit.images import noise
from ovs_lite.clip import load_clip
from ovs_lite.inference import Window
from ovs_lite.methods import METHODS, get_method, method_class
from ovs_lite.methods.reco.bank import iconworld_bank
from ovs_lite.segmenter import Segmenter, load

QUERIES = ["cat", "grass", "sky"]


@pytest.fixture(autouse=True)
def own_text_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Segmenter(get_method("maskclip", load_clip("ViT-Lite-8", pretrained=None)))


def test_the_result_keeps_its_promises(model):
    result = model.segment(noise(48, 72), QUERIES)
    assert result.labels.shape == (48, 72) and result.labels.dtype == np.int64
    assert result.logits.shape == (3, 48, 72) and result.logits.dtype == np.float32
    assert result.queries == QUERIES and (result.labels == result.logits.argmax(0)).all()
    assert np.abs(result.logits).max() <= 1 + 1e-5
    assert "cat" in repr(result) and "array" not in repr(result)


def test_everything_names_each_region_and_its_result_can_be_drawn(tmp_path):
    image = noise(96, 128)
    namer = load("uniovseg")
    result = namer.everything(image, ["cat", "grass", "sky"], budget=6, templates="single")
    regions = len(result.queries)
    assert 1 < regions <= 6 and set(result.queries) <= {"cat", "grass", "sky"}
    assert result.logits.shape == (regions, 96, 128) and result.labels.max() < regions and result.labels.min() >= -1
    scores = result.logits.max((1, 2))
    assert (np.diff(scores) <= 0).all() and 0 < scores.min() and scores.max() <= 1
    for place in range(regions):
        assert (result.logits[place][result.labels == place] == scores[place]).all(), "drawn where it is"
    assert ((result.labels == -1) == (result.logits.max(0) == 0)).all()
    result.save(tmp_path / "out.png")
    assert Image.open(tmp_path / "out.png").width == max(128, 160)
    assert namer.everything(image, "cat, grass", least_score=1.1).queries == []
    with pytest.raises(ValueError, match="got 1 queries of 2 phrases, expected one phrase for each query"):
        namer.everything(image, ["cat|kitten"])


def test_everything_needs_a_method_that_proposes_masks(model):
    with pytest.raises(ValueError, match="got the method maskclip, expected a mask-based one"):
        model.everything(noise(48, 72), QUERIES)


def test_path_pil_and_array_are_the_same_picture(model, tmp_path):
    array = noise(48, 72)
    Image.fromarray(array).save(tmp_path / "photo.png")
    expected = model.segment(array, QUERIES).logits
    for image in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(array)):
        np.testing.assert_array_equal(model.segment(image, QUERIES).logits, expected)


def test_grey_and_rgba_are_their_rgb(model):
    grey = noise(48, 72)[..., 0]
    expected = model.segment(np.repeat(grey[..., None], 3, 2), QUERIES).logits
    opaque = Image.fromarray(grey).convert("RGBA")
    for image in (grey, Image.fromarray(grey), opaque):
        np.testing.assert_array_equal(model.segment(image, QUERIES).logits, expected)


def test_a_turned_photo_is_segmented_upright(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned clockwise
    stored = Image.fromarray(noise(48, 72))
    stored.save(tmp_path / "turned.png", exif=exif)
    result = model.segment(tmp_path / "turned.png", QUERIES)
    upright = stored.transpose(Image.Transpose.ROTATE_270)
    assert result.labels.shape == (72, 48) and result.image.tobytes() == upright.tobytes()
    np.testing.assert_array_equal(result.logits, model.segment(upright, QUERIES).logits)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (8000, 4), (9, 8000)])
def test_pictures_of_odd_sizes_have_labels_and_an_overlay(model, size):
    result = model.segment(Image.new("RGB", size, "red"), "cat")
    assert result.labels.shape == size[::-1] and (result.labels == 0).all()
    assert result.overlay(legend=False).size == size


def test_background_leaves_weak_pixels_unlabelled(model):
    scores = model.segment(noise(48, 72), QUERIES).logits.max(0)
    middle = float(np.median(scores))
    labels = model.segment(noise(48, 72), QUERIES, background=middle).labels
    assert ((labels == -1) == (scores < middle)).all() and (labels == -1).any() and (labels >= 0).any()
    assert (model.segment(noise(48, 72), QUERIES, background=2).labels == -1).all()
    for wrong in ("grass", True, float("nan"), float("inf"), -np.inf, "nan", [0.3], np.array([0.1, 0.2])):
        with pytest.raises(ValueError, match="background"):
            model.segment(noise(48, 72), QUERIES, background=wrong)


def test_auto_is_the_threshold_of_the_methods_authors(model):
    tcl = load("tcl", device="cpu")
    scores = tcl.segment(noise(48, 72), QUERIES).logits.max(0)
    labels = tcl.segment(noise(48, 72), QUERIES, background="auto").labels
    assert tcl.method.background == 0.4 and ((labels == -1) == (scores < 0.4)).all()
    scene, bare = Path(__file__).parents[1] / "docs" / "scene.png", {"refine": False}
    scores = tcl.segment(scene, ["handbag", "sofa"], **bare).logits.max(0)
    labels = tcl.segment(scene, ["handbag", "sofa"], background="auto", **bare).labels
    assert ((labels == -1) == (scores < 0.5)).all() and ((scores >= 0.4) & (scores < 0.5)).any(), "0.5 without PAMR"
    with pytest.raises(ValueError, match="background='auto', but maskclip names no threshold"):
        model.segment(noise(48, 72), QUERIES, background="auto")


@pytest.mark.parametrize("window", [None, Window(64, 48, 24), Window(64, 48, 24, resize="bilinear")])
def test_new_words_for_an_encoded_image_do_not_encode_it_again(model, window):
    seen = []
    handle = model.clip.network.visual.conv1.register_forward_hook(lambda *given: seen.append(1))
    encoded = model.encode(noise(48, 72), window=window)
    windows = len(seen)
    asked = [(QUERIES, {}), ("boat", {}), (["sky", "cat"], {"background": 0.1, "key_smoothing": "paper"})]
    found = [encoded.segment(queries, **options) for queries, options in asked]
    assert windows == (2 if window is None else 2 * 3) and len(seen) == windows
    for result, (queries, options) in zip(found, asked, strict=True):
        whole = model.segment(noise(48, 72), queries, window=window, **options)
        np.testing.assert_array_equal(result.logits, whole.logits)
        np.testing.assert_array_equal(result.labels, whole.labels)
        assert result.queries == whole.queries and result.image.tobytes() == whole.image.tobytes()
    handle.remove()
    assert len(seen) == 4 * windows and "array" not in repr(encoded)


def test_mistakes_in_the_request_are_reported_before_the_image_is_encoded(model, monkeypatch):
    monkeypatch.setattr(model.method, "encode", lambda images: pytest.fail("the image was encoded"))
    for queries, background in (("cat,", None), ("cat", "grass"), ("cat", "auto")):
        with pytest.raises(ValueError, match="queries|background"):
            model.segment(noise(48, 72), queries, background)


def test_the_order_of_queries_only_orders_the_logits(model):
    forth, back = model.segment(noise(48, 72), QUERIES), model.segment(noise(48, 72), QUERIES[::-1])
    np.testing.assert_allclose(forth.logits, back.logits[::-1], atol=1e-6)


def test_predict_gives_scores_at_input_size(model):
    text = model.clip.text_embeddings(QUERIES)
    scores = model.predict(torch.zeros(2, 3, 40, 61), text)
    assert scores.shape == (2, 3, 40, 61) and not scores.requires_grad


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).load_own is None])
def test_load_knows_every_method(name, monkeypatch):
    monkeypatch.setattr("ovs_lite.methods.reco.method.iconworld_bank", lambda clip: iconworld_bank(clip, count=20))
    weights = "lite" if method_class(name).trains else None  # trained weights belong to one CLIP
    assert load(name, pretrained=weights).segment(noise(48, 72), QUERIES).labels.shape == (48, 72)
    assert ovs_lite.load is load


def test_a_class_scores_as_the_best_of_its_phrases(model, tmp_path):
    apart = model.segment(noise(48, 72), ["kitten", "grass", "cat", "pet"])
    result = model.segment(noise(48, 72), "cat|kitten | pet, grass")
    assert result.queries == ["cat", "grass"]
    np.testing.assert_array_equal(result.logits[0], apart.logits[[0, 2, 3]].max(0))
    np.testing.assert_array_equal(result.logits[1], apart.logits[1])
    assert (result.labels == result.logits.argmax(0)).all() and {0, 1} == set(np.unique(result.labels))
    (tmp_path / "names.txt").write_text("cat|kitten|pet\n\ngrass\n", encoding="utf-8")
    for given in (f"@{tmp_path / 'names.txt'}", ["cat|kitten|pet", "grass"]):
        np.testing.assert_array_equal(model.encode(noise(48, 72)).segment(given).labels, result.labels)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_an_error_and_no_class(model, monkeypatch, broken):
    right = model.method.scores

    def scores(features, text, **options):
        found = right(features, text, **options)
        found[:, 1 if broken > 0 or np.isnan(broken) else slice(None), :3] = broken
        return found

    monkeypatch.setattr(model.method, "scores", scores)
    with pytest.raises(ValueError, match="scores of maskclip that are NaN or infinite, expected numbers"):
        model.segment(noise(48, 72), QUERIES)


@pytest.mark.parametrize("differ", ["at a cat", "at a tree"])
def test_phrases_beyond_the_context_are_named_and_equal_ones_refused(model, differ, monkeypatch):
    long = "the small brown dog with a red collar that is lying on the green grass next to the old white wooden fence "
    long += "behind a house "
    with pytest.warns(UserWarning, match=rf"house and looks {differ}' \(\d+ tokens\).*reads 32 tokens"):
        result = model.segment(noise(48, 72), [f"{long}and looks {differ}", "grass"])
    assert len(result.queries) == 2
    monkeypatch.setattr(model.method, "encode", lambda images: pytest.fail("the image was encoded"))
    with pytest.raises(ValueError, match="at a cat'.*at a tree', which are equal as ViT-Lite-8 reads 32 tokens of"):
        model.segment(noise(48, 72), [f"{long}and looks at a cat", f"{long}and looks at a tree", "grass"])


def test_a_window_or_an_option_of_another_kind_is_refused(model):
    with pytest.raises(ValueError, match="window=64, expected an ovs_lite.inference.Window"):
        model.segment(noise(48, 72), QUERIES, window=64)
    for templates in (3, ["a {}"], "vild15"):
        with pytest.raises(ValueError, match="got template set .*, expected one of vild14"):
            model.segment(noise(48, 72), QUERIES, templates=templates)
    with pytest.raises(ValueError, match="got a method of type Clip"):
        Segmenter(model.clip)
    with pytest.raises(ValueError, match="option 'refine', expected one of key_smoothing"):
        model.segment(noise(48, 72), QUERIES, refine=True)


def test_wrong_pictures_and_names_are_named(model, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        model.segment(tmp_path / "nowhere.jpg", QUERIES)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="text.jpg"):
        model.segment(tmp_path / "text.jpg", QUERIES)
    with pytest.raises(ValueError, match="image of type list"):
        model.segment([[1, 2]], QUERIES)
    with pytest.raises(ValueError, match="maskclip"):
        load("maskclipp", pretrained=None)
    with pytest.raises(ValueError, match="no trained weights"):
        load("maskclip", checkpoint="mine.safetensors")
    monkeypatch.setattr("ovs_lite.segmenter.MAX_SCORES", 100)
    with pytest.raises(ValueError, match="fewer names"):
        model.segment(noise(48, 72), QUERIES)


def test_save_writes_by_suffix_and_leaves_nothing_behind(model, tmp_path, monkeypatch):
    result = model.segment(noise(48, 72), QUERIES)
    for name, kind in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.jpeg", "JPEG")):
        result.save(tmp_path / name)
        with Image.open(tmp_path / name) as written:
            assert written.format == kind and written.size == result.overlay().size
    with Image.open(tmp_path / "a.png") as written:
        assert written.tobytes() == result.overlay().tobytes()
    for wrong in ("masks.gif", "masks", ".png"):
        with pytest.raises(ValueError, match=r"\.png, \.jpg, \.jpeg"):
            result.save(tmp_path / wrong)
    with pytest.raises(FileNotFoundError, match="no folder"):
        result.save(tmp_path / "none" / "a.png")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Image.Image, "save", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        result.save(tmp_path / "a.png")
    monkeypatch.undo()
    assert sorted(tmp_path.iterdir()) == before
    with Image.open(tmp_path / "a.png") as written:
        assert written.size == result.overlay().size


def test_a_wrong_method_is_told_before_weights_are_touched(monkeypatch):
    monkeypatch.setattr("ovs_lite.methods.trained.load_clip", lambda *args: pytest.fail("a CLIP was loaded"))
    for options in ({}, {"clip": "no-such-clip"}, {"checkpoint": "mine.safetensors"}):
        with pytest.raises(ValueError, match="got method 'no-such-method', expected one of maskclip"):
            ovs_lite.load("no-such-method", **options)
    with pytest.raises(ValueError, match="did you mean 'clip-cam'"):
        ovs_lite.load("clip_cam")


def test_loading_a_lite_clip_logs_nothing(caplog):
    """open_clip warns about random weights where it builds a model by name; the kit's files fill the network later."""
    with caplog.at_level("WARNING"):
        load_clip("ViT-Lite-8")
        load_clip("ConvNeXt-Lite", pretrained=None)
    assert not caplog.records


def test_groupvit_takes_no_clip_and_needs_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"groupvit needs transformers.*ovs-lite\[baselines\]"):
        load("groupvit")
    for words in ({"clip": "ViT-B-16"}, {"pretrained": None}):
        with pytest.raises(ValueError, match="groupvit has an encoder of its own"):
            load("groupvit", **words)


@pytest.mark.parametrize("device", ["gpu", 3.5, "cuda:99", [1]])
def test_a_device_that_is_not_there_is_refused_in_words(device):
    with pytest.raises(ValueError, match=r"^got device .*, expected one of this machine's"):
        ovs_lite.load("maskclip", device=device)


@pytest.mark.parametrize("name", [3, None, ["tcl"], b"tcl"])
def test_a_method_that_is_no_name_is_refused_in_words(name):
    with pytest.raises(ValueError, match=r"^got method .*, expected one of maskclip, "):
        ovs_lite.load(name)
