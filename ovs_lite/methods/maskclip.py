"""MaskCLIP: a frozen CLIP segments when its last attention looks at one patch only.

Paper: Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP" (ECCV 2022), section 3.2. Everything is frozen, nothing
is trained: the last block's attention becomes out_proj(v_proj(x)), every patch token goes through the final norm and
projection, and is compared with the class names. The paper's two refinements, prompt denoising and key smoothing, are
options of `scores`, off by default as in the released configurations; TCL's second row of MaskCLIP has both.
Departures: CLIP's own GELU, norm epsilon and image statistics instead of the released config's; 14 prompt templates
instead of 85.
B images, K classes, D joint embedding, W width of the ViT, h w patches.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ovs_lite.clip.dense import key_features, pad_to_patches, penultimate_tokens, project_patches, value_path
from ovs_lite.methods.base import Method, PatchFeatures, encodes, scores_from, upsample_to
from ovs_lite.models.text_masks import patch_cosines

SHARPNESS = 100.0  # multiplies cosines before a softmax over classes
DENOISED = -100.0  # score of a class that prompt denoising took out
SMOOTHINGS = ("released", "paper")


@dataclass(frozen=True)
class MaskClipFeatures(PatchFeatures):
    """tokens: (B, 1 + h * w, W) that a ViT's last block gets, for its keys; None of another tower."""

    tokens: torch.Tensor | None = None


class MaskClip(Method):
    """See the module docstring. With a ConvNet tower, which has no attention, it equals clip-cam."""

    name = "maskclip"

    def scores_each_class_alone(self, key_smoothing: str | None = None, prompt_denoising: float | None = None) -> bool:
        """Without the refinements, which take a softmax over classes."""
        return key_smoothing is None and prompt_denoising is None

    @encodes
    def encode(self, images: torch.Tensor) -> MaskClipFeatures:
        """(B, 3, H, W) normalised -> patches through the last value path, and what the keys are made from."""
        visual, size = self.clip.network.visual, images.shape[-2:]
        if not hasattr(visual, "transformer"):
            return MaskClipFeatures(size, self.clip.dense(images, "value"))
        tokens, grid = penultimate_tokens(visual, pad_to_patches(visual, images))
        patches = project_patches(visual, value_path(visual.transformer.resblocks[-1], tokens), grid)
        return MaskClipFeatures(size, patches, tokens)

    @scores_from(MaskClipFeatures)
    def scores(
        self,
        features: MaskClipFeatures,
        text_embeddings: torch.Tensor,
        key_smoothing: str | None = None,
        prompt_denoising: float | None = None,
    ) -> torch.Tensor:
        """-> (B, K, H, W) cosines of patches with the (K, D) classes, bilinear to input size.

        prompt_denoising: threshold of `denoise_prompts`, 0.5 in the release; the classes it takes out score -100, the
            others keep their cosines.
        key_smoothing: "released" or "paper", see `smooth_by_keys`; scores are then weighted sums of softmax(100 *
            cosine), good for an argmax and no cosines. Of both, denoising comes first, as released.
        "Per image" is per call: a sliding window refines each of its windows alone. Refinement works on patches,
        before they are upsampled; a patch that reaches over the border counts like any other, and none lies beyond it.
        Raises ValueError for other options, and for key smoothing without a ViT.
        """
        scores = patch_cosines(features.patches, text_embeddings)
        if prompt_denoising is not None:
            scores = denoise_prompts(scores, prompt_denoising)
        if key_smoothing is not None:
            keys = self._keys(features, through_output=key_smoothing == "released")
            scores = smooth_by_keys((SHARPNESS * scores).softmax(1), keys, key_smoothing)
        return upsample_to(self.clip, scores, features.size)

    def _keys(self, features: MaskClipFeatures, through_output: bool) -> torch.Tensor:
        """The last block's keys of every patch, (B, W, h, w)."""
        if features.tokens is None:
            given = f"got key_smoothing with {self.clip.name}, which has no block with keys"
            raise ValueError(f"{given}; use a ViT or key_smoothing=None")
        last = self.clip.network.visual.transformer.resblocks[-1]
        keys = key_features(last, features.tokens, through_output)[:, 1:]
        return keys.transpose(1, 2).unflatten(2, features.patches.shape[-2:])


def denoise_prompts(cosines: torch.Tensor, threshold: float) -> torch.Tensor:
    """Take out, per image, the classes that no patch is sure of: the paper's prompt denoising. (B, K, h, w) -> same.

    A class whose largest softmax(100 * cosine), over classes, of any patch stays below the threshold scores -100
    everywhere. Where that is every class, all score -100 and an argmax takes the first, as in the released code.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"got prompt_denoising={threshold!r}, expected a probability such as 0.5, or None")
    confidence = (SHARPNESS * cosines).softmax(1).amax((2, 3), keepdim=True)
    return cosines.masked_fill(confidence < threshold, DENOISED)


def smooth_by_keys(predictions: torch.Tensor, keys: torch.Tensor, smoothing: str) -> torch.Tensor:
    """Let patches with like keys predict alike: the paper's key smoothing. (B, K, h, w), (B, W, h, w) -> (B, K, h, w).

    "paper": pred(i) <- sum over j of cos(key i, key j) * pred(j), keys normalised over their W channels. "released":
    the same sum with keys normalised over the h * w positions, channel by channel, because F.normalize without `dim`
    takes axis 1 of (B, h * w, W); the products are then no cosines, and large where a channel is concentrated on few
    patches. Neither divides by the sum of the weights, of which some are negative. pred: softmax(100 * cosine) in both.
    Departure: the release leaves a patch as it is where a class has probability 1 exactly. Any other `smoothing` raises
    ValueError.
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"got key_smoothing={smoothing!r}, expected None, {' or '.join(map(repr, SMOOTHINGS))}")
    keys = F.normalize(keys.flatten(2), dim=2 if smoothing == "released" else 1)  # (B, W, h * w)
    pooled = predictions.flatten(2) @ keys.transpose(1, 2)  # (B, K, W): in this order no (h * w)^2 matrix is made
    return (pooled @ keys).view_as(predictions)


METHOD = MaskClip
