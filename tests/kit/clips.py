"""CLIPs for tests: random weights, tiny, or with colours for embeddings."""

import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn

from kit.records import NAMED
from ovs_lite.clip import load_clip
from ovs_lite.clip.load import wrap_clip


def random_clip(name="ViT-Lite-8", seed=0):
    """A shipped architecture with weights as they start."""
    torch.manual_seed(seed)
    return load_clip(name, pretrained=None)


def tiny_clip(seed=0):
    """A CLIP in which a backward step takes no time."""
    torch.manual_seed(seed)
    vision = CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=16)
    return wrap_clip(CLIP(16, vision, CLIPTextCfg(8, 49408, width=16, heads=1, layers=1)), "tiny").eval()


def shaken(module, amount=0.1, gate=0.5, seed=1):
    """Every weight away from its start, so that a forgotten term shows; gates open, each by another value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, (name, value) in enumerate(module.named_parameters()):
            value += amount * torch.randn(value.shape, generator=generator, dtype=value.dtype)
            if name.endswith("gate"):
                value.fill_(gate + 0.01 * number)
    return module


def random_texts(count, dim=128, seed=1):
    """(count, dim) text embeddings: random directions."""
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


class ColourClip(nn.Module):
    """A class name's embedding is its colour in [0, 1]."""

    image_size, device = 8, torch.device("cpu")

    def normalise(self, images):
        return images * 2 - 1

    def text_embeddings(self, names, templates):
        self.asked = (list(names), templates)
        return torch.tensor([NAMED[name] for name in names]) / 255

    def encode_text(self, prompts):
        """A sentence's colour is that of the name in it, the darker the longer the sentence is."""
        found = [next(NAMED[name] for name in NAMED if name in prompt) for prompt in prompts]
        return torch.tensor(found) / 255 * (1 - torch.tensor([[len(prompt)] for prompt in prompts]) / 500)
