"""`ovs-lite train clip`: a text tower, then a model against it, in two steps each; the files load, a rerun is idle."""

import json

import pytest
import torch
from ovs_lite.train.old_clip import build_parser
from safetensors.torch import load_file

from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.cli import main
from ovs_lite.clip import load_clip
from ovs_lite.clip.lite.files import SHIPPED, read_metadata, shipped_path

SMALL = ["--steps", "2", "--batch", "4"]


def run(*words):
    assert main(["train", "clip", *map(str, words)]) == 0


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The folder of a text tower trained for two steps."""
    out = tmp_path_factory.mktemp("text")
    run("text", *SMALL, "--out", out)
    return out


def contents(folder):
    """Everything a run left: log and checkpoints as bytes, weights as tensors (their header's order is free)."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent != folder}
    return files, (folder / "log.jsonl").read_bytes(), {p.name: load_file(p) for p in folder.glob("*.safetensors")}


def assert_same(first, second):
    assert first[:2] == second[:2] and first[2].keys() == second[2].keys()
    for name, tensors in first[2].items():
        assert tensors.keys() == second[2][name].keys()
        assert all(torch.equal(value, second[2][name][key]) for key, value in tensors.items())


def assert_same_words(found, expected, clip):
    """Equal text towers, of the token table those rows that are kept."""
    rows = clip.tokenizer(["a photo of a cat", "two red owls"]).unique()
    for key, value in expected.items():
        kept = rows if key == "token_embedding.weight" else ...
        torch.testing.assert_close(found[key][kept], value[kept].half().float(), rtol=0, atol=0)


def test_the_text_tower_fits_both_models(text, capsys):
    tensors = load_file(text / "text.safetensors")
    for name in SHIPPED:
        load_clip(name, None).network.text.load_state_dict(tensors)
    before = contents(text)
    run("text", *SMALL, "--out", text)
    assert_same(before, contents(text))
    assert f"wrote {text / 'text.safetensors'}" in capsys.readouterr().out


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_is_trained_against_it_and_its_file_loads(text, name, tmp_path, capsys):
    words = [name, *SMALL, "--text", text / "text.safetensors", "--free-steps", 1, "--out", tmp_path]
    run(*words)
    path = tmp_path / f"{name}.safetensors"
    assert read_metadata(path) == {"pictures": "8", "steps": "2", "seed": "0"}
    clip = load_clip(name, str(path))
    assert_same_words(clip.network.text.state_dict(), load_file(text / "text.safetensors"), clip)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [0, 1]
    before = contents(tmp_path)
    capsys.readouterr()
    run(*words)
    assert_same(before, contents(tmp_path))
    assert "last loss unchanged" in capsys.readouterr().out


def test_start_goes_on_from_given_weights_and_train_text_thaws(text, tmp_path):
    first = ["ViT-Lite-8", *SMALL, "--text", text / "text.safetensors"]
    run(*first, "--out", tmp_path / "first")
    start = tmp_path / "first" / "ViT-Lite-8.safetensors"
    run("ViT-Lite-8", *SMALL, "--initial", start, "--train-text", "--out", tmp_path / "second")
    before, after = (load_clip("ViT-Lite-8", str(p)).network.text.state_dict() for p in
                     (start, tmp_path / "second" / "ViT-Lite-8.safetensors"))  # fmt: skip
    moved = [key for key in before if key.startswith("transformer") and not torch.equal(before[key], after[key])]
    assert moved


def test_a_teacher_brings_its_text_tower_which_stays_frozen(tmp_path):
    run("ViT-Lite-8", "--steps", 1, "--batch", 4, "--teacher", "ConvNeXt-Lite", "--out", tmp_path)
    student, teacher = load_clip("ViT-Lite-8", str(tmp_path / "ViT-Lite-8.safetensors")), load_clip("ConvNeXt-Lite")
    assert_same_words(student.network.text.state_dict(), teacher.network.text.state_dict(), teacher)
    assert student.logit_scale.item() == pytest.approx(teacher.logit_scale.item(), abs=0.01)
    (row,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert row["loss"] == pytest.approx(row["contrastive"] + 10 * row["distillation"], abs=1e-4)


@pytest.mark.parametrize("keep", [True, False])
def test_keep_text_trains_the_image_tower_alone_even_while_polishing(keep, tmp_path):
    words = ["--polish", "--initial", shipped_path("ViT-Lite-8"), *["--keep-text"][:keep]]
    run("ViT-Lite-8", *SMALL, *words, "--out", tmp_path)
    before, after = load_clip("ViT-Lite-8"), load_clip("ViT-Lite-8", str(tmp_path / "ViT-Lite-8.safetensors"))
    assert not torch.equal(before.network.visual.conv1.weight, after.network.visual.conv1.weight)
    if keep:
        assert_same_words(after.network.text.state_dict(), before.network.text.state_dict(), before)
    else:
        with pytest.raises(AssertionError):
            assert_same_words(after.network.text.state_dict(), before.network.text.state_dict(), before)


def test_ema_ships_the_average_of_the_weights(text, tmp_path):
    run("ViT-Lite-8", *SMALL, "--text", text / "text.safetensors", "--ema", 0.5, "--out", tmp_path)
    state = load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).tensors
    shipped = load_file(tmp_path / "ViT-Lite-8.safetensors")["visual.conv1.weight"]
    assert torch.equal(shipped, state["average.module.visual.conv1.weight"].half())
    assert not torch.equal(shipped, state["model.visual.conv1.weight"].half())


def test_a_missing_text_tower_is_one_line(tmp_path, capsys):
    words = [
        "train",
        "clip",
        "ViT-Lite-8",
        *SMALL,
        "--text",
        str(tmp_path / "none.safetensors"),
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "none.safetensors" in message and message.count("\n") == 1


def test_unknown_models_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["ViT-B-16"])
    assert stopped.value.code == 2 and "ViT-Lite-8" in capsys.readouterr().err
