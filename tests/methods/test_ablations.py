"""Shipped ablations: what the notebooks read is what the rows of the recipes say, on the start that they name."""

import json
from dataclasses import replace

import pytest
import torch

from kit.records import scene, toy
from ovs_lite import notebook
from ovs_lite.config import to_dict
from ovs_lite.data.record import write_split
from ovs_lite.methods import ablations, get_recipe, openseg
from ovs_lite.methods.ablations import ablation_config, ablation_path, load_ablation, save_ablation
from ovs_lite.methods.registry import RECIPES
from ovs_lite.tensors import read_metadata, read_tensors
from ovs_lite.train.ablations import main

ROWS = [(name, title) for name in RECIPES for title in get_recipe(name).ablations]


@pytest.mark.parametrize(("name", "title"), ROWS)
def test_each_row_was_trained_as_it_says_from_two_seeds_at_the_least(name, title):
    """A row that is changed without training it again is noticed."""
    folder = ablation_path(name, title).parent
    seeds = sorted(int(path.stem[-1]) for path in folder.glob(ablation_path(name, title).stem[:-1] + "*.safetensors"))
    assert len(seeds) >= 2
    for seed in seeds:
        about = read_metadata(ablation_path(name, title, seed))
        assert json.loads(about["config"]) == json.loads(json.dumps(to_dict(ablation_config(name, title, seed))))
        assert (about["ablation"], about["seed"]) == (title, str(seed))


@pytest.mark.parametrize("title", ["OpenSeg", "masks shown"])
def test_read_and_written_again_it_is_the_same_file_and_only_what_learned_is_in_it(title, tmp_path):
    before = torch.random.get_rng_state()
    method = load_ablation("openseg", title)
    assert torch.equal(torch.random.get_rng_state(), before) and not method.training
    save_ablation(method, tmp_path / "again.safetensors", "openseg", title)
    assert (tmp_path / "again.safetensors").read_bytes() == ablation_path("openseg", title).read_bytes()
    learned = set(read_tensors(tmp_path / "again.safetensors")[0])
    assert not any("backbone" in key for key in learned) and "meaning_head.2.weight" in learned
    assert (title == "OpenSeg") == all(key.startswith(("meaning_head", "log_temp")) for key in learned)


def test_another_start_is_refused_and_so_are_unknown_rows(monkeypatch):
    with pytest.raises(ValueError, match="ablation of openseg 'words'.*all words"):
        load_ablation("openseg", "words")
    with pytest.raises(FileNotFoundError, match="openseg-99.safetensors: seed 99 does not come .* openseg --seeds 99"):
        load_ablation("openseg", "OpenSeg", 99)
    recipe = openseg.RECIPE

    def moved(config):
        method = recipe.start(config)
        method.network.clip_map.weight.data += 0.1
        return method

    monkeypatch.setattr(ablations, "get_recipe", lambda name: replace(recipe, start=moved))
    with pytest.raises(
        ValueError, match="trained from other weights than openseg starts from here; train it: python -m"
    ):
        load_ablation("openseg", "OpenSeg")


def test_a_notebook_reads_them_and_trains_them_where_the_recipe_was_changed(monkeypatch, tmp_path):
    found = notebook.setup("lite", out=tmp_path).ablations("openseg", ["OpenSeg"], (0, 1))
    heads = [found["OpenSeg", seed].network.meaning_head[-1].weight for seed in (0, 1)]
    assert not torch.equal(*heads)
    run, asked = notebook.setup("lite", out=tmp_path, **{"openseg.loop.steps": 7}), {}
    monkeypatch.setattr(
        run, "train_each", lambda name, configs, out: asked.update(configs) or dict.fromkeys(configs, 5)
    )
    assert run.ablations("openseg", ["all words"], (1,)) == {("all words", 1): 5}
    (config,) = asked.values()
    assert (config.loop.steps, config.loop.seed, config.kinds) == (7, 1, ("all",))


def test_in_profile_smoke_they_are_trained_as_briefly_as_all_else(monkeypatch, tmp_path):
    run, asked = notebook.setup("smoke", out=tmp_path, **{"openseg.lr": 0.5, "ovseg.loop.steps": 3}), {}
    monkeypatch.setattr(run, "train_each", lambda name, configs, out: asked.update(configs) or configs)
    run.ablations("openseg", ["with captions"])
    run.ablations("ovseg", ["prompts from blank"], data="pairs")
    openseg_config, ovseg_config = asked.values()
    assert openseg_config.data == ("icon-smoke/icon-coco/train", "icon-smoke/icon-caption/train")
    assert openseg_config.loop.steps == 4 and ovseg_config.loop.steps == 3 and ovseg_config.data == "pairs"
    assert openseg_config.loop.lr == 0.5 and openseg_config.limits == (150, 825)


def test_one_command_trains_writes_and_goes_on(monkeypatch, tmp_path, capsys):
    records = [toy(f"{i}", scene(), {1: 0, 2: 1, 3: 2}) | {"captions": ["a red dog"]} for i in range(2)]
    write_split(records, tmp_path / "data", progress=False)
    tiny = {"tiny": {"data": (str(tmp_path / "data"),), "proposals": "shipped", "alpha": 0.0, "batch": 2, "steps": 2}}
    recipe = replace(openseg.RECIPE, ablations=tiny)
    monkeypatch.setattr(openseg, "RECIPE", recipe)
    monkeypatch.setattr("ovs_lite.train.ablations.ablation_path", lambda *row: tmp_path / f"{row[-1]}.safetensors")
    command = ["openseg", "--seeds", "3", "--out", str(tmp_path / "runs")]
    main(command)
    assert capsys.readouterr().out.endswith(f"{tmp_path / '3.safetensors'}\n")
    first = (tmp_path / "3.safetensors").read_bytes()
    monkeypatch.setattr(ablations, "ablation_path", lambda *row: tmp_path / f"{row[-1]}.safetensors")
    assert load_ablation("openseg", "tiny", 3).network.temperature > 0
    (tmp_path / "3.safetensors").unlink()
    main(command)
    assert (tmp_path / "3.safetensors").read_bytes() == first
    with pytest.raises(SystemExit):
        main(["maskclip"])
