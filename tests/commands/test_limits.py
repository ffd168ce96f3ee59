"""`--limit N` wherever a command reads a set: the first so many images, and nothing below one."""

from importlib import import_module

import pytest

from ovs_lite import cli

MEASURES = ("grid", "panoptic", "promptable", "proposals", "segmentation")
REQUIRED = {
    "grid": ["--masks", "truth", "--classifier", "oracle"],
    "panoptic": ["--method", "uniovseg"],
    "segmentation": ["--method", "maskclip"],
}
JOBS = {
    "mine": ["source", "--out", "out"], "refine": ["source", "--out", "out"],
    "pseudo-masks": ["teacher.safetensors", "source", "--out", "out"],
}  # fmt: skip


@pytest.mark.parametrize("kind", MEASURES)
def test_of_evaluations_it_is_another_name_of_images(kind):
    parser = import_module(f"ovs_lite.commands.evaluate_{kind}").build_parser()
    words = REQUIRED.get(kind, [])
    assert (
        parser.parse_args([*words, "--limit", "3"]).images == parser.parse_args([*words, "--images", "3"]).images == 3
    )


@pytest.mark.parametrize("name", JOBS)
def test_of_jobs_it_is_an_argument(name):
    parser = import_module(f"ovs_lite.commands.{name.replace('-', '_')}").build_parser()
    assert parser.parse_args([*JOBS[name], "--limit", "3"]).limit == 3


@pytest.mark.parametrize("words", [*([name, *words] for name, words in JOBS.items()), ["data", "prepare", "coco"]])
def test_none_and_fewer_are_refused(words, capsys):
    assert cli.main([*words, "--limit", "0"]) == 2
    assert "limit 0, expected" in capsys.readouterr().err
