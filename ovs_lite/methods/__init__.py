"""Methods: a folder per trained paper, a file per small baseline. What is frozen, what is trained, and `predict`."""

from importlib import import_module

_HOMES = {
    "Method": "base", "Recipe": "recipe", "Task": "recipe", "METHODS": "registry", "RECIPES": "registry",
    "get_method": "registry", "get_recipe": "registry", "method_class": "registry",
}  # fmt: skip


def __getattr__(name: str):
    """Import a name's module only when it is asked for: the registry's names are known without torch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = list(_HOMES)
