"""The parts of IconWorld: which scenes each set holds, what is annotated in them, and what they stand for.

| set | stands for | annotation |
| --- | --- | --- |
| icon-caption | web pairs, CC3M/12M | captions only, every noun and stuff |
| icon-coco | COCO panoptic + captions | segments of its seen classes only, 5 captions; unseen things stay unlabelled |
| icon-sa | SA-1B | unlabelled masks at three granularities |
| icon-voc20 ... icon-stuff | the evaluation sets | segments of the vocabulary's classes |
| icon-odd | photographs whose context misleads | as icon-context59; no scene where its first thing is at home |
| icon-crowd | full photographs: 8 to 15 things, 1.5 times the side | as icon-context59 |
"""

from dataclasses import dataclass

from ovs_lite.config import DataConfig
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.scene import SceneStyle
from ovs_lite.iconworld.textures import STUFF_NAMES

EVALUATION_SETS = (
    "icon-voc20", "icon-voc21", "icon-context59", "icon-context60", "icon-ade150", "icon-ade847", "icon-object",
    "icon-stuff", "icon-odd", "icon-crowd",
)  # fmt: skip
SET_NAMES = ("icon-caption", "icon-coco", "icon-sa", *EVALUATION_SETS)
# Validation is drawn unlike training: half of the scenes in styles that training never shows, half in other textures.
HELD_OUT = {"unseen": 0.5, "new_style": 0.5}


@dataclass(frozen=True)
class IconSet:
    """One split of one set: what to draw and what to keep of it.

    vocabulary: whose classes are annotated, None for none. captions: per image. masks: three-granularity masks.
    landscapes: share of captions that name only the background; without any, training on captions loses the stuff.
    scale: factor on the configuration's image size.
    """

    name: str
    split: str
    style: SceneStyle
    vocabulary: Vocabulary | None
    captions: int
    masks: bool = False
    landscapes: float = 0.0
    scale: float = 1.0


def _in_vocabulary(vocabulary: Vocabulary) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the nouns and of the stuff that a vocabulary names."""
    names = set(vocabulary.names)
    nouns = tuple(i for i, noun in enumerate(load_nouns()) if noun.noun in names)
    return nouns, tuple(i for i, name in enumerate(STUFF_NAMES) if name in names)


def _annotated(name: str, split: str, captions: int, other_share: float, scale: float = 1.0, **style) -> IconSet:
    vocabulary = load_vocabulary(name)
    nouns, stuff = _in_vocabulary(vocabulary)
    others = tuple(sorted(set(range(len(load_nouns()))) - set(nouns)))
    # a set without enough stuff of its own shows all of it, unlabelled
    all_stuff = other_share > 0 or len(stuff) < 3
    stuff = tuple(range(len(STUFF_NAMES))) if all_stuff else stuff
    scenes = SceneStyle(nouns, stuff, other_ids=others, other_share=other_share if others else 0.0, **style)
    return IconSet(name, split, scenes, vocabulary, captions, scale=scale)


def icon_sets(name: str) -> tuple[IconSet, ...]:
    """The splits of one set. Raises ValueError with the valid names for an unknown one."""
    every_noun = tuple(range(len(load_nouns())))
    if name == "icon-caption":
        style = SceneStyle(every_noun)
        return tuple(IconSet(name, split, style, None, captions=1, landscapes=0.15) for split in ("train", "val"))
    if name == "icon-sa":
        return (IconSet(name, "train", SceneStyle(every_noun, repeat=0.4), None, captions=0, masks=True),)
    if name == "icon-coco":
        return (_annotated(name, "train", 5, 0.25), _annotated(name, "val", 5, 0.25, new_style=0.5))
    if name in EVALUATION_SETS:
        special = {"icon-odd": {"company": 1.0, "odd": True}, "icon-crowd": {"things": (8, 15), "scale": 1.5}}
        background = load_vocabulary(name).background is not None
        return (_annotated(name, "val", 0, 0.25 if background else 0.0, **special.get(name, {}), **HELD_OUT),)
    raise ValueError(f"got set {name!r}, expected one of {', '.join(SET_NAMES)}")


def scene_count(icon_set: IconSet, config: DataConfig) -> int:
    """How many scenes of a split the configuration asks for."""
    if icon_set.split == "val":
        return config.val_scenes
    by_name = {"icon-caption": config.caption_scenes, "icon-coco": config.train_scenes, "icon-sa": config.sa_scenes}
    return by_name[icon_set.name]
