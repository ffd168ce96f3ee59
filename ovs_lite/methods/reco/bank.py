"""ReCo's bank: unlabelled images that a CLIP has looked at once, to be retrieved by a text and co-segmented.

N images, D joint embedding, C channels of a dense feature, h w patches.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count as steps
from itertools import islice

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import is_mean_of_map
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.stream import CaptionStream, Stage

ICONWORLD_IMAGES = 3 * len(load_nouns())  # every noun leads three times
ICONWORLD_SEED = 2022
ALONE = Stage(until=1, things=(1, 1), size=(0.70, 1.10), bare=1.0, colour=0.0)  # one thing each, as in ImageNet


@dataclass(frozen=True)
class ImageBank:
    """embeddings: (N, D) of whole images, L2-normalised. features: (N, C, h, w) of CLIP's last layer, L2-normalised
    along C, in any precision. Raises ValueError for shapes that do not belong together.
    """

    embeddings: torch.Tensor
    features: torch.Tensor

    def __post_init__(self):
        if self.embeddings.ndim != 2 or self.features.ndim != 4 or not 0 < len(self.embeddings) == len(self.features):
            shapes = f"embeddings {tuple(self.embeddings.shape)} and features {tuple(self.features.shape)}"
            raise ValueError(f"got a bank with {shapes}, expected (N, D) and (N, C, h, w) with N >= 1")

    def __len__(self) -> int:
        return len(self.embeddings)

    def nearest(self, text: torch.Tensor, k: int) -> torch.Tensor:
        """(D,) L2-normalised -> indices of the k images with the largest cosine, (k,), best first.

        Raises ValueError where the bank is smaller than k.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"got k={k} for a bank of {len(self)} images, expected 1 to {len(self)}")
        return (self.embeddings @ text.to(self.embeddings)).topk(k).indices

    @classmethod
    @torch.no_grad()
    def from_images(
        cls,
        clip: Clip,
        images: Iterable[Image.Image | torch.Tensor],
        chunk: int = 64,
        dtype: torch.dtype = torch.float16,
    ) -> "ImageBank":
        """Look at every image once, `chunk` at a time; they are warped to CLIP's own square.

        images: PIL or (3, H, W) RGB in [0, 1], of any size; read as they come, so a generator need not hold them.
        dtype: of the features. Everything stays on CLIP's device.
        Raises ValueError for no image and for tensors of another shape.
        """
        source, embeddings, features = iter(images), [], []
        while part := list(islice(source, chunk)):
            images = torch.stack([_prepare(clip, image) for image in part])
            dense = clip.dense(images, "last")
            one_pass = is_mean_of_map(clip.network.visual)
            embeddings.append(F.normalize(dense.mean((2, 3)), dim=1) if one_pass else clip.encode_image(images))
            features.append(F.normalize(dense, dim=1).to(dtype))
        if not embeddings:
            raise ValueError("got no image for the bank, expected at least one")
        return cls(torch.cat(embeddings), torch.cat(features))


def iconworld_bank(clip: Clip, count: int = ICONWORLD_IMAGES, seed: int = ICONWORLD_SEED) -> ImageBank:
    """Images of one thing each from the miniature world's training stream, at CLIP's own size; same seed, same bank.

    No caption and no mask is looked at. They take ViT-Lite-8 a few seconds on one CPU core.
    """
    return ImageBank.from_images(clip, islice(_drawings(clip.image_size, seed), count))


def _drawings(size: int, seed: int) -> Iterator[torch.Tensor]:
    stream = CaptionStream(len(load_nouns()), size, seed, (ALONE,))
    for step in steps():
        yield from stream(step)[0]


def _prepare(clip: Clip, image: Image.Image | torch.Tensor) -> torch.Tensor:
    """-> (3, side, side) normalised."""
    if isinstance(image, Image.Image):
        return clip.preprocess(image)[0]
    if image.ndim != 3 or len(image) != 3:
        raise ValueError(f"got an image of shape {tuple(image.shape)}, expected PIL or (3, H, W) RGB in [0, 1]")
    side = (clip.image_size, clip.image_size)
    if tuple(image.shape[1:]) != side:
        image = transforms.resize(image, side, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return clip.normalise(image.to(clip.device))
