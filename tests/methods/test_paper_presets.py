"""The paper presets: every setting has a source, and those with a source beyond us have the numbers that stand there.

The values below are the papers' and those of notes on the released code, with the places quoted; the names by which
timm and the kit know backbones and data sets are ours.
"""

import pytest

from ovs_lite.config import flatten, to_dict
from ovs_lite.data.catalogue import load_catalogue
from ovs_lite.methods.registry import RECIPES, get_recipe

ADAMW = {"backbone_factor": 1.0, "schedule": "cosine"}
ONE_RATE = {"schedule": "cosine"}  # how that of the backbone relates to it is ours
NOISY_STUDENT = {"backbone": "tf_efficientnet_b7.ns_jft_in1k", "backbone_pretrained": True}
# OpenSeg, 4.1: "image size of 640x640", "random scale between [0.8, 1.2]", "weight decay is set to 1e-05 and we use a
# learning rate 0.005 with the cosine learning rate schedule", "COCO dataset for 30k steps", "global batch size of
# 1024", "feature dimension 640"; Table 1: "All methods use 128 proposals".
OPENSEG_TRAINING = ONE_RATE | NOISY_STUDENT | {
    "image_size": 640, "rescale": (0.8, 1.2), "weight_decay": 1e-5, "lr": 0.005, "steps": 30_000, "batch": 1024,
    "channels": 640,
}  # fmt: skip
OPENSEG_MASKS = OPENSEG_TRAINING | {"queries": 128, "per": "segment", "data": "coco-panoptic/train"}
NO_EXTRAS = {"ema": 0.0, "accumulation": 1}
PAPERS = {
    "openseg-proposals": OPENSEG_MASKS,
    # 4.1: "We set kp ... to 0.5", "for each core we compute the loss over the local batch"; 3.2: nouns and adjectives;
    # z = sum over pixels of s * F_z; slides: 4 : 1; README of the release: frozen CLIP ViT-L/14@336px text tower
    "openseg": OPENSEG_MASKS | {
        "data": ("coco-panoptic/train",), "keep": 0.5, "sync": False, "pooling": "sum", "kinds": ("noun", "adj"),
        "alpha": 4.0, "start": "backbone", "clip": "ViT-L-14-336", "pretrained": "openai", "templates": "bare",
        "compounds": (), "limits": (), "proposals": "",
    },
    "lseg": OPENSEG_TRAINING | {
        "backbone_factor": 1.0,
        "data": "coco-panoptic/train", "vocabulary": "coco-panoptic", "clip": "ViT-L-14-336", "pretrained": "openai",
        "templates": "bare",
    },
    # 4.1: "loss weights of 0.1, 0.4, 1.0", "batch size of 1024 and a learning rate of 7.5e-5 for total 50,000
    # iterations with 15,000 warmup steps and cosine schedule. AdamW ... weight decay of 0.05", "CC 3M and 12M"; p+ 0.4,
    # p- 0; footnote 2: block 12 after 30,000; released: clip 5.0, RandomResizedCrop (0.08, 1), RandAugment
    "tcl": ADAMW | NO_EXTRAS | {
        "clip": "ViT-B-16", "pretrained": "openai", "batch": 1024, "steps": 50_000, "lr": 7.5e-5, "warmup": 15_000,
        "weight_decay": 0.05, "image_size": 224,
        "data": ("downloads/cc3m/*.tar", "downloads/cc12m/*.tar"), "image_weight": 0.1,
        "feature_weight": 0.1, "area_weight": 0.4, "smooth_weight": 1.0, "contrastive_weight": 0.0,
        "unfreeze": 30_000 / 50_000, "positive_area": 0.4, "negative_area": 0.0, "grad_norm": 5.0,
        "crop_area": (0.08, 1.0), "augment": "strong", "variant": "released",
    },
    # 4.1: "initial learning rate 2e-2 and weight decay 0", "cosine annealing", "batch size of 256 for 5 epochs" of
    # "440K mask-category pairs", "prompt depth is set to 3"; released: std 0.02, warm-up 100, scale (0.9, 1.0),
    # no clipping, MASK_THR 0.4
    "ovseg": ADAMW | NO_EXTRAS | {
        "steps": 8600, "lr": 0.02, "batch": 256, "weight_decay": 0.0, "clip": "ViT-L-14", "pretrained": "openai",
        "depth": 3, "data": "coco/pairs/train", "tune": "prompts", "start": "", "prompt_std": 0.02, "warmup": 100,
        "grad_norm": 1e9, "repeated": "negatives", "templates": "bare", "cut": 0.1, "margin": 0.0, "threshold": 0.4,
        "smallest": 1,
    },
    # 4.1: "poly", "6e-5 and 1e-2", "crop size of 640x640, a batch size of 32 and train the model for 120K iterations",
    # Swin-Base of ImageNet-21K; "COCO-Stuff", "171 valid categories"; released: warm-up 1500, clip 0.01, 100
    # queries, 6 layers, scales 0.5-2.0, backbone multiplier 1.0, void 0.1
    "maskformer": NO_EXTRAS | {
        "steps": 120_000, "lr": 6e-5, "weight_decay": 1e-2, "schedule": "poly", "batch": 32, "image_size": 640,
        "backbone": "swin_base_patch4_window12_384.ms_in22k", "backbone_pretrained": True, "data": "coco-stuff/train",
        "vocabulary": "coco-stuff", "clip": "ViT-L-14", "pretrained": "openai", "warmup": 1500, "grad_norm": 0.01,
        "backbone_factor": 1.0, "rescale": (0.5, 2.0), "queries": 100, "layers": 6,
        "no_object": 0.1, "per": "class", "num_points": 0, "start": "",
    },
    # 4.1: "batch size is 56", "60k iterations and update the learning rate by a multi-step decay", ConvNext-Large CLIP
    # of OpenCLIP, SA-1B; A: 6 layers of deformable attention, 6 of the decoder, 256 channels, sine positions;
    # released: lr 1e-4, decay 0.05, warm-up 10, clip 1.0, 1024 pixels, 0.8-1.2, 40 instances, areas 1e-3 to 0.8, 12544
    # points, positive 0.7, IoU loss 1, 10 x 10 and 20 x 20 points, 4 masks, 4 pixels of 1024, NMS 0.5 and 0.7
    "uniovseg-masks": {
        "steps": 60_000, "schedule": "step", "batch": 56, "backbone_pretrained": True, "data": "sa1b/train",
        "backbone": "convnext_large_mlp.clip_laion2b_ft_soup_320", "matching": "many-to-many", "lr": 1e-4,
        "weight_decay": 0.05, "image_size": 1024, "channels": 256, "layers": 6, "pixel_layers": 6, "positions": "sine",
        "warmup": 10, "grad_norm": 1.0, "rescale": (0.8, 1.2), "most_masks": 40, "areas": (1e-3, 0.8),
        "num_points": 12_544, "positive": 0.7, "quality_weight": 1.0, "points": 100, "grid": 20, "backbone_factor": 0.0,
        "heads": 8, "granularities": 4, "point_side": 4 / 1024, "duplicate": 0.5, "contained": 0.7,
        "per": "segment",
    },
    # 4.1: "the same training recipe for mask-text alignment"; ablation: 896 and 1024; Eq. 8: cosine; released: rank 8
    "uniovseg": {
        "steps": 60_000, "schedule": "step", "batch": 56, "clip": "convnext_large_d_320", "lr": 1e-4,
        "pretrained": "laion2b_s29b_b131k_ft_soup", "weight_decay": 0.05, "short_sides": (896, 1024), "loss": "cosine",
        "parser": "chat", "templates": "vild14", "masks": "segmenter", "mode": "last", "warmup": 10, "rank": 8,
        "grid": 10,
    },
}  # fmt: skip
NO_PAPER = {"clip"}  # the miniature CLIPs are ours


def test_every_recipe_of_a_paper_is_here():
    assert set(PAPERS) == set(RECIPES) - NO_PAPER


@pytest.mark.parametrize("name", ["openseg-proposals", "lseg", "maskformer", "uniovseg-masks"])
def test_the_data_of_a_preset_is_what_data_prepare_writes(name):
    known, split = get_recipe(name).presets["paper"].data.split("/")
    assert split in load_catalogue().find(known).splits


@pytest.mark.parametrize("name", PAPERS)
def test_every_setting_of_a_paper_preset_has_one_source_and_the_papers_value(name):
    recipe = get_recipe(name)
    found = {key.removeprefix("loop."): value for key, value in flatten(to_dict(recipe.presets["paper"]))}
    listed = [(field, source) for source, fields in recipe.sources.items() for field in fields.split()]
    assert sorted(field for field, _ in listed) == sorted(found)  # each once, and no other
    cited = {field: found[field] for field, source in listed if not source.startswith("ours")}
    assert cited == PAPERS[name]
    words = ("section", "Table", "appendix", "released", "slides", "ours", "Mask2Former", "MaskFormer")
    assert all(source.removeprefix("OVSeg, ").removeprefix("OpenSeg, ").startswith(words) for source in recipe.sources)
