"""The explorer by the names of methods, for a cell of a notebook."""

from collections.abc import Mapping
from typing import Any

from ovs_lite.segmenter import load
from ovs_lite.viz.explorer import widget
from ovs_lite.viz.explorer.content import loader_line


def explore(models: Any, image: Any, words: str = widget.DEFAULT_WORDS, **options: Any) -> widget.Explorer:
    """The explorer on one image: words, points, several methods next to each other. See `ovs_lite.viz.explore`.

    models: names of methods, or Segmenters, one or several, or a dictionary of Segmenters. options: of `load`, for
        names.
    Raises ValueError and FileNotFoundError as `load` and `Segmenter.segment`.
    """
    several = models if isinstance(models, Mapping | list | tuple) else [models]
    if isinstance(several, Mapping):
        return widget.explore(several, image, words)
    found = [load(model, **options) if isinstance(model, str) else model for model in several]
    named = ((one.name, model) for one, model in zip(found, several, strict=True) if isinstance(model, str))
    loaders = {name: loader_line(model, **options) for name, model in named}
    return widget.explore(found, image, words, loaders)
