"""Class-name embeddings: the average over templates against a loop, and a cache that is never wrong and never fatal."""

import json
import random

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors import SafetensorError
from safetensors.torch import save_file

from kit.clips import random_clip
from ovs_lite import tensors
from ovs_lite.clip import load_clip, text_cache, wrap_clip
from ovs_lite.data.templates import TEMPLATES
from ovs_lite.tensors import read_tensors, write_tensors

NAMES = ["cat", "traffic light", "grass"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


@pytest.fixture
def clip():
    return random_clip()


@pytest.fixture
def encoded(clip, monkeypatch):
    """All prompts that reach the text tower."""
    seen, encode = [], clip.encode_text
    monkeypatch.setattr(clip, "encode_text", lambda batch, normalise: seen.extend(batch) or encode(batch, normalise))
    return seen


def changed(clip, part):
    with torch.no_grad():
        for value in part.parameters():
            value += 0.1
    clip.train().eval()


@pytest.mark.parametrize("templates, count", [("vild14", 14), ("single", 1)])
@torch.no_grad()
def test_the_average_over_templates_equals_a_loop(templates, count, clip):
    sentences = TEMPLATES[templates]
    assert len(sentences) == len(set(sentences)) == count
    found = clip.text_embeddings(NAMES, templates, batch=5)
    for row, name in zip(found, NAMES, strict=True):
        total = torch.zeros(clip.embed_dim)
        for sentence in sentences:
            embedding = clip.network.encode_text(clip.tokenizer([sentence.format(name)]))[0]
            total += embedding / embedding.norm()
        torch.testing.assert_close(row, F.normalize(total / count, dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("templates", ["vild14", "bare"])
def test_to_the_last_bit_whoever_is_asked_with_it(templates, monkeypatch, tmp_path):
    """Processes that share a cache meet names in another order and company, and must write the same files."""
    names, clip = (
        ["cat", "traffic light", "a very tall old tree", "grass", "sea", "dog", "red boat", "bus"],
        load_clip(),
    )
    found = []
    for number, groups in enumerate(([names], [[name] for name in names], [names[5:], names[:2], names[2:5]])):
        monkeypatch.setenv("OVS_CACHE", str(tmp_path / str(number)))
        parts = [dict(zip(group, clip.text_embeddings(group, templates), strict=True)) for group in groups]
        found.append({name: value for part in parts for name, value in part.items()})
    for name in names:
        assert torch.equal(found[1][name], found[0][name]) and torch.equal(found[2][name], found[0][name]), name


def test_a_miss_writes_and_a_hit_encodes_nothing(clip, encoded, cache):
    first = clip.text_embeddings(NAMES)
    assert len(encoded) == 14 * 3 and len(list(cache.iterdir())) == 1
    assert (clip.text_embeddings(NAMES) == first).all() and len(encoded) == 14 * 3
    order = [2, 0, 0, 1]
    assert (clip.text_embeddings([NAMES[i] for i in order]) == first[order]).all() and len(encoded) == 14 * 3
    more = clip.text_embeddings(["boat", "cat", "boat"])
    assert len(encoded) == 14 * 4 and all("boat" in prompt for prompt in encoded[-14:])
    assert (more[1] == first[0]).all() and (more[0] == more[2]).all() and not (more[0] == more[1]).all()
    assert (clip.text_embeddings([*NAMES, "boat"])[:3] == first).all() and len(encoded) == 14 * 4, "both batches stay"
    assert len(list(cache.iterdir())) == 1 and not first.requires_grad


def test_another_session_with_the_same_weights_hits(clip, encoded, monkeypatch):
    first = clip.text_embeddings(NAMES)
    torch.manual_seed(0)
    again = load_clip("ViT-Lite-8", pretrained=None)
    changed(again, again.network.visual)
    monkeypatch.setattr(again, "encode_text", lambda *_, **__: pytest.fail("the image tower is no part of the key"))
    assert (again.text_embeddings(NAMES) == first).all()


def test_other_weights_miss(clip, encoded):
    first = clip.text_embeddings(NAMES)
    changed(clip, clip.network.text)
    second = clip.text_embeddings(NAMES)
    assert len(encoded) == 2 * 14 * 3 and (first - second).abs().max() > 1e-3


@torch.no_grad()
def test_the_fingerprint_follows_every_weight_of_the_text_tower_and_no_other(clip):
    seen = {clip.fingerprint()}
    for name, value in clip.network.state_dict().items():
        before = clip.fingerprint()
        value.view(-1)[0] += 1
        assert (clip.fingerprint() != before) == (not name.startswith(("visual.", "logit_"))), name
        seen.add(clip.fingerprint())
    assert len(seen) > 30 and clip.fingerprint() == clip.fingerprint()


def small(activation=None, context=16, pool="argmax", mean=None):
    """A CLIP whose tensors do not depend on the settings."""
    torch.manual_seed(0)
    text = CLIPTextCfg(16, 49408, width=16, heads=1, layers=1, pool_type=pool)
    vision = CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=16, image_size=32)
    network = CLIP(16, vision, text, quick_gelu=activation == "quick")
    network.context_length = context
    return wrap_clip(network, "small", mean).eval()


def test_the_same_tensors_in_another_configuration_miss(monkeypatch):
    """Activation, pooling and context length change what a tower says, and none of them is a tensor."""
    plain = small()
    assert small().fingerprint() == plain.fingerprint() and small().image_fingerprint() == plain.image_fingerprint()
    with torch.no_grad():
        other_temperature = small()
        other_temperature.network.logit_scale.add_(1.0)
    assert other_temperature.fingerprint() == plain.fingerprint(), "no embedding depends on it"
    others = [small("quick"), small(pool="last"), small(context=8)]
    for other in others:
        assert all(map(torch.equal, other.state_dict().values(), plain.state_dict().values()))
    assert len({clip.fingerprint() for clip in (plain, *others)}) == 4
    assert (
        small("quick").image_fingerprint()
        != plain.image_fingerprint()
        != small(mean=(0.5, 0.5, 0.5)).image_fingerprint()
    )
    first, second = (clip.text_embeddings(NAMES, "single") for clip in (plain, others[0]))
    torch.testing.assert_close(second, others[0].encode_text([f"a photo of a {n}." for n in NAMES]), atol=1e-5, rtol=0)
    assert (first - second).abs().max() > 1e-4


def test_other_templates_and_changed_sentences_miss(clip, encoded, monkeypatch):
    first = clip.text_embeddings(NAMES)
    single = clip.text_embeddings(NAMES, "single")
    assert len(encoded) == 15 * 3 and (first - single).abs().max() > 1e-3
    monkeypatch.setitem(TEMPLATES, "single", ("no picture of any {} at all",))
    other = clip.text_embeddings(NAMES, "single")
    assert len(encoded) == 16 * 3 and (single - other).abs().max() > 1e-3
    assert (clip.text_embeddings(NAMES) == first).all() and len(encoded) == 16 * 3
    with pytest.raises(ValueError, match="'twenty', expected one of vild14, bare, single"):
        clip.text_embeddings(NAMES, "twenty")


def test_no_flipped_bit_of_a_file_changes_an_embedding(clip, cache):
    first = clip.text_embeddings(NAMES, "single")
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 150):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert (clip.text_embeddings(NAMES, "single") == first).all()
        assert path.read_bytes() == whole, "what was damaged is written again"


WRONG = {
    "nan": lambda e: e * float("nan"), "infinite": lambda e: e / 0, "length": lambda e: 2 * e, "zero": lambda e: 0 * e,
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_entry_counts_as_absent_and_the_others_stay(wrong, clip, encoded, cache):
    first = clip.text_embeddings(NAMES, "single")
    (path,) = cache.iterdir()
    tensors, about = read_tensors(path)
    row = json.loads(about["names"]).index("cat")
    tensors["embeddings"][row] = WRONG[wrong](tensors["embeddings"][row])
    write_tensors(path, tensors, {"names": about["names"]})
    again = clip.text_embeddings(NAMES, "single")  # one sentence instead of three: other kernels, other last bits
    assert torch.allclose(again, first, rtol=0, atol=1e-6) and len(encoded) == 3 + 1
    again = clip.text_embeddings(NAMES, "single")
    assert torch.allclose(again, first, rtol=0, atol=1e-6) and len(encoded) == 3 + 1, "mended"


OTHER_FORMS = {
    "shape": lambda e, n: (e[:, :-1], n), "cube": lambda e, n: (e[:, None], n), "type": lambda e, n: (e.double(), n),
    "number": lambda e, n: (e[0, 0], n), "too few rows": lambda e, n: (e[:-1], n),
    "too few names": lambda e, n: (e, n[:-1]), "no list": lambda e, n: (e, 3), "names of another kind":
    lambda e, n: (e, [n] * len(n)),
}  # fmt: skip


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_file_of_another_form_counts_as_absent(form, clip, encoded, cache):
    first = clip.text_embeddings(NAMES, "single")
    (path,) = cache.iterdir()
    tensors, about = read_tensors(path)
    rows, names = OTHER_FORMS[form](tensors["embeddings"], json.loads(about["names"]))
    write_tensors(path, {"embeddings": rows}, {"names": json.dumps(names)})
    assert (clip.text_embeddings(NAMES, "single") == first).all() and len(encoded) == 6
    assert (clip.text_embeddings(NAMES, "single") == first).all() and len(encoded) == 6, "mended"


def test_a_file_with_a_tensor_per_name_counts_as_absent(clip, encoded, cache):
    """So earlier versions wrote them."""
    first = clip.text_embeddings(NAMES, "single")
    (path,) = cache.iterdir()
    write_tensors(path, {name: torch.eye(clip.embed_dim)[0] for name in NAMES})
    assert (clip.text_embeddings(NAMES, "single") == first).all() and len(encoded) == 6


def test_a_file_without_digest_is_not_trusted(clip, encoded, cache):
    first = clip.text_embeddings(NAMES, "single")
    (path,) = cache.iterdir()
    rows = {"embeddings": torch.eye(clip.embed_dim)[: len(NAMES)].contiguous()}
    save_file(rows, path, {"names": json.dumps(NAMES)})
    assert (clip.text_embeddings(NAMES, "single") == first).all() and len(encoded) == 6


@pytest.mark.parametrize("damage", ["empty", "noise", "half", "folder"])
def test_a_damaged_file_is_written_again(damage, clip, encoded, cache):
    first = clip.text_embeddings(NAMES)
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "noise": bytes(range(256)) * 9, "half": content[: len(content) // 2]}[damage])
    assert (clip.text_embeddings(NAMES) == first).all() and len(encoded) == 2 * 14 * 3
    if damage != "folder":
        assert (clip.text_embeddings(NAMES) == first).all() and len(encoded) == 2 * 14 * 3
    assert list(cache.iterdir()) == [path], "no half-written file stays"


def test_a_cache_that_cannot_be_written_is_no_error(clip, monkeypatch, tmp_path):
    first = clip.text_embeddings(NAMES)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "file"))
    assert (clip.text_embeddings(NAMES) == first).all()

    def full_disk(*_):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(tensors, "save_file", full_disk)
    assert (clip.text_embeddings(NAMES) == first).all()


def test_names_are_text_whatever_they_hold(clip, encoded):
    odd = ["{}", "{0} {name}", "a/b", "Äpfel", "cat, dog", "Cat", "cat", "__metadata__", "embeddings", 'a "b"\\']
    first = clip.text_embeddings(odd)
    assert "a photo of a {0} {name}." in encoded and "a photo of a {}." in encoded
    assert (clip.text_embeddings(odd) == first).all() and len(encoded) == 14 * len(odd)


@pytest.mark.parametrize("opened", [1, 2])
def test_a_file_that_is_replaced_while_it_is_read_counts_as_absent(tmp_path, monkeypatch, opened):
    """safetensors then raises a RuntimeError: it has read the header of one file and maps the other."""
    file, calls, real = tmp_path / "cache.safetensors", [], tensors.safe_open
    text_cache.write(file, {"cat": torch.tensor([1.0, 0.0])}, 2)
    assert text_cache.read(file, 2).keys() == {"cat"}

    def racing(*arguments):
        calls.append(arguments)
        if len(calls) == opened:
            raise RuntimeError("size <20> is smaller than the required mapping size <40>")
        return real(*arguments)

    text_cache._write(file, {"dog": torch.tensor([0.0, 1.0])})  # what was written here is remembered
    monkeypatch.setattr(tensors, "safe_open", racing)
    assert text_cache.read(file, 2) == {} and len(calls) == opened


def test_a_file_is_read_again_only_when_another_has_changed_it(tmp_path, monkeypatch):
    file, reads, real = tmp_path / "cache.safetensors", [], text_cache.read_tensors
    cat, dog, bus = (
        {"cat": torch.tensor([1.0, 0.0])},
        {"dog": torch.tensor([0.0, 1.0])},
        {"bus": torch.tensor([0.6, 0.8])},
    )
    monkeypatch.setattr(text_cache, "read_tensors", lambda path: reads.append(path) or real(path))
    text_cache.write(file, cat, 2)
    text_cache.read(file, 2)["dog"] = dog["dog"]
    assert text_cache.read(file, 2).keys() == {"cat"}
    text_cache.write(file, dog, 2)
    assert text_cache.read(file, 2).keys() == {"cat", "dog"} == set(json.loads(real(file)[1]["names"]))
    assert reads == [], "what was written here is remembered"
    text_cache._write(file, cat | bus)  # as another process does
    assert text_cache.read(file, 2).keys() == {"cat", "bus"} and len(reads) == 1
    text_cache.read(file, 2)
    assert len(reads) == 1


def test_what_is_remembered_is_as_sound_as_what_is_read(tmp_path):
    file, unsound = tmp_path / "cache.safetensors", {"cat": torch.tensor([torch.nan, 0.0])}
    text_cache.write(file, unsound | {"dog": torch.tensor([0.0, 1.0])}, 2)
    assert text_cache.read(file, 2).keys() == {"dog"} == text_cache.read(file, 2).keys()


def test_few_files_are_remembered(tmp_path):
    for number in range(10):
        text_cache.write(tmp_path / f"{number}.safetensors", {"cat": torch.tensor([1.0, 0.0])}, 2)
    assert len(text_cache._held) <= text_cache.HELD
    assert text_cache.read(tmp_path / "0.safetensors", 2).keys() == {"cat"}
