"""Ablations that come with the kit: rows of the papers' tables whose training takes longer than a notebook should.

Of each, only what its training changed is kept, in half precision; the rest (a shipped CLIP's backbone, shipped
proposals) is what it started from, and its digest stands in the file, so that no row is put on another start.
"""

import json
from pathlib import Path
from typing import Any

import torch

from ovs_lite.config import get_profile, lookup, override, to_dict
from ovs_lite.methods.base import Method
from ovs_lite.methods.registry import get_recipe, method_class
from ovs_lite.methods.trained import shipped_weights
from ovs_lite.tensors import load_exactly, read_tensors, tensors_digest, write_tensors

REST = "rest"  # in a file's metadata: the digest of what the training left as it was
LITE = get_profile("lite").data.folder
COMMAND = "python -m ovs_lite.train.ablations"


def ablation_config(name: str, title: str, seed: int = 0, scenes: str = LITE, **changes: Any) -> Any:
    """The configuration of a recipe's ablation: the lite preset, its own changes, and `changes`.

    scenes: folder of miniature sets whose splits stand in for those of lite. Raises ValueError for an unknown title.
    """
    recipe = get_recipe(name)
    own = lookup(recipe.ablations, title, f"ablation of {name}")
    config = override(recipe.presets["lite"], {**own, "loop.seed": seed})
    data = (config.data,) if isinstance(config.data, str) else config.data
    data = tuple(split.replace(f"{LITE}/", f"{scenes}/", 1) for split in data)
    return override(config, {"data": data[0] if isinstance(config.data, str) else data, **changes})


def ablation_path(name: str, title: str, seed: int = 0) -> Path:
    """Where what it learned lies: weights/ablations in the folder of its method."""
    weights = shipped_weights(method_class(name)).parent
    return weights / "ablations" / f"{title.lower().replace(' ', '-')}-{seed}.safetensors"


def save_ablation(method: Method, path: Path, name: str, title: str, seed: int = 0) -> None:
    """Write what a method has learned since its start. Atomic."""
    config = ablation_config(name, title, seed)
    first, second = (_start(name, config, number).trained_part().state_dict() for number in range(2))
    found = {key: value.half() for key, value in method.trained_part().state_dict().items()}
    fixed = {key: value.half() for key, value in first.items() if value.equal(second[key])}  # no random numbers
    rest = {key: value for key, value in fixed.items() if found[key].equal(value)}
    about = {"ablation": title, "seed": str(seed), "config": json.dumps(to_dict(config)), REST: _digest(rest)}
    write_tensors(path, {key: value for key, value in found.items() if key not in rest}, about)


def load_ablation(name: str, title: str, seed: int = 0) -> Method:
    """The method of a shipped ablation, in evaluation mode.

    Raises ValueError for an unknown title, a damaged file, and one that was made on another start; FileNotFoundError
    where that seed was not trained.
    """
    config, path = ablation_config(name, title, seed), ablation_path(name, title, seed)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: seed {seed} does not come with the kit; train it: {COMMAND} {name} --seeds {seed}"
        )
    tensors, about = read_tensors(path)
    method = _start(name, config, seed)
    part = method.trained_part()
    rest = {key: value.half() for key, value in part.state_dict().items() if key not in tensors}
    if about.get(REST) != _digest(rest):
        raise ValueError(f"{path}: trained from other weights than {name} starts from here; train it: {COMMAND} {name}")
    load_exactly(part, rest | tensors, path)
    return method.eval()


def _start(name: str, config: Any, seed: int) -> Method:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_recipe(name).start(config)


def _digest(rest: dict[str, torch.Tensor]) -> str:
    return tensors_digest(" ".join(sorted(rest)), (rest[key] for key in sorted(rest)))
