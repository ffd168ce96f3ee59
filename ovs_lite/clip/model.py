"""One wrapper over open_clip: image, text and dense embeddings, the same for miniature and real models.

B images, T texts, K names, D embedding, H W pixels, h w patches. Images are RGB; "normalised" means that the mean
was subtracted and the standard deviation divided out, so 0 is the mean colour.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import cache

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from ovs_lite.clip import text_cache
from ovs_lite.clip.dense import dense_maps, patch_stride
from ovs_lite.clip.phrases import check_phrases
from ovs_lite.clip.text_tower import encode_tokens
from ovs_lite.data.templates import RAW_MEAN, fill, template_set
from ovs_lite.tensors import tensors_digest

MAX_SCALE = 100.0  # the largest factor of cosines, as in CLIP's and TCL's released code
TOWERS = ("text", "image")  # also the order of their fingerprints in a file of weights
CPU_BATCH = 64  # images whose activations stay in a CPU's caches; see tests/benchmarks/bench_vit_crops.py
# What decides a tower's output and is no tensor: attributes of its modules, and the names of its activations.
SETTINGS = (
    "context_length", "eps", "final_ln_after_pool", "image_size", "num_heads", "pad_id", "patch_size", "pool_type",
    "text_eos_id", "text_pool_type",
)  # fmt: skip

IMAGE = ("visual.", "vision_model.", "visual_projection.", "logit_")  # how what belongs to no text tower is called


class Clip(nn.Module):
    """An open_clip model behind the few calls that the kit needs. Built by `load_clip`.

    name: open_clip model name.
    image_size: native side in pixels.
    patch_size: of a ViT, None for a ConvNet.
    embed_dim: D.
    mean, std: (3, 1, 1) buffers.
    """

    def __init__(self, name: str, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.name, self.network = name, network
        config = open_clip.get_model_config(name)
        if config is None:  # wrapped, not built by name: open_clip's standard tokenizer
            self.tokenizer = open_clip.SimpleTokenizer(context_length=network.context_length)
        else:
            self.tokenizer = _tokenizer(name)
        self.embed_dim = config["embed_dim"] if config else network.visual.output_dim
        size = network.visual.image_size
        self.image_size = size[0] if isinstance(size, tuple | list) else size
        patch = getattr(network.visual, "patch_size", None)
        self.patch_size = patch[0] if isinstance(patch, tuple | list) else patch
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self._digests: dict[str, tuple[tuple, str]] = {}  # per tower: what it was computed from, and the digest

    @property
    def logit_scale(self) -> nn.Parameter:
        """Learnable log of 1/temperature; exp of it multiplies cosines."""
        return self.network.logit_scale

    def probabilities(self, cosines: torch.Tensor) -> torch.Tensor:
        """(..., K) cosines -> (..., K) probabilities: softmax with CLIP's own temperature, the factor at most 100."""
        return (cosines * self.logit_scale.exp().clamp(max=MAX_SCALE)).softmax(-1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels between neighbouring patches of a dense map, down and right."""
        return patch_stride(self.network.visual)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> normalised."""
        return (images - self.mean) / self.std

    def preprocess(self, images: Image.Image | list[Image.Image], size: int | None = None) -> torch.Tensor:
        """PIL RGB images -> (B, 3, size, size) normalised; warped to a square (bicubic), size default native."""
        images = [images] if isinstance(images, Image.Image) else images
        side = size or self.image_size
        resized = [image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for image in images]
        stacked = torch.stack([transforms.to_dtype(transforms.to_image(i), torch.float32, scale=True) for i in resized])
        return self.normalise(stacked.to(self.device))

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised -> (B, D), L2-normalised.

        A tower with positional embeddings gets its native size (bicubic, antialiased); a ConvNet of timm takes any.
        """
        native = (self.image_size, self.image_size)
        if not hasattr(self.network.visual, "trunk") and tuple(images.shape[-2:]) != native:
            images = transforms.resize(images, native, interpolation=InterpolationMode.BICUBIC, antialias=True)
        apart = images.device.type == "cpu" and not torch.is_grad_enabled()  # a training step's graph keeps all anyway
        parts = images.split(CPU_BATCH) if apart else [images]
        return F.normalize(torch.cat([self.network.encode_image(part) for part in parts]), dim=-1)

    def encode_masked(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised crops whose background is blank, (N, S, S) which pixels are the region's -> (N, D),
        L2-normalised. Only a CLIP with mask prompts looks at `masks`."""
        return self.encode_image(images)

    def encode_text(self, prompts: list[str], normalise: bool = True) -> torch.Tensor:
        """T prompts, truncated at the context length -> (T, D), L2-normalised; differentiable."""
        encoded = encode_tokens(self.network, self.tokenizer(prompts).to(self.device))
        return F.normalize(encoded, dim=-1) if normalise else encoded

    def dense(self, images: torch.Tensor, mode: str = "value") -> torch.Tensor:
        """(B, 3, H, W) normalised, any size -> (B, D, h, w) un-normalised patch embeddings in CLIP's joint space.

        mode: "value", the last attention, of a ViT or of a ResNet's attention pool, replaced by its value path (Zhou et
            al., ECCV 2022, section 3.2); "last", the unchanged last layer. A ConvNet without attention has one answer
            for both: its last feature map, projected.
        """
        return dense_maps(self.network.visual, images, (mode,))[0]

    @torch.no_grad()
    def text_embeddings(self, names: list[str], templates: str = "vild14", batch: int = 256) -> torch.Tensor:
        """K names -> (K, D), L2-normalised: each template normalised, averaged, normalised.

        OVSeg, appendix A.2: ViLD's templates, ensembled by a simple average; the order as in its released code.
        templates: a set of `ovs_lite.data.templates.TEMPLATES`; those of RAW_MEAN are averaged before they are
        normalised. batch: sentences at once, not on a CPU. Cached on disk per text tower, template set and name.
        Warns of names beyond the context length; raises ValueError for two that are equal as far as they are read.
        """
        patterns, raw = template_set(templates), templates in RAW_MEAN
        check_phrases(self.tokenizer, names, patterns, self.name)
        if not names:
            return torch.zeros(0, self.embed_dim, device=self.device)
        cached = text_cache.path(self.fingerprint(), templates)
        known = text_cache.read(cached, self.embed_dim)
        missing = [name for name in dict.fromkeys(names) if name not in known]
        if missing:
            prompts = [fill(pattern, name) for name in missing for pattern in patterns]
            # Alone on a CPU: with others, whoever they are, the last bits would be others. A set of templates is as
            # quick so; a name without templates takes ten times as long as in a batch, about 2 ms in the miniature.
            size = len(patterns) if self.device.type == "cpu" else batch
            parts = [prompts[i : i + size] for i in range(0, len(prompts), size)]
            encoded = torch.cat([self.encode_text(part, normalise=not raw) for part in parts])
            means = F.normalize(encoded.view(len(missing), len(patterns), -1).mean(1), dim=-1).cpu()
            fresh = dict(zip(missing, means, strict=True))
            text_cache.write(cached, fresh, self.embed_dim)
            known |= fresh
        return torch.stack([known[name] for name in names]).to(self.device)

    def image_fingerprint(self) -> str:
        """Names the image tower: its weights, its configuration (see `SETTINGS`) and the statistics of its images."""
        return self._digest("image")

    def fingerprint(self) -> str:
        """Names the text tower: the model's name, the tower's weights and its configuration (see `SETTINGS`). The
        temperature, which belongs to both towers and to no embedding, is left out."""
        return self._digest("text")

    def copied(self) -> "Clip":
        """The same CLIP with weights of its own; its fingerprints are not computed again."""
        twin = deepcopy(self, {id(self.tokenizer): self.tokenizer})  # its dictionaries are large, and never change
        twin._digests = {tower: (twin._state(tower), self._digest(tower)) for tower in TOWERS}
        return twin

    def _digest(self, tower: str) -> str:
        """Computed again after weights were replaced, or changed in place (an optimiser's step, a load)."""
        state = self._state(tower)
        if self._digests.get(tower, ((), ""))[0] != state:
            named = self.network.visual.state_dict() if tower == "image" else self.network.state_dict()
            tensors = [value for key, value in named.items() if tower == "image" or not key.startswith(IMAGE)]
            self._digests[tower] = state, tensors_digest(state[0], tensors)
        return self._digests[tower][1]

    def _state(self, tower: str) -> tuple:
        """What is said about a tower, and where its tensors are and how often they were written."""
        if tower == "image":
            parts = [*self.network.visual.modules()]
            about = f"{_settings(parts)} {self.mean.flatten().tolist()} {self.std.flatten().tolist()}"
        else:
            parts = [part for key, part in self.network.named_modules() if not f"{key}.".startswith(IMAGE)]
            about = f"{self.name} {_settings(parts)}"
        # without names, which state_dict() makes at every call
        held = (value for part in parts for kind in (part.parameters, part.buffers) for value in kind(recurse=False))
        return about, *((value.data_ptr(), value._version) for value in held)


@cache
def _tokenizer(name: str) -> Callable[..., torch.Tensor]:
    """open_clip's, which takes a quarter of a second to build, once for all models of a name."""
    return open_clip.get_tokenizer(name)


def _settings(parts: Iterable[nn.Module]) -> list[str]:
    """The configuration of a tower's modules, in an order and wording that no library's version changes."""
    parts = list(parts)
    found = {f"{key}={vars(part)[key]}" for part in parts for key in SETTINGS if key in vars(part)}
    return sorted(found | {type(part).__name__ for part in parts if "LU" in type(part).__name__})  # GELU, QuickGELU ...
