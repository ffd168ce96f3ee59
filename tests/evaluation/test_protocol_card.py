"""The protocol card: every field changes the hash, the same hash in every process, what moves it and what does not."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch

from kit.clips import random_clip
from kit.processes import environment
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.protocol_card import ProtocolCard, protocol_card
from ovs_lite.evaluation.segmentation import segmentation_counter
from ovs_lite.inference import Window
from ovs_lite.methods import get_method
from ovs_lite.methods.dense_attention import FORMS, DenseAttention
from ovs_lite.methods.with_pamr import WithPamr

VOC20, VOC21 = load_vocabulary("icon-voc20"), load_vocabulary("icon-voc21")


def card(method="maskclip", vocabulary=VOC20, seed=0, data="", clip=None, **how):
    method = get_method(method, clip or random_clip()) if isinstance(method, str) else method
    return protocol_card(segmentation_counter(method, vocabulary, **how), seed=seed, data=data)


@pytest.fixture(scope="module")
def whole():
    return card("tcl", VOC21, protocol="sclip", data="x")


def other(value):
    """Another value of the same kind."""
    if isinstance(value, tuple):
        return (*value, ("more", 1) if value and isinstance(value[0], tuple) else value[0] if value else "x")
    return value + 1 if isinstance(value, int | float) else f"{value}x"


@pytest.mark.parametrize("name", [item.name for item in fields(ProtocolCard)])
def test_every_field_changes_the_hash(whole, name):
    changed = replace(whole, **{name: other(getattr(whole, name))})
    assert changed.hash != whole.hash and replace(changed, **{name: getattr(whole, name)}).hash == whole.hash


@pytest.mark.parametrize("name", [item.name for item in fields(ProtocolCard)])
def test_a_value_that_is_not_there_differs_from_one_that_is(whole, name):
    assert replace(whole, **{name: None}).hash != whole.hash


def test_what_decides_a_score_moves_the_card():
    def shifted(number):
        clip = random_clip()
        with torch.no_grad():
            list(clip.network.parameters())[number].view(-1)[0] += 1
        return clip

    trained = get_method("tcl", random_clip())
    with torch.no_grad():
        next(trained.grounder.parameters()).view(-1)[0] += 1
    cards = [
        card(), card("clip-cam"), card(vocabulary=VOC21, background=0.2), card(vocabulary=VOC21, background=0.3),
        card(vocabulary=VOC21, background=(0.2, 0.3)), card(templates="single"), card(window=Window(96, 64, 32)),
        card(window=Window(128, 128, 64, 2047)), card(window=Window(128, 128, 64, resize="bilinear")),
        card(classes=["cat", "dog"]), card(classes=["dog", "cat"]), card(queries=["cat|kitten"]),
        card(present_only=True), card(grounding=True), card(protocol="sclip"), card(protocol="clearclip"),
        card(seed=1), card(data="y"), card("tcl"), card("tcl", kp_weight=0), card("tcl", refine=False), card(trained),
        card(WithPamr(get_method("maskclip", random_clip()))), card(clip=shifted(0)), card(clip=shifted(-1)),
        card(clip=random_clip(seed=1)), card(clip=random_clip("ConvNeXt-Lite")),
        *(card(DenseAttention(random_clip(), form)) for form in FORMS.values()),
    ]  # fmt: skip
    assert len({one.hash for one in cards}) == len(cards)


def test_what_decides_nothing_leaves_it():
    assert card().hash == card(templates="vild14", window=Window.for_clip(64), batch=3, protocol="unified").hash
    assert card("tcl", kp_weight=0.3).hash == card("tcl").hash, "an option's default, said aloud"
    assert card(classes=list(VOC20.names)).hash == card().hash


@pytest.mark.slow
def test_the_hash_is_the_same_in_another_process():
    code = (
        "from kit.clips import random_clip\nfrom ovs_lite.data.vocabulary import load_vocabulary\n"
        "from ovs_lite.evaluation.protocol_card import protocol_card\n"
        "from ovs_lite.evaluation.segmentation import segmentation_counter\nfrom ovs_lite.methods import get_method\n"
        "counter = segmentation_counter(get_method('tcl', random_clip()), load_vocabulary('icon-voc21'), "
        "protocol='sclip')\nprint(protocol_card(counter, data='x').hash)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment() | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.stdout.strip() == card("tcl", VOC21, protocol="sclip", data="x").hash, done.stderr


def test_it_can_be_read(whole):
    rows = dict(whole.rows())
    assert rows["card"] == whole.hash and len(whole.hash) == 12
    assert rows["softmax scale"] == "65" and rows["background"] == "0.1" and rows["templates"] == "imagenet80"
    assert "refine=False" in rows["options"] and rows["refinement"] == "none" and rows["window"] == "64"
    assert rows["mean"].startswith("0.4814") and rows["clip"].startswith("ViT-Lite-8 ")
    assert all("\n" not in value and "|" not in value and value for value in rows.values())
    assert whole.facts()["options"]["kp_weight"] == 0.3 and whole.facts()["hash"] == whole.hash
