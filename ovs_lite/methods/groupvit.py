"""GroupViT: a vision transformer that gathers patches into groups, learned from captions; groups are named by texts.

Paper: Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision" (CVPR 2022). Nothing is trained here;
the network and NVIDIA's weights come through Hugging Face's transformers, an optional dependency. The grouping blocks'
assignments are multiplied: (patches -> 64 groups) by (64 groups -> 8 groups) gives every patch a distribution over 8.
They are soft, although the tokens themselves are gathered by hard ones, in NVIDIA's evaluation as in transformers'
`output_segmentation`. There the two part. transformers upsamples the maps to the image and sums, weighted by them,
the groups' cosines (times exp(logit_scale), twice). NVIDIA gives each pixel of the upsampled maps to its best group,
whose classes are a softmax over all of them times a softmax over the 5 that the whole image is nearest to; so does
`GroupVit.scores`.
Departures from NVIDIA's evaluation: no background thresholds, which differ per data set and from the paper's; give a
background score yourself. Images that are no multiple of a patch are padded at the right and bottom.
B images, K classes, D joint embedding, G groups of the last stage, h w patches.
"""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.clip.model import MAX_SCALE
from ovs_lite.methods.base import Method, encodes, scores_from, upsample_to

CHECKPOINT = "nvidia/groupvit-gcc-yfcc"
TOP_CLASSES = 5


class GroupVitClip(Clip):
    """A transformers GroupViTModel behind the calls of `Clip`; it has groups instead of a dense map.

    Texts are split by open_clip's tokenizer, whose vocabulary GroupViT shares. Images have ImageNet's statistics, as
    NVIDIA trained. Built by `GroupVit.load_own`.
    """

    def __init__(self, name: str, network: nn.Module):
        nn.Module.__init__(self)
        vision, text = network.config.vision_config, network.config.text_config
        self.name, self.network, self.embed_dim = name, network, network.config.projection_dim
        self.image_size, self.patch_size = vision.image_size, vision.patch_size
        self.tokenizer = open_clip.SimpleTokenizer(context_length=text.max_position_embeddings)
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1), persistent=False)
        self._digests = {}

    @property
    def stride(self) -> tuple[int, int]:
        """A patch's sides."""
        return self.patch_size, self.patch_size

    def encode_text(self, prompts: list[str], normalise: bool = True) -> torch.Tensor:
        """T raw prompts -> (T, D), L2-normalised; prompts are truncated at the context length."""
        pooled = self.network.text_model(input_ids=self.tokenizer(prompts).to(self.device)).pooler_output
        encoded = self.network.text_projection(pooled)
        return F.normalize(encoded, dim=-1) if normalise else encoded

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised -> (B, D), L2-normalised: the mean of the groups, projected."""
        return self._project(self._look(images)[0].mean(1))

    def dense(self, images: torch.Tensor, mode: str = "value") -> torch.Tensor:
        """Raises ValueError: patches have no embedding in the joint space; see `groups`."""
        raise ValueError(f"got {self.name}, whose patches have no embedding of their own; use groups(images)")

    def groups(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) normalised, any size -> group embeddings (B, G, D) and the whole image's (B, D), both
        L2-normalised, and (B, G, h, w), every patch's distribution over groups."""
        tokens, assignments, grid = self._look(images)
        joint = assignments[0]  # (B, groups, patches)
        for assignment in assignments[1:]:
            joint = assignment @ joint
        return self._project(tokens), self._project(tokens.mean(1)), joint.unflatten(2, grid)

    def _look(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[int, int]]:
        """-> last tokens (B, G, width), soft assignments of every grouping block (B, groups, tokens before), (h, w)."""
        patch, vision = self.patch_size, self.network.vision_model
        images = F.pad(images, (0, -images.shape[-1] % patch, 0, -images.shape[-2] % patch))
        embedded = vision.embeddings(images, interpolate_pos_encoding=True)  # its own forward takes one size only
        seen = vision.encoder(embedded, output_hidden_states=False, output_attentions=True, return_dict=True)
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        return vision.layernorm(seen.last_hidden_state), seen.attentions, grid

    def _project(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., D), L2-normalised. Batch normalisation inside wants two axes."""
        projected = self.network.visual_projection(tokens.flatten(0, -2)).unflatten(0, tokens.shape[:-1])
        return F.normalize(projected, dim=-1)


@dataclass(frozen=True)
class GroupFeatures:
    """What GroupViT keeps of B images.

    size: (H, W) of them.
    groups: (B, G, D), L2-normalised.
    whole: (B, D) of the whole images, L2-normalised.
    maps: (B, G, h, w), every patch's distribution over groups.
    """

    size: tuple[int, int]
    groups: torch.Tensor
    whole: torch.Tensor
    maps: torch.Tensor


class GroupVit(Method):
    """See the module docstring. clip: of `load_own`, which also builds the method; any other raises ValueError."""

    name = "groupvit"
    templates = "single"

    def __init__(self, clip: GroupVitClip):
        super().__init__(clip)
        if not isinstance(clip, GroupVitClip):
            own = "groupvit has an encoder of its own; use GroupVit.load_own()"
            raise ValueError(f"got the CLIP {clip.name}, but {own}")

    @classmethod
    def load_own(cls, checkpoint: str | Path | None = None, device: str | torch.device = "cpu") -> "GroupVit":
        """NVIDIA's GroupViT in evaluation mode, as a method.

        checkpoint: default NVIDIA's; a folder with config.json and model.safetensors, of which no network is asked, or
            a name on the Hugging Face hub (owner/name), which is downloaded once; pickled weights are never read.
        Raises ValueError where transformers is absent or the checkpoint is no GroupViT, FileNotFoundError where there
        are no such weights.
        """
        checkpoint = checkpoint or CHECKPOINT
        try:
            transformers = importlib.import_module("transformers")
        except ImportError as error:
            raise ValueError("groupvit needs transformers; install with: pip install 'ovs-lite[baselines]'") from error
        folder, local = Path(checkpoint), Path(checkpoint).is_dir()
        if local and not ((folder / "config.json").is_file() and any(folder.glob("*.safetensors"))):
            raise FileNotFoundError(f"{folder} has no config.json or no *.safetensors; pickled weights are not read")
        if not local and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(checkpoint)):
            raise FileNotFoundError(f"no folder {checkpoint}; expected one with GroupViT's files, or {CHECKPOINT}")
        try:
            config = transformers.AutoConfig.from_pretrained(str(checkpoint), local_files_only=local)
            if config.model_type != "groupvit":
                kind = f"a {config.model_type} model"
                raise ValueError(f"got {checkpoint}, {kind}, expected a GroupViT such as {CHECKPOINT}")
            network, info = transformers.GroupViTModel.from_pretrained(
                str(checkpoint), use_safetensors=True, output_loading_info=True, local_files_only=local
            )
        except (OSError, SafetensorError) as error:
            online = "a repository with safetensors, and the network for a first time"
            wanted = "an undamaged folder" if local else online
            raise FileNotFoundError(f"{checkpoint}: could not load GroupViT, expected {wanted} ({error})") from error
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(f"got {checkpoint} without {len(missing)} of GroupViT's tensors, {missing[0]} among them")
        return cls(GroupVitClip(str(checkpoint), network)).to(device).eval()

    @encodes
    def encode(self, images: torch.Tensor) -> GroupFeatures:
        """(B, 3, H, W) normalised -> groups, and which patch belongs to which."""
        return GroupFeatures(images.shape[-2:], *self.clip.groups(images))

    @scores_from(GroupFeatures)
    def scores(
        self, features: GroupFeatures, text_embeddings: torch.Tensor, top: int | None = TOP_CLASSES
    ) -> torch.Tensor:
        """-> (B, K, H, W) scores of the (K, D) classes in [0, 1] at input size: each pixel has its best group's.

        top: see `group_classes`. Raises ValueError for a top below 1.
        """
        scale = self.clip.logit_scale.exp().clamp(max=MAX_SCALE)
        classes = group_classes(features.groups @ text_embeddings.T * scale, features.whole @ text_embeddings.T, top)
        best = upsample_to(self.clip, features.maps, features.size).argmax(1)  # (B, H, W); classes: (B, G, K)
        return torch.stack([row[groups] for row, groups in zip(classes, best, strict=True)]).movedim(-1, 1)


def group_classes(logits: torch.Tensor, whole: torch.Tensor, top: int | None = TOP_CLASSES) -> torch.Tensor:
    """What a group is of: scaled (B, G, K) and, of the whole images, (B, K) cosines -> (B, G, K) in [0, 1].

    softmax over all K classes; with `top`, times a softmax over only the `top` classes that score best for the whole
    image (all, where K is smaller), so the others score 0. Raises ValueError for a top below 1.
    """
    probabilities = logits.softmax(-1)
    if top is None:
        return probabilities
    if top < 1:
        raise ValueError(f"got top={top}, expected None or at least one class")
    best = whole.topk(min(top, whole.shape[-1]), dim=-1).indices
    likely = torch.zeros_like(whole, dtype=torch.bool).scatter(-1, best, True)
    return probabilities * logits.masked_fill(~likely[:, None], -torch.inf).softmax(-1)


METHOD = GroupVit
