"""Methods: a folder per trained paper, a file per small baseline. What is frozen, what is trained, and `predict`."""

from importlib import import_module

_HOMES = {
    "Method": "ovs_lite.methods.base",
    "Recipe": "ovs_lite.methods.recipe",
    "Task": "ovs_lite.methods.recipe",
    "METHODS": "ovs_lite.methods.registry",
    "RECIPES": "ovs_lite.methods.registry",
    "get_method": "ovs_lite.methods.registry",
    "get_recipe": "ovs_lite.methods.registry",
    "method_class": "ovs_lite.methods.registry",
}


def __getattr__(name: str):
    """Import a name's module only when it is asked for: the registry's names are known without torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = list(_HOMES)
