"""Vocabularies of a few classes."""

from ovs_lite.data.vocabulary import parse_vocabulary


def vocabulary(*names, background=None, synonyms=None):
    """One of these classes. background: the number of the class that stands for it. synonyms: by class name."""
    classes = [
        {"id": i, "name": name, "synonyms": (synonyms or {}).get(name, []), "is_thing": False}
        for i, name in enumerate(names)
    ]
    ground = None if background is None else {"class": background}
    content = {"name": "toy", "source": "test", "count": len(names), "ignore_index": 65535, "background": ground}
    return parse_vocabulary(content | {"classes": classes})


RGB = vocabulary("red", "green", "blue")
FOUR = vocabulary("red", "green", "blue", "white", synonyms={"blue": ["azure"]})
GROUND = vocabulary("green", "background", "blue", "red", background=1)
