"""How well does a CLIP segment without any training for it? Mean IoU on held-out scenes of `icon-ade150`.

K classes, H W pixels. An image is shown at twice CLIP's own side (128 px for the miniature models), as MaskCLIP and
TCL infer; half of the scenes are in unseen styles, half in other palettes and textures, as in the evaluation sets.
"""

import numpy as np
import torch

from ovs_lite.clip import Clip
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary
from ovs_lite.evaluation.clip.held_out import held_out_scenes
from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix, SegmentationScores
from ovs_lite.iconworld.annotate import panoptic, segment_names
from ovs_lite.iconworld.render import Rendering
from ovs_lite.iconworld.scene import SceneBatch
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods import get_method
from ovs_lite.methods.registry import DEFAULT_METHOD

VOCABULARY = "icon-ade150"
AT_ONCE = 8  # (AT_ONCE, K, H, W) scores are held together


@torch.no_grad()
def segmentation_scores(clip: Clip, scenes: int, seed: int = 0) -> tuple[SegmentationScores, SegmentationScores]:
    """Scores of the method `maskclip` and, on the same pixels, of guessing every pixel's class uniformly at random.

    With a ConvNet, which has no attention to change, `maskclip` compares its last feature map.
    """
    vocabulary, method = load_vocabulary(VOCABULARY), get_method(DEFAULT_METHOD, clip)
    texts = clip.text_embeddings(list(vocabulary.names))
    found, guessed = (ConfusionMatrix(len(vocabulary), vocabulary.ignore_index) for _ in range(2))
    dice = torch.Generator().manual_seed(seed % 2**32)
    style = icon_sets(VOCABULARY)[0].style
    for scene, rendering in held_out_scenes(style, scenes, 2 * clip.image_size, seed, "dense", AT_ONCE):
        images = clip.normalise(rendering.images.to(clip.device))
        target = label_maps(scene, rendering, vocabulary)
        found.update(method.predict(images, texts).argmax(1).cpu(), target)
        guessed.update(torch.randint(len(vocabulary), target.shape, generator=dice), target)
    return found.compute(), guessed.compute()


def label_maps(scene: SceneBatch, rendering: Rendering, vocabulary: Vocabulary) -> np.ndarray:
    """Class ids of B scenes, (B, H, W) int64; pixels that the vocabulary does not name hold its ignore_index."""
    maps = []
    for index, ids in enumerate(rendering.ids.numpy()):
        segments, info = panoptic(ids, segment_names(scene, index), vocabulary)
        maps.append(semantic_map(segments, info, vocabulary.ignore_index))
    return np.stack(maps)
