"""`ovs-lite plan`: batch, memory, hours and disk follow from the measured costs; every number says where it is from."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.trace_training import kept_bytes, without_downloads
from ovs_lite.cli import main
from ovs_lite.clip import load_clip
from ovs_lite.commands.plan_training import set_of, sources_of
from ovs_lite.data.catalogue import load_catalogue
from ovs_lite.methods import get_recipe
from ovs_lite.methods.registry import RECIPES
from ovs_lite.train.plan import SPARE, cost_of, costs, make_plan

MEASURED = list(costs()["recipes"])
SCALE = Path(__file__).parents[2] / "docs" / "scale.md"


def test_every_recipe_of_a_paper_can_be_planned():
    assert set(MEASURED) == set(RECIPES) - {"clip"}, "the miniature CLIPs are no paper's"


def test_a_trace_loads_clips_with_random_weights_whatever_the_preset_says():
    with without_downloads():
        found = [load_clip("ViT-Lite-8", None).network.state_dict() for _ in range(2)]
    assert any(not torch.equal(value, found[1][key]) for key, value in found[0].items())


def plan(name, gpus, memory, device="v100", **loop):
    preset = get_recipe(name).presets["paper"]
    return make_plan(name, replace(preset.loop, **loop), preset.batch, gpus, memory, device)


def test_the_published_run_is_planned_as_it_was():
    found = plan("tcl", 16, 32)
    assert found.hours == pytest.approx(12, rel=0.01) and found.measured
    assert (found.batch, found.accumulation) == (64, 1), "16 x 64 pairs, as released"


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("memory", [16, 40, 80])
def test_the_batch_is_the_largest_that_fits_and_all_batches_are_the_step_s(name, memory):
    preset, cost, gpus = get_recipe(name).presets["paper"], cost_of(name), 8
    found, share = plan(name, gpus, memory), preset.batch // 8
    trained = cost["trained_parameters"]
    fixed = 4 * (trained + cost["frozen_parameters"]) + 4 * trained + 8 * trained  # weights, gradients, AdamW

    def fits(batch):
        return fixed + max(batch * cost["activation_bytes"], 8 * trained) <= (1 - SPARE) * memory * 1e9

    if not found.batch:
        assert not fits(1)
        return
    assert found.batch * found.accumulation == share and fits(found.batch)
    assert found.memory == fixed + max(found.batch * cost["activation_bytes"], 8 * trained)
    assert not any(fits(larger) for larger in range(found.batch + 1, share + 1) if share % larger == 0)


@pytest.mark.parametrize("name", MEASURED)
def test_recomputing_takes_less_memory_and_more_hours(name):
    plain, less = plan(name, 8, 80, "a100"), plan(name, 8, 80, "a100", recompute=True)
    assert less.batch >= plain.batch and less.hours >= plain.hours
    kept, least = cost_of(name)["activation_bytes"], cost_of(name)["activation_bytes_recompute"]
    assert least < kept or (name, least) == ("uniovseg", kept), "its adapter is no block that could be computed again"


def test_twice_the_gpus_take_half_the_hours_and_a_faster_one_fewer():
    assert plan("tcl", 8, 80).hours == pytest.approx(2 * plan("tcl", 16, 80).hours)
    fast = plan("tcl", 16, 80, "a100")
    assert fast.hours == pytest.approx(12 * 125 / 312, rel=0.01) and not fast.measured and "x 2.5" in fast.speed_from


def test_the_command_prints_every_number_with_where_it_is_from(capsys):
    assert main("plan tcl --profile paper --gpus 8 --gpu-memory 80".split()) == 0
    printed = capsys.readouterr().out
    for name, source in {
        "batch": "estimated", "parameters": "measured", "memory": "computed", "hours": "estimated",
        "checkpoints": "computed", "data": "cc3m",
    }.items():  # fmt: skip
        (line, *_) = [line for line in printed.splitlines() if line.startswith(f"  {name} ")]
        assert source in line
    assert f"{cost_of('tcl')['date']}: PYTHONPATH=tests python tests/benchmarks/trace_training.py tcl" in printed
    (command,) = re.findall(r"-m ovs_lite.train (.*)", printed)
    from ovs_lite.train.command import build_parser, resolve

    recipe = get_recipe("tcl")
    config = resolve(recipe, build_parser(recipe).parse_args(command.split()[1:]))
    assert config.batch * config.loop.accumulation == recipe.presets["paper"].batch


def test_what_does_not_fit_says_so_and_what_helps(capsys):
    assert main("plan lseg --gpus 8 --gpu-memory 6".split()) == 0
    printed = capsys.readouterr().out
    assert "does not fit" in printed and "none: not one sample fits; --recompute" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tcl --gpus 7", "got 7 GPUs of 80 GB for 1024 samples per step, expected GPUs that share the samples equally"),
        ("tcl --gpus 0", "got 0 GPUs"),
        ("tcl --gpu-memory 0", "got 8 GPUs of 0 GB"),
        ("clip", "got recipe with measured costs 'clip', expected one of"),
    ],
)
def test_mistakes_are_reported_in_one_line(words, message, capsys):
    assert main(["plan", *words.split()]) == 2
    found = capsys.readouterr().err
    assert message in found and found.count("\n") == 1


def test_other_settings_than_batch_and_loop_are_refused(tmp_path, capsys):
    file = tmp_path / "changes.yaml"
    file.write_text("image_size: 448\n")
    assert main(["plan", "tcl", "--config", str(file)]) == 2 and "costs of these were not" in capsys.readouterr().err
    file.write_text("batch: 512\nsteps: 100\n")
    assert main(["plan", "tcl", "--config", str(file)]) == 0 and "64 per GPU x 8" in capsys.readouterr().out


def test_kept_bytes_are_those_of_a_hand_count():
    first, second = torch.nn.Linear(10, 20), torch.nn.Linear(20, 3)
    network, images = torch.nn.Sequential(first, torch.nn.ReLU(), second), torch.randn(5, 10)
    held, operations = kept_bytes(lambda: network(images).sum(), network)
    # the input (5 x 10) and the ReLU's result (5 x 20), which ReLU and the second layer share
    assert held == 4 * (5 * 10 + 5 * 20)
    # forward, gradients of weights, and of the second layer's input alone
    assert operations == 2 * (5 * 10 * 20 + 5 * 20 * 3) * 2 + 2 * 5 * 20 * 3


@pytest.mark.parametrize("name", MEASURED)
def test_the_data_of_a_plan_are_sets_of_the_catalogue(name):
    """So that their size is added up where it is known."""
    found = [set_of(source) for source in sources_of(get_recipe(name).presets["paper"])]
    assert found and set(found) <= set(load_catalogue().sets), found


def test_the_document_has_the_costs():
    table = SCALE.read_text(encoding="utf-8").split("<!-- costs: begin -->")[1].split("<!-- costs: end -->")[0]
    rows = {
        cells[1]: cells[2:-1] for line in table.splitlines() if len(cells := [c.strip() for c in line.split("|")]) > 3
    }
    assert [name for name in rows if name in MEASURED] == MEASURED
    for name in MEASURED:
        cost = cost_of(name)
        assert rows[name][:4] == [
            f"{cost['trained_parameters'] / 1e6:.1f} + {cost['frozen_parameters'] / 1e6:.1f}",
            f"{cost['activation_bytes'] / 1e9:.2f}", f"{cost['activation_bytes_recompute'] / 1e9:.2f}",
            f"{cost['operations'] / 1e12:.2f} ({cost['operations_recompute'] / cost['operations']:.2f} x)",
        ]  # fmt: skip


def test_the_gradients_of_a_depthwise_convolution_are_counted_by_group():
    layer = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    images = torch.rand(2, 8, 5, 5, requires_grad=True)
    _, operations = kept_bytes(lambda: layer(images).sum(), layer)
    assert operations == 3 * 2 * (2 * 8 * 25 * 9), "forward, gradient of the images, gradient of the weights"
