"""The panel's state, without a browser: set traits as the panel does, look at what they change."""

import io
import json

import numpy as np
import pytest
import traitlets
from bs4 import BeautifulSoup
from PIL import Image

import ovs_lite
from kit.explorer import Squares, segmenters
from kit.images import noise
from ovs_lite.data.images import encode_image
from ovs_lite.data.rle import decode_rle
from ovs_lite.viz.explorer.content import data_url
from ovs_lite.viz.explorer.widget import Explorer

WORDS = "red, green, blue"


@pytest.fixture
def models():
    return segmenters()


@pytest.fixture
def explorer(models):
    return ovs_lite.viz.explore(models, noise(24, 32), WORDS)


def test_it_shows_what_the_segmenter_finds(explorer, models):
    expected = models["colours"].segment(noise(24, 32), WORDS)
    np.testing.assert_array_equal(explorer.labels, expected.labels)
    assert explorer.names == expected.queries and explorer.method == "colours" and explorer.second == "promptable"
    assert [layer["name"] for layer in explorer.content["methods"]] == list(models)


def test_new_words_are_answered_without_looking_at_the_image_again(explorer, models):
    looks = {name: len(model.method.shapes) for name, model in models.items()}
    photo, seen = explorer.photo, []
    explorer.observe(lambda change: seen.append(change["new"]), "labels")
    explorer.words = "white, blue"
    assert {name: len(model.method.shapes) for name, model in models.items()} == looks and min(looks.values()) >= 1
    np.testing.assert_array_equal(seen[-1], models["colours"].segment(noise(24, 32), "white, blue").labels)
    assert explorer.names == ["white", "blue"] and explorer.photo is photo


def test_wrong_words_show_an_error_and_keep_the_result(explorer):
    before = explorer.labels
    explorer.words = "red,,"
    assert "empty name" in explorer.error and explorer.labels is before and not explorer.busy
    explorer.points = [[1, 1, True]]
    assert "empty name" in explorer.error, "a click does not answer the words"
    explorer.words = "red, white"
    assert explorer.error == "" and explorer.names == ["red", "white"]


def test_it_is_busy_while_it_works(explorer):
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), "busy")
    explorer.words = "white"
    assert seen == [True, False]


def test_the_method_switch_changes_the_labels_and_nothing_else(explorer, models):
    explorer.points = [[16, 12, True]]
    plain, content = explorer.labels, explorer.content
    explorer.method = "promptable"
    assert (explorer.labels != plain).any() and explorer.content is content
    explorer.method = "colours"
    np.testing.assert_array_equal(explorer.labels, plain)


def selected(explorer):
    return next(result for name, result in explorer.results.items() if name == "promptable").labels >= 0


def test_points_and_boxes_add_and_negative_points_take_away(explorer):
    def squares(*points):
        masks = Squares().masks_at((24, 32), points=points)[0][:, 1].numpy() > 0
        return np.logical_or.reduce(masks)

    explorer.points = [[8, 8, True]]
    np.testing.assert_array_equal(selected(explorer), squares((8, 8)))
    explorer.points = [[8, 8, True], [10, 8, False]]
    np.testing.assert_array_equal(selected(explorer), squares((8, 8)) & ~squares((10, 8)))
    explorer.boxes = [[20, 10, 30, 20]]
    box = np.zeros((24, 32), bool)
    box[10:20, 20:30] = True
    np.testing.assert_array_equal(selected(explorer), (squares((8, 8)) | box) & ~squares((10, 8)))
    explorer.boxes, explorer.points = [], [[10, 8, False]]
    np.testing.assert_array_equal(selected(explorer), ~squares((10, 8)))
    explorer.points = []
    assert selected(explorer).all()


def test_what_is_selected_goes_to_the_word_that_scores_best_there(explorer):
    explorer.points = [[8, 8, True]]
    result = explorer.results["promptable"]
    where = result.labels >= 0
    means = [float(plane[where].mean()) for plane in result.logits]
    assert set(result.labels[where]) == {int(np.argmax(means))}


def test_prompts_are_answered_from_one_look(explorer, models):
    for number in range(3):
        explorer.points = [*explorer.points, [8 + number, 8, True]]
    assert models["promptable"].method.squares.looks == 1


def test_the_history_knows_which_prompt_came_last(explorer):
    explorer.points = [[8, 8, True]]
    explorer.boxes = [[1, 1, 9, 9]]
    explorer.points = [[8, 8, True], [9, 9, False]]
    assert explorer.history == ["points", "boxes", "points"]
    explorer.points = [[8, 8, True]]
    assert explorer.history == ["points", "boxes"]
    explorer.points = []
    assert explorer.history == ["boxes"]


@pytest.mark.parametrize(
    "trait, value, message",
    [
        ("points", [[99, 1, True]], "inside 32 x 24"),
        ("points", [[1]], "expected .x, y, positive"),
        ("boxes", [[5, 5, 5, 9]], "expected .x0, y0"),
        ("method", "nowhere", "expected one of colours, promptable"),
        ("view", "three", "three"),
        ("opacity", 2.0, "2"),
        ("points", [["a", 1]], "got the point"),
        ("boxes", [[None, 1, 2, 3]], "got the box"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(explorer, trait, value, message):
    before, labels = getattr(explorer, trait), explorer.labels
    with pytest.raises(traitlets.TraitError, match=message):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before and explorer.labels is labels


def test_points_need_a_method_that_takes_them(models):
    explorer = ovs_lite.viz.explore(models["colours"], noise(24, 32), WORDS)
    assert explorer.promptable == [] and explorer.second == ""
    with pytest.raises(traitlets.TraitError, match="a method that takes them"):
        explorer.points = [[1, 1, True]]


def test_the_table_and_the_code_give_the_same_again(explorer, models):
    table = explorer.table()
    assert list(table.columns) == ["method", "word", "share", "score"] and len(table) == 6
    shares = table[table.method == "colours"].share
    np.testing.assert_allclose(shares, [(explorer.labels == k).mean() for k in range(3)])
    assert explorer.code() == "models['colours'].segment('photo.jpg', 'red, green, blue')"
    explorer.words = "red|white, blue"
    again = eval(explorer.code(), {"models": {"colours": Reader(models["colours"])}})
    np.testing.assert_array_equal(again.labels, explorer.labels)
    explorer.words = "red,,"
    assert "red|white" in explorer.code(), "what is shown is what is repeated"


class Reader:
    """A model that takes a file's name for the test's image."""

    def __init__(self, model):
        self.model = model

    def segment(self, image, words):
        return self.model.segment(noise(24, 32), words)


def test_masks_are_saved_as_png_rle_and_page(explorer, tmp_path):
    for name in ("a.png", "a.json", "a.html"):
        explorer.save(tmp_path / name)
    for found in json.loads((tmp_path / "a.json").read_text()):
        mask = explorer.labels == explorer.names.index(found["category"])
        np.testing.assert_array_equal(decode_rle(found["segmentation"]), mask)
        assert found["area"] == mask.sum() > 0
    for path in explorer.save_masks(tmp_path / "masks"):
        np.testing.assert_array_equal(np.array(Image.open(path)) == 255, explorer.labels == int(path.stem))
    page = BeautifulSoup((tmp_path / "a.html").read_text(), "html.parser")
    assert json.loads(page.find(id="content").string)["names"] == explorer.names
    with pytest.raises(ValueError, match="COCO RLE"):
        explorer.save(tmp_path / "a.gif")


def test_models_of_another_kind_or_of_one_name_are_refused(models):
    with pytest.raises(ValueError, match="ovs_lite.load"):
        ovs_lite.viz.explore("colours", noise(4, 4))
    with pytest.raises(ValueError, match="two models of one name"):
        ovs_lite.viz.explore([models["colours"]] * 2, noise(4, 4))


def test_names_are_loaded(monkeypatch, models):
    monkeypatch.setattr("ovs_lite.notebook.explorer.load", lambda name, **options: models[name])
    explorer = ovs_lite.explore(["promptable"], noise(24, 32), WORDS, clip="ViT-B-16")
    assert isinstance(explorer, Explorer) and explorer.promptable == ["promptable"]
    assert explorer.code().startswith("ovs_lite.load('promptable', clip='ViT-B-16').segment(")


def test_prompts_that_come_together_are_taken_back_one_by_one(explorer):
    explorer.points = [[1, 1, True], [9, 9, False]]
    explorer.boxes = [[0, 0, 5, 5]]
    assert explorer.history == ["points", "points", "boxes"]
    explorer.points = [[1, 1, True]]
    assert explorer.history == ["points", "boxes"]


def picked(explorer, data, name="other.png"):
    """What the panel's file input sends."""
    explorer._handle_custom_msg({"kind": "picture", "name": name}, [memoryview(data)])


def test_another_picture_is_asked_for_the_same_words(explorer, models):
    explorer.points, explorer.pixel = [[8, 8, True]], [3, 4]
    other = noise(20, 44, seed=5)
    picked(explorer, encode_image(other))
    assert not explorer.error and not explorer.busy and explorer.points == explorer.pixel == explorer.history == []
    np.testing.assert_array_equal(explorer.labels, models["colours"].segment(other, WORDS).labels)
    assert explorer.content["size"] == [20, 44] and "other.png" in explorer.code() and not explorer.why
    assert explorer.photo == data_url(Image.fromarray(other))


def blank(width, height):
    """A small file of many pixels."""
    Image.new("1", (width, height)).save(found := io.BytesIO(), "PNG")
    return found.getvalue()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"no picture", "cannot be read as an image"),
        (b"", "cannot be read as an image"),
        (encode_image(noise(20, 44))[:400], "damaged or truncated"),
        (blank(8000, 7000), "million"),
    ],
)
def test_a_bad_file_is_an_error_in_the_panel_and_keeps_the_state(explorer, data, message):
    explorer.points = [[8, 8, True]]
    before = explorer.get_state()
    picked(explorer, data)
    assert message in explorer.error and not explorer.busy
    after = explorer.get_state()
    assert {name for name in before if before[name] != after[name]} == {"error"}


def test_why_holds_the_scores_of_the_pixel_by_shown_method_until_something_else_is_asked(explorer):
    explorer.pixel = [3.5, 4.2]
    assert list(explorer.why) == ["colours"]
    logits = explorer.results["colours"].logits[:, 4, 3]
    words, scores = zip(*explorer.why["colours"]["words"], strict=True)
    assert list(words) == [explorer.names[k] for k in np.argsort(-logits)]
    np.testing.assert_allclose(scores, np.sort(logits)[::-1], rtol=6e-3)
    explorer.view, explorer.pixel = "both", [32, 24]  # the very corner
    assert list(explorer.why) == ["colours", "promptable"]
    content = explorer.content
    explorer.pixel = []
    assert explorer.why == {} and explorer.content is content
    explorer.pixel = [1, 1]
    explorer.words = "red, white"
    assert explorer.why == {}
    with pytest.raises(traitlets.TraitError, match="inside 32 x 24"):
        explorer.pixel = [33, 1]
