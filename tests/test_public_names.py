"""The names that other people's checks and notebooks rely on can be imported from where they are promised."""

from importlib import import_module

import pytest

import ovs_lite
from ovs_lite.methods import METHODS, method_class

NAMES = [
    "ovs_lite.load",
    "ovs_lite.explore",
    "ovs_lite.viz.explore",
    "ovs_lite.viz.explorer_html",
    "ovs_lite.Segmenter",
    "ovs_lite.Segmentation",
    "ovs_lite.losses.masks.best_match_dice_loss",
    "ovs_lite.losses.grounding.grounding_loss",
    "ovs_lite.data.captions.extract_words",
    "ovs_lite.losses.tcl.feature_similarity",
    "ovs_lite.losses.tcl.area_loss",
    "ovs_lite.losses.tcl.tv_loss",
    "ovs_lite.losses.contrastive.info_nce",
    "ovs_lite.pamr.pamr",
    "ovs_lite.matching.hungarian",
    "ovs_lite.matching.match_masks_to_entities",
    "ovs_lite.evaluation.ConfusionMatrix",
    "ovs_lite.evaluation.PanopticQuality",
    "ovs_lite.evaluation.proposal_recall",
    "ovs_lite.checkpoints.load_official_tcl",
    "ovs_lite.checkpoints.load_official_ovseg_clip",
    "ovs_lite.notebook.setup",
    "ovs_lite.train.train",
    "ovs_lite.train.LoopConfig",
    "ovs_lite.methods.tcl.Tcl",
    "ovs_lite.models.deformable_attention.deformable_attention",
]


def find(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name):
    assert callable(find(name))


def test_every_method_predicts_by_encoding_and_scoring():
    for name in METHODS:
        kind = method_class(name)
        assert all(callable(getattr(kind, part)) for part in ("encode", "scores", "predict"))
        assert kind.predict is method_class("maskclip").__mro__[1].predict, "one composition for all"
    assert ovs_lite.__version__
