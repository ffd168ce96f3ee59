"""Files in the released layout of TCL, the CLIP in them built by hand, and whether a method read from one is right."""

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from kit import released_tcl as released

CONTEXT, SIDE, PATCH, EMBED = 16, 32, 8, 32  # of `random_released`
NAMES = ["cat", "green grass", "dining table", "sky", "a {} b"]
tokenize = open_clip.SimpleTokenizer(context_length=CONTEXT)


def pictures(height, width, batch=2, seed=0, dtype=torch.float32):
    """(B, 3, H, W), as if normalised."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def written(tensors, path):
    """The path of a torch file with the tensors where the released code has them."""
    torch.save({"model": tensors}, path)
    return path


def open_clip_model(tensors):
    """The frozen CLIP of a file as open_clip has it, by hand."""
    network = CLIP(
        EMBED,
        CLIPVisionCfg(layers=3, width=64, head_width=64, patch_size=PATCH, image_size=SIDE),
        CLIPTextCfg(CONTEXT, len(tensors[released.TEXT + "token_embedding.weight"]), width=64, heads=1, layers=2),
        quick_gelu=True,
    )
    state = {"logit_scale": torch.tensor(1.0)}
    for key, value in tensors.items():
        if key.startswith(released.TEXT):
            state[key.removeprefix(released.TEXT)] = value
        elif key.startswith((released.VISUAL, released.PROJECTION)):
            name = key.removeprefix(released.VISUAL)
            name = name.replace(released.PROJECTION, "").replace("ln.", "ln_post.") if name == key else name
            state["visual." + name] = value
    network.load_state_dict(state)
    return network


def assert_agrees(method, tensors, limit=1e-5):
    """Masks of a method and of the released code, from the same texts."""
    images, texts = pictures(40, 56), released.class_embeddings(tensors, NAMES[:3], tokenize)
    expected = released.predict(tensors, images, texts)
    torch.testing.assert_close(method.predict(images, texts), expected, atol=limit, rtol=0)
    return expected
