"""TCL's released model once more, slowly, from the tensors of its own checkpoint: what the kit must compute.

Every step stands as the released code takes it, with its attention masks, stacked neighbours and all masks at once, on
a flat dictionary of tensors in the released layout. Nothing of ovs_lite is imported.
B images, K classes, N texts, L tokens, W width, D joint embedding.
"""

import math

import torch
import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]

VISUAL, PROJECTION, TEXT = "clip_image_encoder.clip_visual.", "clip_image_encoder.clip_proj.", "clip_text_encoder."
MASKER = "masker.image_encoder."
DECODER, MASKER_PROJECTION = MASKER + "decoder.decoder.net.", MASKER + "decoder.image_proj."
TEMPERATURES = ("tcli_loss.logit_scale", "tclf_loss.logit_scale")
TRAINED = ("masker.", *TEMPERATURES)
DILATIONS, ITERATIONS = (1, 2, 4, 8, 12, 24), 10
TEMPLATES = [
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.", "a photo of many {}.", "a photo of {}s.",
]  # fmt: skip


def random_released(
    layers=3, width=64, patch=8, image=32, embed=32, text_layers=2, text_width=64, context=16, vocabulary=49408, seed=0
) -> Tensors:
    """A whole checkpoint with nothing at its start value: gates open, scale and bias moved, copies unlike originals."""
    draw = _Draw(seed)
    found = {
        "masker.sim2mask.w": torch.tensor(9.3), "masker.sim2mask.b": torch.tensor(-1.2),
        TEMPERATURES[0]: torch.tensor(2.9), TEMPERATURES[1]: torch.tensor(2.3),
        VISUAL + "class_embedding": draw(width), VISUAL + "conv1.weight": draw(width, 3, patch, patch),
        VISUAL + "positional_embedding": draw(1 + (image // patch) ** 2, width, std=0.7),
        TEXT + "token_embedding.weight": draw(vocabulary, text_width, std=0.7),
        TEXT + "positional_embedding": draw(context, text_width, std=0.5),
        TEXT + "text_projection": draw(embed, text_width).T.contiguous(),
    }  # fmt: skip
    for name, size in ((VISUAL + "ln_pre.", width), (PROJECTION + "ln.", width), (TEXT + "ln_final.", text_width)):
        found |= draw.norm(name, size)
    found |= draw.blocks(VISUAL, range(layers), width) | draw.blocks(TEXT, range(text_layers), text_width)
    found |= draw.blocks(MASKER + "backbone.", [layers - 1], width) | draw.norm(MASKER_PROJECTION + "ln.", width)
    found |= {name + "proj": draw(embed, width).T.contiguous() for name in (PROJECTION, MASKER_PROJECTION)}
    for number, name in enumerate(f"{DECODER}{stage}.{conv}." for stage in (0, 1) for conv in ("conv", "conv2")):
        found |= draw.norm(name + "norm.", width)
        found |= {name + "conv.weight": draw(width, width, 3, 3), name + "conv.bias": draw(width, std=0.2)}
        found[name + "gate.gate"] = torch.tensor((0.6, -0.4, 0.9, -0.7)[number])
    return found


class _Draw:
    """Random weights of a size at which no layer swallows its input. First axis: outputs."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, std: float | None = None, gain: float = 1.0) -> torch.Tensor:
        std = gain / math.prod(shape[1:]) ** 0.5 if std is None else std
        return std * torch.randn(*shape, generator=self.generator)

    def norm(self, name: str, width: int) -> Tensors:
        return {name + "weight": 1 + self(width, std=0.2), name + "bias": self(width, std=0.2)}

    def linear(self, name: str, out: int, width: int, gain: float = 1.0, joint: str = ".") -> Tensors:
        return {f"{name}{joint}weight": self(out, width, gain=gain), f"{name}{joint}bias": self(out, std=0.2)}

    def blocks(self, name: str, numbers, width: int) -> Tensors:
        found: Tensors = {}
        for block in (f"{name}transformer.resblocks.{number}." for number in numbers):
            found |= self.linear(block + "attn.in_proj", 3 * width, width, 1.5, "_")
            found |= self.linear(block + "attn.out_proj", width, width)
            found |= self.norm(block + "ln_1.", width) | self.norm(block + "ln_2.", width)
            found |= self.linear(block + "mlp.c_fc", 4 * width, width)
            found |= self.linear(block + "mlp.c_proj", width, 4 * width)
        return found


def minimal(t: Tensors, temperatures: bool = False) -> Tensors:
    """What the authors published: learned tensors, without CLIP."""
    kept = TRAINED if temperatures else ("masker.",)
    return {key: value for key, value in t.items() if key.startswith(kept)}


def pamr_kernels() -> Tensors:
    """Difference to, value at, and samples of the 3 x 3 around: what an evaluation in training leaves in a file."""
    ones = torch.eye(9).view(9, 1, 3, 3)
    neighbours, centre = ones[[0, 1, 2, 3, 5, 6, 7, 8]], ones[4:5]
    stacked = {"x": centre - neighbours, "m": neighbours, "std": ones}
    return {f"pamr.aff_{name}.kernel": value.clone() for name, value in stacked.items()}


def doubled(t: Tensors, trained: bool = False) -> Tensors:
    """In float64; trained: with a gradient where the released code's optimiser has a parameter."""
    return {k: v.double().requires_grad_(trained and k.startswith(TRAINED)) for k, v in t.items()}


def unit(x, dim=-1):
    """Division by the length, which is at least 1e-6."""
    return x / x.square().sum(dim, keepdim=True).sqrt().clamp(min=1e-6)


def norm(t: Tensors, name: str, x):
    """LayerNorm of the last axis: biased variance, eps 1e-5."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * t[name + "weight"] + t[name + "bias"]


def block(t: Tensors, name: str, x, mask, quick=True):
    """A block of OpenAI's transformer. x: (B, L, W). mask: (L, L), added to the logits of every head."""
    width = x.shape[-1]
    heads, outputs = width // 64, []
    packed = norm(t, name + "ln_1.", x) @ t[name + "attn.in_proj_weight"].T + t[name + "attn.in_proj_bias"]
    for head in range(heads):
        q, k, v = (packed[..., part * width + 64 * head :][..., :64] for part in range(3))
        outputs.append((q @ k.transpose(1, 2) / 8 + mask).softmax(-1) @ v)
    x = x + torch.cat(outputs, -1) @ t[name + "attn.out_proj.weight"].T + t[name + "attn.out_proj.bias"]
    hidden = norm(t, name + "ln_2.", x) @ t[name + "mlp.c_fc.weight"].T + t[name + "mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden) if quick else F.gelu(hidden)
    return x + hidden @ t[name + "mlp.c_proj.weight"].T + t[name + "mlp.c_proj.bias"]


def block_names(t: Tensors, prefix: str) -> list[str]:
    """The blocks of a tower, in order, each with its dot."""
    start = prefix + "transformer.resblocks."
    return [f"{start}{n}." for n in sorted({int(k[len(start) :].split(".")[0]) for k in t if k.startswith(start)})]


def only_itself(x):
    """The mask of the last block on the dense path: minus infinity everywhere, zero on the diagonal."""
    length = x.shape[1]
    return torch.where(torch.eye(length, dtype=torch.bool), 0.0, -math.inf).to(x.dtype)


def tokens_before_last(t: Tensors, images):
    """Output of the last block but one, (B, 1 + h * w, W), and (h, w). Sides are multiples of the patch."""
    kernel = t[VISUAL + "conv1.weight"]
    size = kernel.shape[-1]
    grid = (images.shape[2] // size, images.shape[3] // size)
    patches = F.unfold(images, size, stride=size).transpose(1, 2) @ kernel.flatten(1).T
    positions = t[VISUAL + "positional_embedding"]
    side = math.isqrt(len(positions) - 1)
    if grid != (side, side):
        plane = positions[1:].T.reshape(1, -1, side, side)
        plane = F.interpolate(plane, grid, mode="bicubic", align_corners=False)
        positions = torch.cat([positions[:1], plane[0].flatten(1).T])
    first = t[VISUAL + "class_embedding"].expand(len(images), 1, -1)
    x = norm(t, VISUAL + "ln_pre.", torch.cat([first, patches], 1) + positions)
    for name in block_names(t, VISUAL)[:-1]:
        x = block(t, name, x, 0.0)
    return x, grid


def as_map(x, grid):
    """(B, 1 + h * w, C) -> (B, C, h, w), the class token dropped."""
    return x[:, 1:].transpose(1, 2).unflatten(2, grid)


def clip_dense(t: Tensors, tokens, grid):
    """The frozen MaskCLIP path, (B, D, h, w): norm and projection of every token."""
    x = block(t, block_names(t, VISUAL)[-1], tokens, only_itself(tokens))
    return as_map(norm(t, PROJECTION + "ln.", x) @ t[PROJECTION + "proj"], grid)


def clip_image(t: Tensors, images):
    """The image-level path, (B, D): full attention everywhere, the class token."""
    x = block(t, block_names(t, VISUAL)[-1], tokens_before_last(t, images)[0], 0.0)
    return norm(t, PROJECTION + "ln.", x[:, 0]) @ t[PROJECTION + "proj"]


def conv3(x, weight, bias):
    """3 x 3 convolution with zeros around: the sum of nine shifted products."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1))
    parts = [torch.einsum("oc,bchw->bohw", weight[..., y, x], padded[..., y : y + height, x : x + width])
             for y in range(3) for x in range(3)]  # fmt: skip
    return sum(parts) + bias[:, None, None]


def gated_conv(t: Tensors, name: str, x):
    """Norm over channels, exact GELU, convolution, times tanh of the gate, added."""
    hidden = norm(t, name + "norm.", x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return x + torch.tanh(t[name + "gate.gate"]) * conv3(hidden, t[name + "conv.weight"], t[name + "conv.bias"])


def decoder(t: Tensors, x):
    """(B, W, h, w) -> (B, W, 4h, 4w)."""
    for stage in (0, 1):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for conv in ("conv", "conv2"):
            x = gated_conv(t, f"{DECODER}{stage}.{conv}.", x)
    return x


def pixel_embeddings(t: Tensors, tokens, grid):
    """The masker: its block (dense path), decoder, norm and projection per pixel: (B, D, 4h, 4w), un-normalised."""
    (name,) = block_names(t, MASKER + "backbone.")
    x = decoder(t, as_map(block(t, name, tokens, only_itself(tokens)), grid)).permute(0, 2, 3, 1)
    return (norm(t, MASKER_PROJECTION + "ln.", x) @ t[MASKER_PROJECTION + "proj"]).permute(0, 3, 1, 2)


def cosines(pixels, texts):
    """(B, D, H, W), (N, D) normalised -> (B, N, H, W)."""
    return torch.einsum("bdhw,nd->bnhw", unit(pixels, 1), texts)


def around(planes, kernels):
    """(B, C, H, W) -> (B, C, 6 * kernels, H, W): every kernel at every dilation, the border repeated."""
    height, width = planes.shape[2:]
    flat = planes.reshape(-1, 1, height, width)
    seen = [F.conv2d(F.pad(flat, (d, d, d, d), mode="replicate"), kernels, dilation=d) for d in DILATIONS]
    return torch.cat(seen, 1).unflatten(0, planes.shape[:2])


def pamr(image, masks):
    """All neighbours and samples stacked: (B, 3, H, W), (B, K, H, W) -> (B, K, H, W)."""
    kernels = {name: kernel.to(image.dtype) for name, kernel in pamr_kernels().items()}
    difference = around(image, kernels["pamr.aff_x.kernel"]).abs()
    spread = around(image, kernels["pamr.aff_std.kernel"]).std(2, keepdim=True)  # of 54 samples, unbiased
    weights = (-difference / (1e-8 + 0.1 * spread)).mean(1, keepdim=True).softmax(2)
    for _ in range(ITERATIONS):
        masks = (around(masks, kernels["pamr.aff_m.kernel"]) * weights).sum(2)
    return masks


def predict(t: Tensors, images, texts, refine=True, kp_weight=0.3):
    """(B, 3, H, W) normalised, (K, D) -> (B, K, H, W) masks at input size."""
    size, (height, width) = t[VISUAL + "conv1.weight"].shape[-1], images.shape[2:]
    full = [math.ceil(side / size) * size for side in (height, width)]
    top, left = (full[0] - height) // 2, (full[1] - width) // 2
    padded = images.new_zeros(len(images), 3, *full)
    padded[:, :, top : top + height, left : left + width] = images
    tokens, grid = tokens_before_last(t, padded)
    scores = cosines(pixel_embeddings(t, tokens, grid), texts)
    masks = torch.sigmoid(t["masker.sim2mask.w"] * scores + t["masker.sim2mask.b"])
    if refine:
        masks = pamr(F.interpolate(padded, masks.shape[2:], mode="bilinear", align_corners=True), masks)
    kept = torch.sigmoid((cosines(clip_dense(t, tokens, grid), texts) - 0.25) * 10)
    kept = F.interpolate(kept, masks.shape[2:], mode="bilinear", align_corners=False)
    masks = (1 - kp_weight) * masks + kp_weight * kept
    masks = F.interpolate(masks, full, mode="bilinear", align_corners=False)
    return masks[:, :, top : top + height, left : left + width]


def text_tower(t: Tensors, ids):
    """(N, L) token ids, zeros after the end -> (N, D): causal attention, the token with the highest id, projection."""
    x = t[TEXT + "token_embedding.weight"][ids] + t[TEXT + "positional_embedding"]
    length = ids.shape[1]
    causal = torch.full((length, length), -math.inf, dtype=x.dtype).triu(1)
    for name in block_names(t, TEXT):
        x = block(t, name, x, causal)
    return norm(t, TEXT + "ln_final.", x)[torch.arange(len(ids)), ids.argmax(1)] @ t[TEXT + "text_projection"]


def class_embeddings(t: Tensors, names: list[str], tokenize):
    """K names -> (K, D): the un-normalised mean over nine sentences, then normalised. tokenize: sentences -> ids."""
    sentences = [[template.replace("{}", name) for template in TEMPLATES] for name in names]
    return torch.stack([unit(text_tower(t, tokenize(nine)).mean(0)) for nine in sentences])


def contrast(similarity, logit_scale):
    """Image to text and text to image; row b belongs to column b."""
    logits = similarity * logit_scale.exp().clamp(max=100)
    both = [scores.log_softmax(1).diagonal().mean() for scores in (logits, logits.T)]
    return -(both[0] + both[1]) / 2


def variation(x):
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()


def losses(t: Tensors, images, ids, uniform) -> Tensors:
    """A step's terms and their weighted sum. images: (B, 3, H, W) normalised, of native size. ids: (B, L). uniform:
    (B, 1, 4h, 4w) in (0, 1), the draw of the binary Gumbel."""
    texts = unit(text_tower(t, ids)).detach()
    pixels = pixel_embeddings(t, *tokens_before_last(t, images))
    logits = cosines(pixels, texts) * t["masker.sim2mask.w"] + t["masker.sim2mask.b"]
    masks, own = torch.sigmoid(logits), torch.eye(len(images), dtype=torch.bool)
    noisy = torch.sigmoid(logits[own][:, None] + torch.log(uniform / (1 - uniform)))
    hard = (noisy > 0.5).to(noisy.dtype) + noisy - noisy.detach()
    factor = images.shape[-1] // hard.shape[-1]
    shown = images * hard.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    weights = masks / (masks.sum((2, 3), keepdim=True) + 1e-6)
    grounded = unit(torch.einsum("bdhw,bnhw->bnd", pixels, weights))
    terms = {
        "image": contrast(unit(clip_image(t, shown)) @ texts.T, t[TEMPERATURES[0]]),
        "feature": contrast(torch.einsum("bnd,nd->bn", grounded, texts), t[TEMPERATURES[1]]),
        "area": (masks[own].mean() - 0.4).abs() + (masks[~own].mean() - 0).abs(),
        "smooth": variation(pixels) + variation(masks),
    }
    total = 0.1 * terms["image"] + 0.1 * terms["feature"] + 0.4 * terms["area"] + 1.0 * terms["smooth"]
    return {**terms, "total": total}
