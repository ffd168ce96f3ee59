"""The caption grammar: English sentences about a scene, as noisy as web captions need to be.

A caption names a subset of what can be seen, with colour adjectives, counts and plurals, relations and verbs, and
words that name no region ("a sunny picture of"). Everything it says of the things it names is true, unless a
mismatched caption is asked for.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ovs_lite.iconworld.nouns import Noun, load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES
from ovs_lite.iconworld.render import Rendering, visible_areas
from ovs_lite.iconworld.scene import SceneBatch
from ovs_lite.iconworld.textures import STUFF_NAMES

MIN_VISIBLE = 0.4  # share of a thing's own shape that must be uncovered before a caption may name it
MIN_STUFF = 0.06  # share of the picture that a stuff region must cover before a caption may name it

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}  # more: several
OPENINGS = (
    "a sunny picture of", "a nice photo of", "an old snapshot showing", "my favourite picture of", "here we see",
    "a close look at", "a happy scene with", "a view of", "this image shows", "a quiet day with",
)  # fmt: skip
TEMPLATES = (
    "a photo of {}", "a photo of {}.", "a picture of {}", "an image of {}", "a drawing of {}", "this is {}",
    "there is {} in the scene", "there is {} in the scene.", "a photo of {} in the scene", "{}",
)  # fmt: skip
VERBS = {"animal": ("sits", "stands", "rests", "waits"), "vehicle": ("is parked", "stands", "waits")}
ANY_VERBS = ("is", "lies", "can be seen")
ENDINGS = ("", "", "", "", " on a fine morning", " for sale", " as usual", " again")


@dataclass(frozen=True)
class SeenThing:
    """A thing that a caption may name: its noun, colour word ("" where none is true) and centre (fractions, y down)."""

    noun: Noun
    colour: str
    x: float
    y: float


@dataclass(frozen=True)
class SceneContent:
    """What a caption may talk about: visible things, large to small, and the names of visible stuff."""

    things: tuple[SeenThing, ...]
    stuff: tuple[str, ...]


def scene_contents(scene: SceneBatch, rendering: Rendering) -> list[SceneContent]:
    """What can be seen in each of the B scenes."""
    areas = visible_areas(scene, rendering)
    regions, pixels = scene.stuff_ids.shape[1], rendering.ids[0].numel()
    areas, own = areas.cpu(), rendering.own.cpu()
    named = (areas[:, regions:] >= MIN_VISIBLE * own) & (own > 0) & scene.thing_valid
    stuff = (areas[:, :regions] >= MIN_STUFF * pixels) & scene.stuff_valid
    nouns = load_nouns()
    columns = [value.tolist() for value in (scene.noun_ids, scene.colour_ids, scene.x, scene.y)]
    contents = []
    for b, (thing_row, stuff_row) in enumerate(zip(named.tolist(), stuff.tolist(), strict=True)):
        noun_ids, colours, xs, ys = (column[b] for column in columns)
        things = tuple(
            SeenThing(nouns[noun_ids[t]], COLOUR_NAMES[colours[t]] if colours[t] >= 0 else "", xs[t], ys[t])
            for t, ok in enumerate(thing_row)
            if ok
        )
        names = tuple(STUFF_NAMES[i] for i, ok in zip(scene.stuff_ids[b].tolist(), stuff_row, strict=True) if ok)
        contents.append(SceneContent(things, names))
    return contents


def with_article(phrase: str) -> str:
    """'cat' -> 'a cat', 'owl' -> 'an owl'; by spelling, with exceptions for 'hour-', 'uni-' and the like.

    Words that exist only in the plural take no article: 'red scissors' stays as it is.
    """
    if phrase.endswith(_plural_only()):
        return phrase
    vowel, not_vowel = ("a", "e", "i", "o", "u", "hour"), ("uni", "uku", "ute", "euro")
    article = "an" if phrase.startswith(vowel) and not phrase.startswith(not_vowel) else "a"
    return f"{article} {phrase}"


@lru_cache(maxsize=1)
def _plural_only() -> tuple[str, ...]:
    return tuple(noun.noun for noun in load_nouns() if noun.noun == noun.plural and noun.noun.endswith("s"))


def _group_phrase(group: Sequence[SeenThing], rng: random.Random, colour_chance: float) -> str:
    """One phrase for all visible things of one noun: "a red cat", "two cats", "three blue balls"."""
    noun = group[0].noun
    same_colour = len({thing.colour for thing in group}) == 1
    adjective = f"{group[0].colour} " if same_colour and rng.random() < colour_chance and group[0].colour else ""
    if len(group) == 1:
        return with_article(adjective + noun.noun)
    number = NUMBERS.get(len(group), "several") if rng.random() < 0.8 else "some"
    return f"{number} {adjective}{noun.plural}"


def _groups(content: SceneContent) -> list[list[SeenThing]]:
    groups: dict[str, list[SeenThing]] = {}
    for thing in content.things:
        groups.setdefault(thing.noun.noun, []).append(thing)
    return list(groups.values())


def _relation(first: SeenThing, second: SeenThing) -> str:
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) < 0.12 and abs(dy) < 0.12:
        return "near"
    if abs(dx) > 1.5 * abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    if abs(dy) > 1.5 * abs(dx):
        return "above" if dy < 0 else "below"
    return "next to"


def _listing(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _ground(content: SceneContent, rng: random.Random, chance: float) -> str:
    places = [name for name in content.stuff if name != "sky"]
    if not places or rng.random() > chance:
        return ""
    place = rng.choice(places)
    return rng.choice((f" on the {place}", f" with {place} in the background", f" and some {place}"))


def sentence(content: SceneContent, rng: random.Random, colour_chance: float = 0.5, stuff_chance: float = 0.5) -> str:
    """One caption of a scene: a random subset of its things (at least one) in a random sentence form."""
    groups = _groups(content)
    if not groups:
        names = list(content.stuff) or ["nothing"]
        return f"{rng.choice(OPENINGS)} {_listing(names)}"
    chosen = rng.sample(groups, rng.randint(1, len(groups)))
    phrases = [_group_phrase(group, rng, colour_chance) for group in chosen]
    form = rng.random()
    ground, ending = _ground(content, rng, stuff_chance), rng.choice(ENDINGS)
    single = all(len(group) == 1 for group in chosen[:2])
    if form < 0.30 and len(chosen) >= 2 and single:
        return f"{phrases[0]} {_relation(chosen[0][0], chosen[1][0])} {phrases[1]}{ground}{ending}"
    if form < 0.50 and len(chosen[0]) == 1:
        verb = rng.choice(VERBS.get(chosen[0][0].noun.kind, ()) + ANY_VERBS)
        places = [name for name in content.stuff if name != "sky"] or ["open"]
        rest = f" with {_listing(phrases[1:])}" if len(phrases) > 1 else ""
        return f"{phrases[0]} {verb} by the {rng.choice(places)}{rest}{ending}"
    return f"{rng.choice(OPENINGS)} {_listing(phrases)}{ground}{ending}"


def short_caption(content: SceneContent, rng: random.Random, colour_chance: float = 0.0) -> str:
    """A template around the largest thing only: "a photo of a cat"."""
    groups = _groups(content)
    if not groups:
        return sentence(content, rng)
    return rng.choice(TEMPLATES).format(_group_phrase(groups[0], rng, colour_chance))


def listing_caption(content: SceneContent, rng: random.Random, colour_chance: float = 0.0) -> str:
    """A template around everything that can be seen: "a photo of a cat, two dogs, a red car and grass"; half
    of the captions leave the stuff out."""
    groups = _groups(content)
    if not groups:
        return sentence(content, rng)
    rng.shuffle(groups)
    phrases = [_group_phrase(group, rng, colour_chance) for group in groups]
    return rng.choice(TEMPLATES).format(_listing(phrases + (list(content.stuff) if rng.random() < 0.5 else [])))


def stuff_caption(content: SceneContent, rng: random.Random) -> str:
    """A template around one or two of the visible stuff regions: "a photo of grass and sky"."""
    names = rng.sample(content.stuff, rng.randint(1, min(2, len(content.stuff)))) if content.stuff else ["nothing"]
    return rng.choice(TEMPLATES).format(_listing(names))


def captions_for(
    contents: Sequence[SceneContent], rng: random.Random, number: int = 5, mismatch: float = 0.0, stuff: float = 0.0
) -> list[list[str]]:
    """`number` captions per scene: list of B lists. With chance `mismatch` a caption describes another scene, with
    chance `stuff` it names only the background, as captions of landscapes do."""
    result = []
    for content in contents:
        sources = [rng.choice(contents) if rng.random() < mismatch else content for _ in range(number)]
        landscapes = [stuff > 0 and rng.random() < stuff for _ in sources]
        pairs = zip(sources, landscapes, strict=True)
        result.append([stuff_caption(source, rng) if wide else sentence(source, rng) for source, wide in pairs])
    return result


def vocabulary_texts() -> list[str]:
    """Every word the grammar can say, as texts to tokenise (in both positions a token can take)."""
    nouns = [word for noun in load_nouns() for word in (noun.noun, noun.plural)]
    verbs = [verb for group in (*VERBS.values(), ANY_VERBS) for verb in group]
    relations = ["to the left of", "to the right of", "above", "below", "next to", "near"]
    frames = ["and some", "with", "in the background", "by the", "on the", "several", "some", "open", "nothing"]
    words = [*nouns, *COLOUR_NAMES, *STUFF_NAMES, *NUMBERS.values(), *OPENINGS, *TEMPLATES, *verbs, *ENDINGS]
    return [*words, *relations, *frames, "a an the", ", ."]
