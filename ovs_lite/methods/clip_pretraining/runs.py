"""From a configuration to a pre-training run, and from the trained network to the file that is shipped."""

from pathlib import Path

from ovs_lite.clip import Clip, load_clip
from ovs_lite.clip.lite.files import read_metadata, save_lite, shipped_path
from ovs_lite.data.loaders.prefetch import Prefetched, WorkerPool
from ovs_lite.data.prompts import TEMPLATES
from ovs_lite.iconworld.caption_grammar import vocabulary_texts
from ovs_lite.iconworld.stream import ByteStream, CaptionStream, object_stages, scene_stages
from ovs_lite.methods.clip_pretraining.config import RANDOM, ClipPretrainingConfig
from ovs_lite.methods.clip_pretraining.training import ClipPretraining, used_token_ids

STAGES = {"objects": object_stages, "scenes": scene_stages}


def build(config: ClipPretrainingConfig) -> ClipPretraining:
    """The towers as the configuration starts them, and an endless stream of images and captions."""
    config = config.resolved()
    clip = _initial_clip(config)
    images = ByteStream(_stream(config, clip.image_size), clip.tokenizer)
    ahead = WorkerPool(images, config.workers) if config.workers else Prefetched(images)
    return ClipPretraining(clip, ahead, config.freeze or None)


def _stream(config: ClipPretrainingConfig, size: int) -> CaptionStream:
    stages = STAGES[config.curriculum](config.loop.steps)
    return CaptionStream(config.batch, size, config.loop.seed, stages, config.draw_on)


def _initial_clip(config: ClipPretrainingConfig) -> Clip:
    clip = load_clip(config.model, pretrained=None if config.initial == RANDOM else config.initial)
    if config.text:
        source = load_clip(config.model, None) if config.text == RANDOM else load_clip(config.text)
        clip.network.text.load_state_dict(source.network.text.state_dict())
    return clip


def save(task: ClipPretraining, path: Path, config: ClipPretrainingConfig) -> None:
    """Write the file that is shipped."""
    config = config.resolved()
    prompts = [pattern.replace("{}", "") for patterns in TEMPLATES.values() for pattern in patterns]
    rows_kept = used_token_ids(task.clip, [*vocabulary_texts(), *prompts])
    steps, stream = config.loop.steps, _stream(config, task.clip.image_size)
    images = _images_before(config) + sum(stream.shape(step)[0] for step in range(steps))
    metadata = {"pictures": str(images), "steps": str(steps), "seed": str(config.loop.seed)}
    save_lite(task.clip.network, path, rows_kept, metadata)


def _images_before(config: ClipPretrainingConfig) -> int:
    """How many images the initial weights have seen."""
    if config.initial == RANDOM:
        return 0
    path = shipped_path(config.model) if config.initial == "lite" else config.initial
    return int(read_metadata(path).get("pictures", 0))


def load(path: Path, config: ClipPretrainingConfig) -> Clip:
    """The trained model."""
    return load_clip(config.model, pretrained=str(path))
