"""The network of ConvNeXt-Lite, under the timm name "convnext_lite" (strides 4, 8, 16, 32 with 32 to 256 channels).

It is timm's ConvNeXt (Liu et al., CVPR 2022) with three settings that a short training from scratch needs: batch
normalisation in place of layer normalisation, a stem of two overlapping 3x3 convolutions in place of 4x4 patches, and
a layer scale that starts at 0.3 in place of 1e-6, which would shut every block for the length of the training.
"""

from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt

default_cfgs = generate_default_cfgs(
    {
        "convnext_lite": {
            "input_size": (3, 64, 64),
            "pool_size": (2, 2),
            "num_classes": 0,
            "mean": OPENAI_DATASET_MEAN,
            "std": OPENAI_DATASET_STD,
            "first_conv": "stem.0",
            "classifier": "head.fc",
        }
    }
)


@register_model
def convnext_lite(pretrained: bool = False, **kwargs) -> ConvNeXt:
    """1.9 million parameters. Has no ImageNet weights: pretrained=True raises RuntimeError (from timm)."""
    network = {
        "depths": (1, 2, 4, 2),
        "dims": (32, 64, 128, 256),
        "kernel_sizes": 5,
        "stem_type": "overlap_tiered",
        "ls_init_value": 0.3,
        "norm_layer": "batchnorm2d",
        "conv_mlp": True,
    }
    feature_cfg = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
    return build_model_with_cfg(ConvNeXt, "convnext_lite", pretrained, feature_cfg=feature_cfg, **{**network, **kwargs})
