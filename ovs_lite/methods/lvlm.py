"""Captions written again by a large vision-language model, through Hugging Face's transformers, an optional dependency.

Uni-OVSeg (Wang et al., 2024), section 3.3: LLaVA "refines the text descriptions". Its version and its instruction were
not published; `INSTRUCTION` is ours. Slow without a GPU; the default is `ovs_lite.methods.refinement.NounRefiner`.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType

import torch
from PIL import Image

from ovs_lite.data.caption_text import clean_caption

LLAVA = "llava-hf/llava-1.5-7b-hf"
INSTRUCTION = (
    "The following captions of this image may be wrong: {captions} Write one sentence that names the objects and "
    "materials that are visible in the image, with their colours. Name nothing that is not visible."
)
BARE = "Write one sentence that names the objects and materials that are visible in the image, with their colours."


class LvlmRefiner:
    """A `CaptionRefiner` that asks a model of transformers' image-text-to-text family, several images at a time.

    model: name on Hugging Face's hub, which is fetched at first, or a folder. tokens: of an answer at the most.
    The answer is the image's one caption; none where the model says nothing. The most likely words are taken, no random
    ones. Raises ValueError without transformers, OSError where the model cannot be found.
    """

    def __init__(self, model: str = LLAVA, device: str | torch.device = "cpu", tokens: int = 64):
        transformers = _transformers()
        self.name, self.tokens, self.device = f"{model}, {tokens} tokens, {INSTRUCTION}", tokens, torch.device(device)
        self.processor = transformers.AutoProcessor.from_pretrained(model)
        self.processor.tokenizer.padding_side = "left"  # so that all answers begin at one place
        half = {"dtype": torch.float16} if self.device.type == "cuda" else {}
        loaded = transformers.AutoModelForImageTextToText.from_pretrained(model, use_safetensors=True, **half)
        self.network = loaded.to(self.device).eval()

    @torch.no_grad()
    def refine(self, images: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[str]]:
        """See `CaptionRefiner.refine`."""
        asked = [_conversation(image, some) for image, some in zip(images, captions, strict=True)]
        if not asked:
            return []
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        given = self.processor.apply_chat_template(asked, padding=True, **options).to(self.device)
        given["pixel_values"] = given["pixel_values"].to(self.network.dtype)
        written = self.network.generate(**given, max_new_tokens=self.tokens, do_sample=False)
        answers = self.processor.batch_decode(written[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
        return [[said] if (said := clean_caption(answer)) else [] for answer in answers]


def _conversation(image: Image.Image, captions: Sequence[str]) -> list[dict]:
    quoted = " ".join(f'"{clean_caption(caption)}"' for caption in captions)
    text = INSTRUCTION.replace("{captions}", f"{quoted}.") if quoted else BARE
    content = [{"type": "image", "image": image.convert("RGB")}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def _transformers() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError("a vision-language model needs transformers: pip install 'ovs-lite[lvlm]'") from error
