"""The CLIP card: an oracle scores everything, a guesser is at chance, counts against loops, and the command."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ovs_lite.checkpoints import save_checkpoint
from ovs_lite.cli import main
from ovs_lite.clip import load_clip
from ovs_lite.clip.lite.files import save_lite
from ovs_lite.commands.evaluate_clip import load_weights, table, which
from ovs_lite.data.templates import TEMPLATES
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.clip import dense, held_out
from ovs_lite.evaluation.clip.background import CONDITIONS, NO_COMPANY, VIEWS, background_hits
from ovs_lite.evaluation.clip.dense import label_maps, segmentation_scores
from ovs_lite.evaluation.clip.held_out import (
    EVERY_NOUN,
    MULTI,
    SINGLE,
    caption_group,
    held_out_scenes,
    held_out_seed,
    object_masks,
)
from ovs_lite.evaluation.clip.naming import EXTRA, SCENES, dense_naming
from ovs_lite.evaluation.clip.zero_shot import (
    Figure,
    colour_hits,
    crop_hits,
    drawable_nouns,
    measure,
    noun_hits,
    retrieval_at_1,
    retrieval_hits,
    top1,
    vocabulary_nouns,
)
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import COLOUR_NAMES
from ovs_lite.iconworld.render import render
from ovs_lite.iconworld.stream import FIRST_HELD_OUT_SEED, CaptionStream
from ovs_lite.iconworld.textures import STUFF_NAMES
from ovs_lite.methods import get_method

NAMES = [noun.noun for noun in load_nouns()] + list(STUFF_NAMES)


def paint(scene, size, generator):
    """The real rendering, but every pixel's colour tells its owner: (1 + index in NAMES, 1 + colour word, 1)."""
    rendering = render(scene, size, generator)
    owners = torch.cat([len(load_nouns()) + scene.stuff_ids, scene.noun_ids], 1)
    colours = torch.cat([torch.zeros_like(scene.stuff_ids), scene.colour_ids.clamp(min=0)], 1)
    rows = torch.arange(len(scene)).view(-1, 1, 1)
    codes = [values[rows, rendering.ids - 1].float() + 1 for values in (owners, colours)]
    rendering.images = torch.stack([*codes, torch.ones_like(codes[0])], 1)
    return rendering


class Oracle:
    """A CLIP that reads the codes of `paint`: one dimension per name, one per colour word."""

    name, image_size, patch_size, device = "oracle", 32, 1, torch.device("cpu")
    network = SimpleNamespace(visual=SimpleNamespace(transformer=None, conv1=SimpleNamespace(kernel_size=(1, 1))))

    def normalise(self, images):
        return images

    def encode_masked(self, images, masks):
        return self.encode_image(images)

    def embed(self, owner, colour):
        parts = F.one_hot(owner, len(NAMES)), 0.5 * F.one_hot(colour, len(COLOUR_NAMES))
        return F.normalize(torch.cat(parts, -1).float(), dim=-1)

    def encode_image(self, images):
        rows = []
        for picture in images:  # resampling a masked object scales all channels alike
            owners, colours = (picture[:2] / picture[2].clamp(min=1e-6)).round().long() - 1
            on = (picture[2] > 0.2) & (owners < len(load_nouns()))
            rows.append((owners[on].mode().values, colours[on].clamp(0, len(COLOUR_NAMES) - 1).mode().values))
        return self.embed(*map(torch.stack, zip(*rows, strict=True)))

    def encode_text(self, prompts):
        nouns = [max((name for name in NAMES if prompt.endswith(" " + name)), key=len) for prompt in prompts]
        words = [prompt.removesuffix(noun).split()[-1] for prompt, noun in zip(prompts, nouns, strict=True)]
        indices = [NAMES.index(noun) for noun in nouns], [COLOUR_NAMES.index(word) for word in words]
        return self.embed(*map(torch.tensor, indices))

    def text_embeddings(self, names):
        return F.one_hot(torch.tensor([NAMES.index(name) for name in names]), len(NAMES) + len(COLOUR_NAMES)).float()

    def dense(self, images, mode):
        owners, colours = (images[:, :2].long() - 1).unbind(1)
        return self.embed(owners, colours).permute(0, 3, 1, 2)


class Guesser(Oracle):
    """A CLIP whose every embedding is random."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def random(self, count):
        return F.normalize(torch.randn(count, 16, generator=self.generator), dim=-1)

    def encode_image(self, images):
        return self.random(len(images))

    def encode_text(self, prompts):
        return self.random(len(prompts))

    def text_embeddings(self, names):
        return self.random(len(names))

    def dense(self, images, mode):
        return self.random(images[:, 0].numel()).view(len(images), *images.shape[2:], 16).permute(0, 3, 1, 2)


class InOrder(Oracle):
    """A CLIP that takes picture and caption number i for a pair; `shift` moves every caption on."""

    def __init__(self, shift=0):
        self.shift, self.captions = shift, []

    def encode_image(self, images):
        return torch.eye(len(images))

    def encode_text(self, prompts):
        self.captions += prompts
        return torch.eye(len(prompts)).roll(self.shift, 0)


@pytest.fixture
def painted(monkeypatch):
    monkeypatch.setattr(held_out, "render", paint)


@pytest.fixture(autouse=True)
def dense_method(monkeypatch):
    """Instead of MaskCLIP, which needs a ViT: the cosines of the toy's own dense embeddings."""

    def cosines(clip, images, texts):
        return torch.einsum("bdhw,kd->bkhw", clip.dense(images, "value"), texts)

    def method(name, clip):
        return SimpleNamespace(predict=partial(cosines, clip)) if isinstance(clip, Oracle) else get_method(name, clip)

    monkeypatch.setattr(dense, "get_method", method)


def test_the_oracle_scores_everything(painted):
    oracle = Oracle()
    assert noun_hits(oracle, EVERY_NOUN, 30).all() and len(noun_hits(oracle, EVERY_NOUN, 30)) == 30
    assert noun_hits(oracle, vocabulary_nouns(), 30, seed=1).all()
    assert noun_hits(oracle, drawable_nouns(("fa",)), 30, styles=("fa",)).all()
    naming = dense_naming(oracle, 4)
    assert naming.present == naming.more == naming.stuff == 1 and 0.2 < naming.chance < 0.4
    for condition in (*CONDITIONS, NO_COMPANY):
        hits = background_hits(oracle, 20, condition)
        assert hits["natural"].all() and hits["background blanked"].all() and hits["masked crop"].float().mean() > 0.9
        assert len({len(some) for some in hits.values()}) == 1 and len(hits["natural"]) > 12
    assert colour_hits(oracle, 20).all()
    assert crop_hits(oracle, 12, masked=True).float().mean() == 1
    found, guessed = segmentation_scores(oracle, 3)
    assert found.miou == found.pixel_accuracy == 1 and found.pixels == guessed.pixels == 3 * 64 * 64


def test_unmasked_crops_are_of_the_same_objects_with_their_surroundings(painted):
    masked, unmasked = (crop_hits(Oracle(), 12, masked=masked) for masked in (True, False))
    assert len(masked) == len(unmasked) > 24
    assert 0.8 < unmasked.float().mean() < 1, "a crop that shows more of another object misleads the oracle"


def test_the_guesser_is_at_chance():
    guesser = Guesser()
    assert noun_hits(guesser, EVERY_NOUN, 400).float().mean() < 0.02
    assert 0.04 < noun_hits(guesser, EVERY_NOUN[:10], 400).float().mean() < 0.16
    assert 0.04 < colour_hits(guesser, 300).float().mean() < 0.16
    assert crop_hits(guesser, 40, masked=True).float().mean() < 0.05
    assert retrieval_at_1(guesser, 4) < 0.04
    naming = dense_naming(guesser, 6)
    assert naming.present == pytest.approx(naming.chance, abs=0.08) and naming.more < 0.15 and naming.stuff < 0.15
    assert background_hits(guesser, 60)["natural"].float().mean() < 0.05
    found, guessed = segmentation_scores(guesser, 4)
    assert found.miou < 0.03 and abs(found.miou - guessed.miou) < 0.01
    assert guessed.pixel_accuracy == pytest.approx(1 / 150, abs=0.003)


def test_stuff_competes_with_things_where_that_is_asked_for(painted):
    class Grey(Oracle):
        """Takes everything for stuff, where stuff is among the names."""

        def text_embeddings(self, names):
            self.asked, found = set(names), super().text_embeddings(names)
            found[[name in STUFF_NAMES for name in names]] = 2
            return found

    grey = Grey()
    assert background_hits(grey, 20)["natural"].all() and not grey.asked & set(STUFF_NAMES)
    assert not background_hits(grey, 20, stuff=True)["natural"].any() and set(STUFF_NAMES) <= grey.asked


def test_retrieval_pairs_pictures_with_captions_that_all_differ():
    right, wrong = InOrder(), InOrder(shift=1)
    assert retrieval_hits(right, 2).all() and not retrieval_hits(wrong, 2).any()
    assert len(set(right.captions[:100])) == len(set(right.captions[100:])) == 100
    assert right.captions[:100] != right.captions[100:] and right.captions == wrong.captions
    assert retrieval_at_1(right, 1) == 1 and len(retrieval_hits(right, 1, group=3)) == 3


def test_a_repeated_caption_is_left_out_with_its_picture(monkeypatch):
    words = iter("a b a a c b d e f g h i".split())
    monkeypatch.setattr(held_out, "captions_for", lambda contents, rng, number: [[next(words)] for _ in contents])
    pictures, captions = caption_group(16, 4, seed=0, number=0)
    assert captions == ["a", "b", "c", "d"]
    chunks = held_out_scenes(MULTI, 8, 16, 0, "retrieval 0", 4)
    drawn = torch.cat([rendering.images for _, rendering in chunks])
    assert torch.equal(pictures, drawn[[0, 1, 4, 6]])


def slow_top1(similarity, truth):
    hits = []
    for row, right in zip(similarity.tolist(), truth.tolist(), strict=True):
        others = [value for column, value in enumerate(row) if column != right]
        hits.append(all(row[right] > other for other in others))
    return hits


@pytest.mark.parametrize("seed", range(10))
def test_top1_equals_the_slow_oracle(seed):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(0, 6, (50, 4), generator=generator).float()  # many ties
    truth = torch.randint(0, 4, (50,), generator=generator)
    assert top1(similarity, truth).tolist() == slow_top1(similarity, truth)


def test_a_model_that_always_answers_the_same_or_nan_scores_nothing():
    assert not top1(torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)).any()
    assert not top1(torch.full((5, 3), float("nan")), torch.zeros(5, dtype=torch.int64)).any()
    assert top1(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)).all(), "one choice is always right"


def test_empty_and_too_small_requests_are_named():
    assert len(top1(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))) == 0
    with pytest.raises(ValueError, match="no answer"):
        Figure.of(torch.zeros(0, dtype=torch.bool), 10)
    with pytest.raises(ValueError, match="no noun"):
        noun_hits(Oracle(), (), 3)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="expected at least 1"):
            noun_hits(Oracle(), EVERY_NOUN, wrong)
        with pytest.raises(ValueError, match="expected at least 1"):
            measure(Oracle(), wrong)
    with pytest.raises(ValueError, match="no answer"):
        retrieval_at_1(InOrder(), 0)
    figure = Figure.of(torch.tensor([True, False, False, False]), 10)
    assert (figure.value, figure.chance, figure.count) == (0.25, 0.1, 4)


@pytest.mark.parametrize("count, chunk", [(1, 100), (7, 3), (6, 3)])
def test_chunks_add_up_to_the_count_and_are_the_same_again(count, chunk):
    first, again = (list(held_out_scenes(SINGLE, count, 16, 3, "x", chunk)) for _ in range(2))
    assert sum(len(scene) for scene, _ in first) == count and max(len(scene) for scene, _ in first) <= chunk
    assert all(torch.equal(a.images, b.images) for (_, a), (_, b) in zip(first, again, strict=True))
    other = next(held_out_scenes(SINGLE, count, 16, 4, "x", chunk))[1]
    assert not torch.equal(first[0][1].images, other.images)


def test_training_can_never_render_from_a_held_out_seed(monkeypatch):
    used = []

    class Spy(torch.Generator):
        def manual_seed(self, seed):
            used.append(seed)
            return super().manual_seed(seed)

    monkeypatch.setattr(torch, "Generator", Spy)
    for seed in (0, 1, 2**20, 2**31, 2**32 - 1, 2**62, -1):
        CaptionStream(1, 8, seed)(10**9)
    assert len(used) == 7 and all(0 <= seed < FIRST_HELD_OUT_SEED for seed in used)
    held = {held_out_seed(seed, part, chunk) for seed in (-1, 0, 2**40) for part in "ab" for chunk in range(50)}
    assert len(held) == 300 and all(FIRST_HELD_OUT_SEED <= seed < 2**32 for seed in held)


def test_object_masks_are_the_visible_pixels_of_things_that_can_be_seen():
    scene, rendering = next(held_out_scenes(MULTI, 20, 64, 0, "masks"))
    regions = scene.stuff_ids.shape[1]
    for index, (masks, nouns) in enumerate(object_masks(scene, rendering)):
        expected = []
        for thing in range(scene.noun_ids.shape[1]):
            visible = rendering.ids[index] == regions + 1 + thing
            own = int(rendering.own[index, thing])
            if scene.thing_valid[index, thing] and own and visible.sum() >= 0.4 * own:
                expected.append((visible, scene.noun_ids[index, thing]))
        assert len(masks) == len(nouns) == len(expected) >= 1
        assert all(torch.equal(mask, visible) for mask, (visible, _) in zip(masks, expected, strict=True))
        assert nouns.tolist() == [int(noun) for _, noun in expected]


def test_label_maps_name_every_pixel_by_its_owner():
    vocabulary = load_vocabulary("icon-ade150")
    scene, rendering = next(held_out_scenes(MULTI, 3, 32, 0, "labels"))
    maps = label_maps(scene, rendering, vocabulary)
    owners = torch.cat([len(load_nouns()) + scene.stuff_ids, scene.noun_ids], 1)
    for index in range(3):
        for y, x in ((0, 0), (31, 31), (16, 16), (8, 20)):
            found = vocabulary.find(NAMES[owners[index, rendering.ids[index, y, x] - 1]])
            assert maps[index, y, x] == (vocabulary.ignore_index if found is None else found)


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """One template and groups of 5 captions, to read fewer texts."""
    monkeypatch.setitem(TEMPLATES, "vild14", ("a photo of a {}.",))
    monkeypatch.setattr("ovs_lite.evaluation.clip.zero_shot.GROUP", 5)
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights named after its model."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "ViT-Lite-8.safetensors"
    save_lite(load_clip("ViT-Lite-8", None).network, path, torch.arange(49408), {})
    return path


def test_the_command_prints_a_table_and_writes_what_it_printed(quick, weights, tmp_path, capsys):
    words = ["evaluate", "clip", str(weights), "--scenes", "3", "--seed", "2"]
    assert main([*words, "--out", str(tmp_path / "card.json"), "--out", str(tmp_path / "card.md")]) == 0
    printed = capsys.readouterr()
    assert "No pretrained weights" not in printed.err
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["model"], card["scenes"], card["seed"]) == ("ViT-Lite-8", 3, 2) and card["load_seconds"] > 0
    assert (tmp_path / "card.md").read_text() == printed.out
    assert len(card["figures"]) == 9 + len(CONDITIONS) * len(VIEWS) + 2 * 3 + 1
    for name, figure in card["figures"].items():
        assert f"| {name} | {100 * figure['value']:.1f} | {100 * figure['chance']:.1f} |" in printed.out
        assert 0 <= figure["value"] <= 1 and 0 < figure["chance"] < 0.5 and figure["count"] >= 1


def test_a_convnets_dense_figure_has_its_own_name(quick):
    torch.manual_seed(0)
    figures = measure(load_clip("ConvNeXt-Lite", None), 8, progress=False)
    assert (
        len(figures) == 9 + len(CONDITIONS) * len(VIEWS) + 3 + 1 and "mIoU on icon-ade150, last feature map" in figures
    )
    assert all(0 <= figure.value <= 1 for figure in figures.values())


def test_a_tower_without_dense_embeddings_has_no_dense_figure(quick, monkeypatch):
    pooled = SimpleNamespace(visual=SimpleNamespace(transformer=None, attn_pool=1))
    monkeypatch.setattr(Guesser, "network", pooled)
    with pytest.warns(UserWarning, match="is not measured on icon-ade150"):
        figures = measure(Guesser(), 8, progress=False)
    assert len(figures) == 9 + len(CONDITIONS) * len(VIEWS)
    assert not any("mIoU" in name or "pixels" in name for name in figures)


def test_mistakes_on_the_command_line_are_one_line(tmp_path, weights, capsys):
    wrong = {
        ("ViT-Lite-9",): "ViT-Lite-9", (str(tmp_path / "none.safetensors"),): "none.safetensors",
        (str(tmp_path),): "--model",
        (str(weights), "--scenes", "0"): "at least 1", ("ViT-Lite-8", "--out", "card.txt"): ".json",
        ("ViT-Lite-8", "--model", "ConvNeXt-Lite"): "two models",
        (str(weights), "--model", "ConvNeXt-Lite"): "missing",
    }  # fmt: skip
    for words, expected in wrong.items():
        assert main(["evaluate", "clip", *words]) == 2
        message = capsys.readouterr().err
        assert expected in message and message.count("\n") == 1, words


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "clip", "--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and "ovs-lite evaluate clip ViT-Lite-8" in printed


def test_model_and_checkpoint_are_told_apart(weights, tmp_path, monkeypatch):
    assert which(None, None) == ("ViT-Lite-8", None)
    assert which("ViT-B-16", None) == which(None, "ViT-B-16") == ("ViT-B-16", None)
    assert which(str(weights), None) == ("ViT-Lite-8", weights)
    assert which(str(weights), "ConvNeXt-Lite") == ("ConvNeXt-Lite", weights)
    (tmp_path / "ConvNeXt-Lite" / "checkpoints").mkdir(parents=True)
    run = tmp_path / "ConvNeXt-Lite"
    assert which(str(run), None) == ("ConvNeXt-Lite", run)
    assert which(str(run / "checkpoints"), None) == ("ConvNeXt-Lite", run / "checkpoints")
    monkeypatch.chdir(tmp_path)
    assert which("ConvNeXt-Lite", None) == ("ConvNeXt-Lite", None), "a name is a name, whatever folder is here"
    assert which("./ConvNeXt-Lite", None)[1] is not None


def test_a_run_and_one_of_its_steps_can_be_measured(tmp_path):
    torch.manual_seed(3)
    network = load_clip("ViT-Lite-8", None).network
    run = tmp_path / "ViT-Lite-8"
    step = save_checkpoint(run / "checkpoints", 7, {f"model.{k}": v for k, v in network.state_dict().items()})
    for path in (run, step):
        loaded = load_weights("ViT-Lite-8", path, "lite").network.state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match="step-0.*: missing .*visual.head.proj.bias"):
        load_weights("ConvNeXt-Lite", step, "lite")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_weights("ViT-Lite-8", tmp_path, "lite")


def test_the_table_is_markdown():
    card = {"model": "m", "weights": "w", "seed": 0, "load_seconds": 0.1, "measure_seconds": 2.0}
    lines = table(card, {"top-1": Figure(0.5, 0.1, 8)}).splitlines()
    assert lines[-1] == "| top-1 | 50.0 | 10.0 | 8 |" and lines[2].count("|") == lines[3].count("|") == 5


def test_dense_naming_counts_pixels_as_a_loop_does(quick):
    torch.manual_seed(0)
    clip = load_clip("ConvNeXt-Lite")
    found = dense_naming(clip, 2, seed=5)
    scene, rendering = next(held_out_scenes(SCENES, 2, 2 * clip.image_size, 5, "naming", 8))
    nouns = clip.text_embeddings([noun.noun for noun in load_nouns()])
    with torch.no_grad():
        maps = F.normalize(clip.dense(clip.normalise(rendering.images), "value"), dim=1)
    regions, right, total = scene.stuff_ids.shape[1], 0, 0
    for b in range(2):
        shown = [int(n) for n, ok in zip(scene.noun_ids[b], scene.thing_valid[b], strict=True) if ok]
        scores = torch.stack([(maps[b] * nouns[n].view(-1, 1, 1)).sum(0) for n in shown])
        best = F.interpolate(scores[None], rendering.ids.shape[1:], mode="bilinear")[0].argmax(0)
        for t in range(len(shown)):
            mask = rendering.ids[b] == regions + 1 + t
            right, total = right + int((best[mask] == t).sum()), total + int(mask.sum())
    assert found.present == pytest.approx(right / total, abs=0.01) and found.more <= found.present and EXTRA == 20
