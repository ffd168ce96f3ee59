"""MaskCLIP: a frozen CLIP segments when its last attention is told to look at one patch only.

Paper: Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP" (ECCV 2022), section 3.2. Everything is frozen, nothing
is trained: the last block's attention becomes out_proj(v_proj(x)), every patch token goes through the final norm and
projection, and is compared with the class names. Departures: CLIP's own GELU, norm epsilon and picture statistics
instead of the released config's; 14 prompt templates instead of 85; no key smoothing and no prompt denoising.
"""

import torch

from ovs_lite.methods.base import Method, dense_scores


class MaskClip(Method):
    """See the module docstring. With a ConvNet tower, which has no attention, it equals clip-cam."""

    name = "maskclip"

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) -> (B, K, H, W) cosines of patches with classes, bilinear to input size."""
        return dense_scores(self.clip, images, text_embeddings, "maskclip")
