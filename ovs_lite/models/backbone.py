"""Backbones by timm name, as a pyramid of feature maps P2..P5 at strides 4, 8, 16, 32.

B images, H W pixels.
"""

import timm
import torch
import torch.nn.functional as F
from torch import nn

import ovs_lite.clip.lite.network  # noqa: F401 (registers "convnext_lite" with timm)
from ovs_lite.clip.missing_weights import missing_backbone

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """A timm network's last feature map at each of the strides 4, 8, 16 and 32.

    name: e.g. "resnet101", "tf_efficientnet_b7", "swin_base_patch4_window12_384", "convnext_base", "convnext_lite".
    pretrained: timm's own weights (a download). image_size: only for networks whose windows depend on it (Swin).
    trunk: a trained network of that name to copy the weights of, such as a CLIP's `network.visual.trunk`. Batch
    normalisation keeps its statistics while training, as is usual for dense prediction with few images per process.
    channels: of P2..P5. mean, std: of the RGB images in [0, 1] that the network was trained on.
    Raises ValueError for a network that has no map at one of the strides, and for another network's trunk,
    FileNotFoundError where timm's weights cannot be downloaded: it says which file to put where.
    """

    def __init__(
        self, name: str, pretrained: bool = False, image_size: int | None = None, trunk: nn.Module | None = None
    ):
        super().__init__()
        if not timm.is_model(name):
            raise ValueError(f"got backbone {name!r}, expected a name of timm.list_models(), e.g. 'resnet50'")
        sized = {"img_size": image_size, "strict_img_size": False} if "swin" in name and image_size else {}
        options = {"features_only": True, "feature_cls": "getter", "pretrained": pretrained, **sized}
        try:
            self.network = timm.create_model(name, **options)
        except OSError as error:
            if error.errno is not None:  # of the system, such as a full disk, and not of the hub
                raise
            raise FileNotFoundError(missing_backbone(name)) from error
        trained_on = self.network.model.pretrained_cfg
        self.mean, self.std = trained_on["mean"], trained_on["std"]
        reductions = self.network.feature_info.reduction()
        missing = [stride for stride in STRIDES if stride not in reductions]
        if missing:
            raise ValueError(f"got backbone {name!r} with strides {reductions}, expected {STRIDES} among them")
        deepest = {stride: index for index, stride in enumerate(reductions)}
        self.chosen = [deepest[stride] for stride in STRIDES]
        self.channels = [self.network.feature_info.channels()[i] for i in self.chosen]
        if trunk is not None:
            self._copy(trunk, name)
        self.network.to(memory_format=torch.channels_last)  # convolutions run faster on a CPU, and with tensor cores
        self.train()  # a new module is in training mode without a call; here that means without batch statistics

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) normalised -> four maps (B, C_l, H' / stride, W' / stride), finest first.

        H' W': sides that are no multiple of 32 are padded with zeros (the mean colour) at the right and bottom. All
        maps cover the padded image, so that they fit on each other; what was read from them is brought back to the
        image by `regions.score_maps.at_stride`.
        """
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        maps = self.network(padded.contiguous(memory_format=torch.channels_last))
        return [maps[i] for i in self.chosen]

    def train(self, mode: bool = True) -> "Backbone":
        """As usual, but for batch normalisation, which stays in evaluation mode."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def _copy(self, trunk: nn.Module, name: str) -> None:
        wanted, given = self.network.model.state_dict(), trunk.state_dict()
        missing = sorted(key for key in wanted if key not in given or given[key].shape != wanted[key].shape)
        if missing:
            raise ValueError(f"got a trunk without {', '.join(missing[:3])} of {name!r}, expected the same network")
        stages = {module.split(".")[0] for module in self.network.feature_info.module_name()}
        more = sorted(key for key in given if key not in wanted and key.split(".")[0] in stages)  # a deeper network's
        if more:
            raise ValueError(f"got a trunk with {', '.join(more[:3])}, unlike {name!r}, expected the same network")
        self.network.model.load_state_dict({key: given[key] for key in wanted})
