"""The tagger: which weights are taken, what is said where they are missing or damaged."""

import json

import nltk
import pytest

from ovs_lite import cli
from ovs_lite.data.tagging import NLTK_DATA, load_tagger, tokens

TINY = [{"bias": {"NN": 1.0, "JJ": 0.0}}, {"red": "JJ"}, ["JJ", "NN"]]


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    load_tagger.cache_clear()
    yield
    load_tagger.cache_clear()


def installed(folder, parameters=TINY):
    """NLTK's data with such weights."""
    place = folder / "taggers" / NLTK_DATA
    place.mkdir(parents=True)
    for part, content in zip(("weights", "tagdict", "classes"), parameters, strict=True):
        (place / f"{NLTK_DATA}.{part}.json").write_text(json.dumps(content))
    return folder


def test_without_nltks_data_the_shipped_weights_are_taken():
    assert load_tagger().name == load_tagger("shipped").name == "shipped"
    assert load_tagger().tag("a red dog") == [("a", "DT"), ("red", "JJ"), ("dog", "NN")]


@pytest.mark.parametrize("where", ["given", "on NLTK's path"])
def test_nltks_data_is_taken_where_it_is_found(where, tmp_path, monkeypatch):
    installed(tmp_path)
    if where == "on NLTK's path":
        monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    found = load_tagger("auto", str(tmp_path) if where == "given" else "")
    assert found.name == f"nltk {nltk.__version__}"
    assert found.tag("a red dog") == [("a", "NN"), ("red", "JJ"), ("dog", "NN")]


def test_what_is_asked_for_and_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no averaged_.*get it by python -m nltk.downloader"):
        load_tagger("nltk", str(tmp_path))
    with pytest.raises(ValueError, match="got tagger 'spacy', expected one of auto, shipped, nltk"):
        load_tagger("spacy")
    folder = installed(tmp_path)
    (folder / "taggers" / NLTK_DATA / f"{NLTK_DATA}.tagdict.json").write_text("half of a fi")
    with pytest.raises(ValueError, match="is damaged .*get it again by"):
        load_tagger("auto", str(folder))


def test_tokens_are_those_of_the_treebank():
    assert tokens("The dog's ball isn't red/blue. It rolls!") == [
        *"The dog 's ball is n't red / blue . It rolls !".split()
    ]
    assert tokens("") == []


def test_the_command_tries_nltks_tagger_and_says_how_to_get_it(tmp_path, capsys):
    assert cli.main(["data", "nltk", "--nltk-data", str(installed(tmp_path))]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"ok    nltk {nltk.__version__}: ") and "dog/NN" in said
    load_tagger.cache_clear()
    assert cli.main(["data", "nltk"]) == 1
    said = capsys.readouterr().out
    assert (
        said.startswith("FAIL  no averaged_perceptron_tagger_eng") and "nltk.downloader" in said and "shipped" in said
    )
