"""From a configuration to a pre-training run, and from the trained network to the file that is shipped."""

from pathlib import Path

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.lite.files import save_lite, shipped_path
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.prompts import TEMPLATES
from ovs_lite.iconworld.caption_grammar import vocabulary_texts
from ovs_lite.iconworld.stream import CaptionPairStream, CaptionStream, Stage, default_stages, polish_stages
from ovs_lite.methods.clip_pretraining.config import RANDOM, TEXT, ClipPretrainingConfig
from ovs_lite.methods.clip_pretraining.training import ClipPretraining, TextPretraining, used_token_ids, whiten_patches
from ovs_lite.tensors import load_exactly, read_tensors, write_tensors


def build(config: ClipPretrainingConfig) -> ClipPretraining | TextPretraining:
    """The towers as the configuration starts them, and an endless stream of images and captions."""
    seed = config.loop.seed
    if config.model == TEXT:
        return TextPretraining(load_clip("ConvNeXt-Lite", pretrained=None), CaptionPairStream(2 * config.batch, seed))
    clip = _initial_clip(config)
    teacher = _teacher(config, clip)
    stream = CaptionStream(config.batch, clip.image_size, seed, _stages(config))
    return ClipPretraining(clip, Prefetched(stream), config.freeze or None, config.free_steps, teacher)


def _stages(config: ClipPretrainingConfig) -> tuple[Stage, ...]:
    steps = config.loop.steps
    return {
        "from-scratch": default_stages(steps, config.alone),
        "polish": polish_stages(steps),
        "scenes": (Stage(steps, things=(1, 2), size=(0.7, 1.05), bare=0.5, colour=0.5),),
    }[config.curriculum]


def _initial_clip(config: ClipPretrainingConfig) -> Clip:
    clip = load_clip(config.model, pretrained=config.initial or None)
    if not config.initial and clip.patch_size is not None:
        whiten_patches(clip, CaptionStream(256, clip.image_size, config.loop.seed + 1)(0)[0])
    if config.text == RANDOM:
        clip.network.text.load_state_dict(load_clip(config.model, pretrained=None).network.text.state_dict())
    elif config.text:
        load_exactly(clip.network.text, read_tensors(config.text)[0], config.text)
    return clip


def _teacher(config: ClipPretrainingConfig, clip: Clip) -> Clip | None:
    """The shipped model to imitate; `clip` moves into its joint space."""
    if not config.teacher:
        return None
    teacher = load_clip(config.teacher).requires_grad_(False)
    clip.network.text.load_state_dict(teacher.network.text.state_dict())
    clip.logit_scale.data.copy_(teacher.logit_scale)
    return teacher


def save(task: ClipPretraining | TextPretraining, path: Path, config: ClipPretrainingConfig) -> None:
    """Write the file that is shipped; of a run of `text`, the tensors of the text tower."""
    if config.model == TEXT:
        write_tensors(path, task.clip.network.text.state_dict())
        return
    prompts = [pattern.replace("{}", "") for patterns in TEMPLATES.values() for pattern in patterns]
    rows_kept = used_token_ids(task.clip, [*vocabulary_texts(), *prompts])
    steps, stream = config.loop.steps, task.images.batches
    images = _images_before(config) + sum(stream.shape(step)[0] for step in range(steps))
    metadata = {"pictures": str(images), "steps": str(steps), "seed": str(config.loop.seed)}
    save_lite(task.clip.network, path, rows_kept, metadata)


def _images_before(config: ClipPretrainingConfig) -> int:
    """How many images the initial weights have seen."""
    if not config.initial:
        return 0
    path = shipped_path(config.model) if config.initial == "lite" else config.initial
    return int(read_tensors(path)[1].get("pictures", 0))


def load(path: Path, config: ClipPretrainingConfig) -> Clip:
    """The trained model; of a run of `text`, an untrained one with the trained text tower."""
    if config.model != TEXT:
        return load_clip(config.model, pretrained=str(path))
    clip = load_clip("ConvNeXt-Lite", pretrained=None)
    load_exactly(clip.network.text, read_tensors(path)[0], path)
    return clip
