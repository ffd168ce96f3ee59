"""The papers' whole pipeline on real pictures: killed once in the middle of every stage, on one process and on two.

Set OVS_REAL_DATA to a folder with COCO's layout in `coco-mini` or `coco`, at least 65 pictures (evaluation and mining
work in blocks of 64). OVS_PIPELINE_CLIP takes another CLIP than the miniature, such as ViT-B-16, with random weights.
"""

import os
import time
from pathlib import Path

import pytest
import torch

from kit.kept_files import GLANCE, KeptFiles
from kit.paper_pipeline import Pipeline, random_weights
from kit.paper_stages import CLIP_WEIGHTS, ON_WEIGHTS, STAGES
from kit.runs import rows
from ovs_lite.data.record import load_split

pytestmark = [pytest.mark.fault, pytest.mark.real, pytest.mark.slow]
TRAINED = {"proposals": "maskformer", "grounding": "openseg", "prompts": "ovseg"}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """(processes, killed) -> a run of all stages, and per stage what it went on with. Two processes of a whole run are
    started by torchrun."""
    root = Path(os.environ.get("OVS_REAL_DATA", "absent"))
    pictures = next((root / name for name in ("coco-mini", "coco") if (root / name / "train2017").is_dir()), None)
    if pictures is None:
        pytest.skip("set OVS_REAL_DATA to a folder with coco-mini/train2017 and coco-mini/annotations")
    clip, found = os.environ.get("OVS_PIPELINE_CLIP", "ViT-Lite-8"), {}
    for processes in (1, 2):
        for kill in (False, True):
            home = tmp_path_factory.mktemp(f"{processes}-{'killed' if kill else 'whole'}")
            random_weights(clip, home / CLIP_WEIGHTS)
            run = Pipeline(home, pictures.absolute(), clip, processes, launcher=not kill)
            kept = {name: run.run(name, kill) for name in STAGES}
            found[processes, kill] = run
            found[processes, "kept"] = kept
    return found


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stage_that_was_killed_ends_as_one_that_was_not(pipelines, name, processes):
    """The same bytes of records, weights and pairs, the same numbers of an evaluation."""
    assert pipelines[processes, True].result(name) == pipelines[processes, False].result(name)


@pytest.mark.parametrize("name", [name for name in STAGES if STAGES[name].kept])
@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_killed_stage_had_finished_is_not_made_again(pipelines, name, processes):
    """Steps, blocks of pairs and of counts; only the first stage begins again."""
    kept = pipelines[processes, "kept"][name]
    assert kept.files and not kept.remade


def test_a_file_that_is_made_again_is_noticed(tmp_path):
    path, other = tmp_path / "kept", tmp_path / "other"
    path.write_text("1")
    with KeptFiles((path,)) as left:
        time.sleep(10 * GLANCE)
    with KeptFiles((path,)) as again:
        other.write_text("1")
        other.replace(path)
        time.sleep(10 * GLANCE)
    assert not left.remade and again.remade == {path}


@pytest.mark.parametrize("name", TRAINED)
def test_the_log_of_a_killed_training_run_is_that_of_a_whole_one(pipelines, name):
    for processes in (1, 2):
        killed, whole = (rows(pipelines[processes, kill].home / "runs" / TRAINED[name]) for kill in (True, False))
        assert killed == whole and [row["step"] for row in killed] == [0, 1, 2, 3]


def test_two_processes_train_as_one_does(pipelines):
    """Losses are equal but for rounding at every step, and weights at the end."""
    one, two = (rows(pipelines[processes, False].home / "runs" / "maskformer") for processes in (1, 2))
    for before, after in zip(one, two, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-3)
    one, two = (pipelines[processes, False].weights("proposals") for processes in (1, 2))
    assert one.keys() == two.keys()
    for key in one:
        assert torch.allclose(one[key].float(), two[key].float(), rtol=1e-2, atol=1e-2), key


def test_grounding_tells_images_from_those_of_their_own_process_as_the_paper_s_preset_says(pipelines):
    """sync is off there: half as many others to tell from make a smaller loss, and the masks' loss is the same."""
    one, two = (rows(pipelines[processes, False].home / "runs" / "openseg")[0] for processes in (1, 2))
    assert two["best_match_dice"] == pytest.approx(one["best_match_dice"], rel=1e-4)
    assert two["grounding"] < one["grounding"] - 0.5


@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_two_processes_mine_and_measure_what_one_does(pipelines, name, tmp_path):
    """On the same weights: those of one process."""
    one, two = pipelines[1, False], pipelines[2, False]
    again = Pipeline(tmp_path / "again", one.pictures, one.clip, processes=2)
    assert again.on_weights_of(one, name) == one.result(name)
    if name == "mining":
        assert len(load_split(two.home / "data/coco/pairs/train")) > 64
