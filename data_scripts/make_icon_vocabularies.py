"""Write the vocabularies of IconWorld's sets: python data_scripts/make_icon_vocabularies.py

Each set follows its real model's class list, in its order, as far as drawings go. `noun=name|name` is a noun that
draws the real class `name`, which becomes a synonym. `noun~name` stands in for a class that no drawing shows: it fills
the real class's place and gets no synonym. The result is committed in ovs_lite/data/vocabularies.
"""

import json
from pathlib import Path

from ovs_lite.data.vocabulary import FOLDER
from ovs_lite.files import write_text
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.textures import NUM_SEEN_STUFF, STUFF_NAMES

IGNORE_INDEX = 65535
NEVER_DRAWN = Path(__file__).parent / "never_drawn.txt"

VOC = """airplane=aeroplane bicycle bird boat bottle bus car cat chair cow table=dining_table dog horse
motorcycle=motorbike person plant=potted_plant sheep sofa train television=tv_monitor"""

CONTEXT = """airplane=aeroplane handbag=bag bed carpet~bedclothes bench bicycle bird boat book bottle building bus
file_cabinet=cabinet car cat chandelier~ceiling chair shirt~cloth computer cow cup curtain dog door fence tile~floor
flower hamburger~food grass soil=ground horse keyboard lamp=light motorcycle=motorbike mountain computer_mouse person
plate stairs~platform plant=potted_plant road rock sheep bookshelf=shelves gravel~sidewalk road_sign=sign sky snow
sofa table sand~track train tree truck television=tv_monitor wall water window wood"""

ADE = """wall building sky tile~floor tree road bed window=windowpane grass person soil=earth door table mountain
plant curtain chair car water painting sofa house mirror carpet=rug field armchair seat fence desk rock wardrobe lamp
bathtub box column road_sign=signboard chest_of_drawers sand fireplace refrigerator gravel~path stairs bridge
bookshelf=bookcase toilet flower book hut=hovel bench oven=stove palm_tree=palm computer boat bus light_bulb~light
truck tower chandelier street_lamp=streetlight television=television_receiver airplane shirt~apparel escalator bottle
van ship fountain washing_machine=washer teddy_bear~plaything stool barrel basket waterfall tent handbag=bag
moped=minibike soccer_ball~ball hamburger~food microwave pot elephant~animal bicycle statue=sculpture vase
traffic_light trash_can=ashcan fan plate shower drinking_glass=glass clock flag"""

COCO = """person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign bench bird
cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis
snowboarder~snowboard soccer_ball=sports_ball kite baseball_bat skateboard surfer~surfboard tennis_racket bottle
wine_glass cup fork knife spoon bowl banana apple sandwich tangerine=orange broccoli carrot hot_dog pizza donut cake
chair sofa=couch plant=potted_plant bed table=dining_table toilet television=tv laptop computer_mouse remote keyboard
phone=cell_phone microwave oven toaster refrigerator book clock vase scissors teddy_bear hair_dryer=hair_drier
toothbrush"""

COCO_STUFF = """bridge building file_cabinet=cabinet box~cardboard carpet cloud=clouds curtain desk door fence flower
lamp=light grass gravel house leaf=leaves mirror mountain newspaper~paper road rock sand shirt~clothes sky snow
soil=dirt stairs tent tile tree wall water window wood"""


def parse_entries(text: str) -> dict[str, list[str]]:
    """ "airplane=aeroplane skier~skis" -> {"airplane": ["aeroplane"], "skier": []}.

    Raises ValueError for a name that IconWorld cannot draw or that occurs twice.
    """
    drawable = {noun.noun for noun in load_nouns()} | set(STUFF_NAMES)
    entries: dict[str, list[str]] = {}
    for word in text.split():
        name, _, real_names = word.replace("_", " ").partition("~")[0].partition("=")
        if name not in drawable or name in entries:
            raise ValueError(f"got {word!r}, expected a noun or stuff of IconWorld that is not listed before it")
        entries[name] = real_names.split("|") if real_names else []
    return entries


def padded(entries: dict[str, list[str]], count: int) -> dict[str, list[str]]:
    """Fill up to `count` classes with all stuff, then with further nouns, every other one first so that kinds mix."""
    nouns = [noun.noun for noun in load_nouns()]
    filled = dict(entries)
    for name in (*STUFF_NAMES, *nouns[::2], *nouns[1::2]):
        if len(filled) < count:
            filled.setdefault(name, [])
    if len(filled) != count:
        raise ValueError(f"got {len(filled)} names, expected to fill exactly {count} classes")
    return filled


def never_drawn(taken: dict[str, list[str]], count: int) -> list[str]:
    """`count` names of visible things that no scene shows; raises ValueError where one could name a drawn class."""
    names = " ".join(NEVER_DRAWN.read_text(encoding="utf-8").split()).split(", ")
    known = set(taken).union(*taken.values()) | {noun.plural for noun in load_nouns()}
    clashes = sorted(name for name in names if name in known or names.count(name) > 1)
    if clashes:
        raise ValueError(f"{NEVER_DRAWN.name}: drawn or listed twice: {', '.join(clashes)}")
    if len(names) < count:
        raise ValueError(f"{NEVER_DRAWN.name}: got {len(names)} names, expected at least {count}")
    return names[:count]


def class_row(index: int, name: str, synonyms: list[str], drawn: bool) -> str:
    """One class as a line of JSON."""
    seen = {noun.noun for noun in load_nouns() if noun.seen} | set(STUFF_NAMES[:NUM_SEEN_STUFF])
    is_thing = name not in STUFF_NAMES and name != "background"
    row = {"id": index, "name": name, "synonyms": synonyms, "is_thing": is_thing, "seen": name in seen, "drawn": drawn}
    return "    " + json.dumps(row)


def write(name: str, source: str, entries: dict[str, list[str]], background: bool = False, undrawn: tuple = ()) -> None:
    """Write one vocabulary file: background first where there is one, then the entries, then names never drawn."""
    rows = [("background", [], True)] if background else []
    rows += [(noun, synonyms, True) for noun, synonyms in entries.items()]
    rows += [(noun, [], False) for noun in undrawn]
    lines = ",\n".join(class_row(index, *row) for index, row in enumerate(rows))
    head = f'  "name": "{name}", "source": "{source}", "count": {len(rows)}, "ignore_index": {IGNORE_INDEX},\n'
    head += f'  "background": {json.dumps({"class": 0} if background else None)},\n'
    write_text(FOLDER / f"{name}.json", "{\n" + head + '  "classes": [\n' + lines + "\n  ]\n}\n")
    print(f"{name}: {len(rows)} classes")


def main() -> None:
    """Write all eleven."""
    voc, context, ade, coco = (parse_entries(text) for text in (VOC, CONTEXT, ADE, COCO))
    seen = [noun.noun for noun in load_nouns() if noun.seen] + list(STUFF_NAMES[:NUM_SEEN_STUFF])
    everything = padded(ade, len(load_nouns()) + len(STUFF_NAMES))
    stuff = coco | {name: coco.get(name, synonyms) for name, synonyms in parse_entries(COCO_STUFF).items()}
    write("icon-coco", "in the manner of COCO panoptic: the classes annotated in training", {n: [] for n in seen})
    write("icon-voc20", "in the manner of PASCAL VOC 2012", voc)
    write("icon-voc21", "in the manner of PASCAL VOC 2012 with background", voc, background=True)
    write("icon-context59", "in the manner of PASCAL-Context", padded(context, 59))
    write("icon-context60", "in the manner of PASCAL-Context with background", padded(context, 59), background=True)
    write("icon-odd", "the classes of icon-context59, in scenes whose context misleads", padded(context, 59))
    write("icon-crowd", "the classes of icon-context59, in scenes full of things", padded(context, 59))
    write("icon-ade150", "in the manner of ADE20K", padded(ade, 150))
    write("icon-object", "in the manner of COCO-Object", coco, background=True)
    write("icon-stuff", "in the manner of COCO-Stuff", padded(stuff, 171))
    undrawn = never_drawn(everything, 847 - len(everything))
    write("icon-ade847", "in the manner of ADE20K full", everything, undrawn=tuple(undrawn))


if __name__ == "__main__":
    main()
