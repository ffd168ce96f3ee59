"""`ovs-lite train NAME` for every recipe: presets, flags and help from the fields, a crash and a resume, mistakes."""

import json
import warnings
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from kit.ovseg import pairs
from kit.processes import working_process
from kit.records import shape_pairs
from kit.runs import assert_same_bits, crash_then_resume, last_checkpoint, rows, train_command
from ovs_lite import cli
from ovs_lite.config import PROFILES, LoopConfig, get_profile, to_dict
from ovs_lite.data.record import write_split
from ovs_lite.iconworld.build import build_set, split_folder
from ovs_lite.locks import LOCK
from ovs_lite.methods import RECIPES, get_recipe
from ovs_lite.train.command import build_parser, resolve, settings

TINY = {  # a run of each recipe in a moment
    "tcl": "--profile smoke --steps 3 --batch 3 --warmup 1",
    "openseg-proposals": "--profile smoke --steps 3 --batch 3 --channels 16 --queries 6 --layers 1 --heads 2 "
    "--image-size 64 --backbone test_convnext",
    "maskformer": "--profile smoke --steps 3 --batch 3 --channels 16 --queries 6 --layers 2 --heads 2 "
    "--image-size 64 --backbone test_convnext",
    "openseg": "--profile smoke --steps 3 --batch 3 --channels 16 --queries 6 --layers 1 --heads 2 "
    "--image-size 64 --backbone test_convnext",
    "lseg": "--profile smoke --steps 3 --batch 3 --channels 16 --image-size 64 --backbone test_convnext",
    "ovseg": "--profile smoke --steps 3 --batch 3 --warmup 1",
    "uniovseg-masks": "--profile smoke --steps 3 --batch 3 --channels 16 --layers 2 --pixel-layers 1 --heads 2 "
    "--points 3 --boxes 2 --num-points 16 --image-size 64 --backbone test_convnext",
    "uniovseg": "--profile smoke --steps 3 --batch 3 --warmup 1 --short-sides 64 96 --budget 8 --masks classical",
    "clip": "ConvNeXt-Lite --profile smoke --steps 3 --batch 4 --warmup 1",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """The three sets that recipes train on, where the smoke profile's lie."""
    root, data = tmp_path_factory.mktemp("data"), replace(get_profile("smoke").data, train_scenes=7, val_scenes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVS_DATA", str(root))
        for name in ("icon-coco", "icon-sa"):
            build_set(name, replace(data, sa_scenes=7), root, progress=False)
        write_split(shape_pairs(7), split_folder(root, data, "icon-caption", "train"), progress=False)
        write_split(pairs(7), root / data.folder / "pairs" / "train", columns="pairs", progress=False)
        yield root


def arguments(name, words):
    return build_parser(get_recipe(name)).parse_args(words)


def test_every_recipe_has_a_tiny_run_here():
    assert TINY.keys() == RECIPES.keys(), "a new recipe gets its line in TINY"


@pytest.mark.parametrize("name", RECIPES)
def test_presets_are_complete_and_flags_change_nothing_by_themselves(name):
    recipe = get_recipe(name)
    assert recipe.name == name and recipe.presets.keys() == PROFILES.keys() - {"photo"}  # which trains nothing
    for profile, preset in recipe.presets.items():
        assert resolve(recipe, arguments(name, ["--profile", profile])) == preset
        assert isinstance(preset.loop, LoopConfig) and preset.loop.steps > 0


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_has_a_flag_with_a_help_text_and_the_flag_sets_that_field_alone(name):
    recipe = get_recipe(name)
    preset, found = recipe.presets["lite"], list(settings(recipe.presets["lite"]))
    leaves = [f for f in fields(preset) if not is_dataclass(getattr(preset, f.name))]
    assert len(found) == len(leaves) + len(fields(LoopConfig)) == len({key.split(".")[-1] for key, *_ in found})
    shown = build_parser(recipe).format_help()
    for key, kind, value, text in found:
        flag = f"--{key.split('.')[-1].replace('_', '-')}"
        assert len(text) > 5 and flag in shown, f"{key} needs a comment that says what it does"
        if kind in (int, float):
            changed = resolve(recipe, arguments(name, [flag, str(changed_value(key, value))]))
            differs = [k for k, before in leaf_items(preset) if before != dict(leaf_items(changed))[k]]
            assert differs == [key]


def changed_value(key, value):
    others = {"loop.ema": 0.5, "unfreeze": 0.25, "alone": 0.25, "channels": 32, "heads": 2, "closed_blocks": 2}
    return others.get(key, 2 * value or 1)


def leaf_items(config, prefix=""):
    for item in fields(config):
        value = getattr(config, item.name)
        yield from leaf_items(value, f"{prefix}{item.name}.") if is_dataclass(value) else [(prefix + item.name, value)]


@pytest.fixture(scope="module", params=list(TINY))
def whole(request, tmp_path_factory):
    """(recipe, run folder, tensors, every step's row) of three steps without an interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return request.param, out, *train_command(request.param, out, *TINY[request.param].split())


def test_a_run_says_what_was_trained_and_its_file_can_be_loaded(whole):
    name, out, tensors, seen = whole
    recipe, saved = get_recipe(name), json.loads((out / "config.json").read_text())
    config = resolve(recipe, arguments(name, TINY[name].split()))
    assert {k: v for k, v in saved.items() if k not in ("recipe", "found")} == json.loads(json.dumps(to_dict(config)))
    assert saved["recipe"] == name and [row["step"] for row in seen] == [0, 1, 2]
    loaded = recipe.load(out / recipe.weights(config), config)
    assert not loaded.training and tensors


def test_a_crash_and_the_same_command_again_give_the_same_bits(whole, tmp_path):
    name, out, tensors, seen = whole
    words = [*TINY[name].split(), "--checkpoint-every", 1]
    found, rest = crash_then_resume(name, tmp_path, *words, crash_after=1)
    assert_same_bits(found, tensors)
    assert [row["loss"] for row in rest] == [row["loss"] for row in seen[1:]] and rows(tmp_path) == rows(out)


def test_the_run_s_own_config_trains_it_again(whole, tmp_path):
    name, out, tensors, _ = whole
    found, _ = train_command(name, tmp_path, "--config", out / "config.json")
    assert_same_bits(found, tensors)


def test_the_same_command_again_changes_nothing(whole, capsys):
    name, out, tensors, _ = whole
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.parent.name != "run"}
    assert_same_bits(train_command(name, out, *TINY[name].split())[0], tensors)
    assert before == {path: path.read_bytes() for path in out.rglob("*.*") if path.parent.name != "run"}
    assert "last loss unchanged" in capsys.readouterr().out


RESUMED = [
    ("tcl", ["--unfreeze", 0.1], "unfreeze 0.6 -> 0.1"),
    ("tcl", ["--area-weight", 0], "area_weight 0.4 -> 0.0"),
    ("tcl", ["--batch", 2], "batch 3 -> 2"),
    ("openseg-proposals", ["--batch", 2], "batch 3 -> 2"),
    ("openseg-proposals", ["--rescale", 1, 1], r"rescale \[0.8, 1.2\] -> \[1.0, 1.0\]"),
    ("maskformer", ["--no-object", 0.5], "no_object 0.1 -> 0.5"),
]


@pytest.mark.parametrize(("name", "words", "message"), RESUMED)
def test_a_run_is_not_resumed_with_other_settings(name, words, message, tmp_path):
    tiny = [*TINY[name].split(), "--steps", 1]
    tensors, _ = train_command(name, tmp_path, *tiny)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=f"other settings: {message}; choose another run folder or --fresh"):
        train_command(name, tmp_path, *tiny, *words)
    assert (tmp_path / "config.json").read_bytes() == before


def test_two_runs_in_one_folder_are_noticed_before_anything_is_written(tmp_path, capsys):
    words = ["train", "tcl", *TINY["tcl"].split(), "--out", str(tmp_path / "run")]
    with working_process(tmp_path / "run") as other:
        assert cli.main(words) == 1
        message = capsys.readouterr().err
        assert f"run: process {other.pid} on " in message and message.count("\n") == 1
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
        other.kill()
        other.wait()
        assert cli.main(words) == 0, "a killed run's lock is taken over"
    assert not (tmp_path / "run" / LOCK).exists()


def test_another_recipe_s_folder_is_refused(tmp_path):
    train_command("openseg-proposals", tmp_path, *TINY["openseg-proposals"].split(), "--steps", 1)
    with pytest.raises(ValueError, match="other settings: recipe openseg-proposals -> maskformer"):
        train_command("maskformer", tmp_path, *TINY["maskformer"].split(), "--steps", 1)


def test_more_steps_resume_with_a_warning_and_fresh_starts_over(tmp_path):
    tiny = TINY["openseg-proposals"].split()
    train_command("openseg-proposals", tmp_path, *tiny, "--steps", 1)
    with pytest.warns(UserWarning, match="steps 1 -> 2"):
        _, seen = train_command("openseg-proposals", tmp_path, *tiny, "--steps", 2)
    assert [row["step"] for row in seen] == [1] and [row["step"] for row in rows(tmp_path)] == [0, 1]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(ValueError, match="step-00000002: has 2 steps done, got steps=1; ask for as many or more"):
            train_command("openseg-proposals", tmp_path, *tiny, "--steps", 1)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}, "weights of 2 steps"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _, seen = train_command("openseg-proposals", tmp_path, *tiny, "--fresh")
    assert [row["step"] for row in seen] == [0, 1, 2]


def test_the_seed_is_that_of_weights_and_batches(tmp_path):
    found = [train_command("tcl", tmp_path / str(s), *TINY["tcl"].split(), "--steps", 1, "--seed", s) for s in (0, 1)]
    name = "decoder.stages.0.1.conv.weight"
    assert (found[0][0][name] - found[1][0][name]).abs().mean() > 0.01
    assert found[0][1][0]["area"] != found[1][1][0]["area"]


def test_ema_and_precision_reach_the_loop(tmp_path):
    words = [*TINY["openseg-proposals"].split(), "--ema", 0.5, "--precision", "bf16"]
    tensors, _ = train_command("openseg-proposals", tmp_path, *words)
    state, name = last_checkpoint(tmp_path).tensors, "to_mask.weight"
    assert torch.equal(tensors[f"network.{name}"], state[f"average.module.{name}"])
    assert not torch.equal(tensors[f"network.{name}"], state[f"model.{name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_in_bf16_with_accumulation_and_recomputed_blocks(name, tmp_path):
    words = [*TINY[name].split(), "--steps", 2, "--precision", "bf16", "--accumulation", 2, "--recompute"]
    tensors, seen = train_command(name, tmp_path, *words)
    assert len(seen) == 2 and all(abs(value) < float("inf") for row in seen for value in row.values())
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())


def test_a_yaml_file_changes_settings_and_flags_win(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("area_weight: 0.2\nloop:\n  lr: 0.5\nsteps: 7\ncrop_area: [0.5, 1]\n")
    config = resolve(get_recipe("tcl"), arguments("tcl", ["--config", str(file), "--lr", "0.25"]))
    found = (config.area_weight, config.loop.lr, config.loop.steps, config.crop_area)
    assert found == (0.2, 0.25, 7, (0.5, 1.0))
    file.write_text("aera_weight: 0.2\n")
    with pytest.raises(ValueError, match="settings.yaml: got key 'aera_weight', .*did you mean 'area_weight'"):
        resolve(get_recipe("tcl"), arguments("tcl", ["--config", str(file)]))


def test_former_names_still_train(tmp_path, capsys):
    assert cli.main(["train", "proposals", "openseg", *TINY["openseg-proposals"].split(), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "proposals.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tcl --data nowhere", "nowhere"),
        ("tcl --data nowhere.tar", "nowhere.tar"),
        ("tcl --steps 0", "got steps=0, expected 1 or more"),
        ("tcl --batch 0", "got batch=0, expected 1 or more"),
        ("tcl --unfreeze 1.5", "got unfreeze=1.5, expected a share of the steps in [0, 1]"),
        ("tcl --image-size 60", "got image_size=60, expected a multiple of the CLIP's patch, 8 pixels"),
        ("tcl --workers -1", "workers=-1"),
        ("openseg-proposals --queries 0", "got queries=0, expected 1 or more"),
        ("tcl --augment cutout", "got augment='cutout'"),
        ("tcl --image-weight 0 --feature-weight 0 --area-weight 0 --smooth-weight 0", "not all 0"),
        ("tcl --accumulation 0", "got accumulation=0"),
        ("tcl --clip ConvNeXt-Lite", "expected open_clip's ViT"),
        ("tcl --clip ViT-Lite-9", "got CLIP model 'ViT-Lite-9'"),
        ("tcl --pretrained nothing", "nothing: no such checkpoint"),
        ("tcl --config nowhere.yaml", "nowhere.yaml: no such configuration file"),
        ("openseg-proposals --schedule cosin", "got schedule='cosin'"),
        ("openseg-proposals --per thing", "got per='thing', expected one of segment, class"),
        ("maskformer --backbone resnet", "got backbone 'resnet'"),
        ("maskformer --vocabulary cats", "cats"),
        ("clip --model ViT-B-16", "got model='ViT-B-16', expected one of ViT-Lite-8, ConvNeXt-Lite"),
        ("clip --text none.safetensors", "got text='none.safetensors', expected one of"),
        ("mask2former", "got recipe 'mask2former', expected one of"),
    ],
)
def test_mistakes_are_reported_in_one_line(words, message, tmp_path, capsys):
    name, *rest = words.split()
    assert cli.main(["train", name, *TINY.get(name, "").split(), *rest, "--out", str(tmp_path / "run")]) == 2
    reported = capsys.readouterr().err.splitlines()[-1]
    assert reported.startswith("ovs-lite: ") and message in reported
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("words", ["tcl openseg", "tcl --steps many", "tcl --crop-area 1", "tcl --profile big"])
def test_arguments_that_are_not_understood_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *words.split()])
    assert stopped.value.code == 2 and "ovs-lite train tcl: error" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", *RECIPES])
def test_the_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *name.split(), "--help"])
    assert end.value.code == 0 and f"ovs-lite train {name or 'tcl'}" in capsys.readouterr().out
