"""Prompt templates: the sentences that a class name is put into before CLIP reads it."""

from open_clip import OPENAI_IMAGENET_TEMPLATES

# The 14 sentences of ViLD (Gu et al., ICLR 2022), which OVSeg, MaskFormer-like open-vocabulary models and FC-CLIP use.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "vild14": (
        "a photo of a {}.",
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
        "a photo of a small {}.",
        "a photo of a medium {}.",
        "a photo of a large {}.",
        "This is a photo of a small {}.",
        "This is a photo of a medium {}.",
        "This is a photo of a large {}.",
        "There is a small {} in the scene.",
        "There is a medium {} in the scene.",
        "There is a large {} in the scene.",
    ),
    "bare": ("{}",),
    "single": ("a photo of a {}.",),
    # The 7 that CLIP's authors chose on ImageNet, and two plurals: what TCL's released code evaluates with.
    "tcl9": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
        "a photo of many {}.",
        "a photo of {}s.",
    ),
    # The 80 that OpenAI wrote for ImageNet: SCLIP, ClearCLIP, NACLIP and ProxyCLIP evaluate with them.
    "imagenet80": tuple(sentence("{}") for sentence in OPENAI_IMAGENET_TEMPLATES),
}
RAW_MEAN = frozenset({"tcl9"})  # averaged as the text tower gives them, not sentence by sentence on the unit sphere


def template_set(name: str) -> tuple[str, ...]:
    """The sentences of a template set. Raises ValueError listing the valid names."""
    if not isinstance(name, str) or name not in TEMPLATES:
        raise ValueError(f"got template set {name!r}, expected one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def fill(pattern: str, name: str) -> str:
    """Put a class name into a template. The name may hold braces: they are text, not fields."""
    return pattern.replace("{}", name)
