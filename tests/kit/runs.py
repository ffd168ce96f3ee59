"""Training runs in a test: a crash, the bits and the log that they leave, and the command with a recipe's name."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.methods import get_recipe
from ovs_lite.train.command import main


class Crash(Exception):
    """What stands for a kill inside this process."""


def crashing(at, seen=None):
    """An on_step that raises Crash after step `at`, and keeps every row in `seen`."""

    def on_step(step, row):
        if seen is not None:
            seen.append(row)
        if step == at:
            raise Crash

    return on_step


def train_command(name, out, *words, crash_after=None):
    """`ovs-lite train NAME WORDS`: the tensors that it left, and every step's row."""
    seen = []
    main([name, *map(str, words), "--threads", "1", "--out", str(out)], crashing(crash_after, seen))
    return weights(name, out), seen


def weights(name, out):
    """The tensors of the one weights file in a run folder."""
    (path,) = out.glob("*.safetensors")
    assert path.name in {get_recipe(name).weights(config) for config in get_recipe(name).presets.values()} | {
        "text.safetensors", "ConvNeXt-Lite.safetensors", "ViT-Lite-8.safetensors"
    }  # fmt: skip
    return load_file(path)


def rows(out):
    """The rows of a run's log without their speed, the one thing that may differ, and without the last, its cost."""
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert not any("hours" in row for row in found[:-1]), "only the last row says what the run took"
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in found if "hours" not in row]


def last_checkpoint(out):
    return load_checkpoint(latest_checkpoint(out / "checkpoints"))


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]


def crash_then_resume(name, out, *words, crash_after):
    """Stop after a step, then give the same command again: the tensors, and the rows of the second call."""
    with pytest.raises(Crash):
        train_command(name, out, *words, crash_after=crash_after)
    torch.manual_seed(99)  # whatever the process did in between
    return train_command(name, out, *words)
