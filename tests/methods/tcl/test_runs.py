"""A run of `ovs-lite train tcl`: what its file holds, when the block is trained, shards, terms, batches."""

import pytest
import torch
from safetensors import safe_open

import ovs_lite
from kit.records import shape_pairs
from kit.runs import assert_same_bits, last_checkpoint, rows, train_command
from kit.shards import shard_of_pairs
from kit.tcl_training import WEIGHTS
from ovs_lite.checkpoints import load_checkpoint, load_method
from ovs_lite.clip import load_clip
from ovs_lite.config import get_profile, override
from ovs_lite.data.loaders.pair_batches import PairBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import write_split
from ovs_lite.iconworld.build import split_folder
from ovs_lite.methods.tcl import PRESETS
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.methods.tcl.training import build

SMALL = "--profile smoke --steps 4 --batch 3 --unfreeze 0.5 --warmup 1".split()
TERMS = ["image", "feature", "area", "smooth"]


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """Seven pairs where the smoke profile's icon-caption would lie."""
    root = tmp_path_factory.mktemp("data")
    write_split(shape_pairs(7), split_folder(root, get_profile("smoke").data, "icon-caption", "train"), progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVS_DATA", str(root))
        yield root


def untrained():
    """Tensors of a grounder as seed 0 starts it."""
    torch.manual_seed(0)
    return Tcl(load_clip()).grounder.state_dict()


def moved(tensors):
    """Which of block and decoder are no longer as they started."""
    start = untrained()
    changed = {name for name, value in tensors.items() if not torch.equal(value.float(), start[name].half().float())}
    return {part for part in ("block", "decoder") if any(name.startswith(part) for name in changed)}


def make_task(seed=0, **changes):
    return build(override(PRESETS["smoke"], {"loop.seed": seed, "batch": 2, **changes}))


def test_the_file_holds_the_grounder_of_the_last_step_and_says_for_which_clip(tmp_path):
    tensors, _ = train_command("tcl", tmp_path, *SMALL)
    for row in rows(tmp_path):
        assert list(row) == ["step", *TERMS, "loss", "grad_norm", "lr"]
        assert row["loss"] == pytest.approx(sum(WEIGHTS[name] * row[name] for name in TERMS), abs=1e-5)
    with safe_open(tmp_path / "tcl.safetensors", "pt") as file:
        about = file.metadata()
    assert about.items() >= {"method": "tcl", "clip": "ViT-Lite-8", "steps": "4", "seed": "0"}.items()
    method = load_method("tcl", load_clip(), tmp_path / "tcl.safetensors")
    assert_same_bits({name: value.half() for name, value in method.grounder.state_dict().items()}, tensors)
    final = last_checkpoint(tmp_path).tensors
    assert_same_bits(tensors, {name: final[f"model.{name}"].half() for name in tensors})
    model = ovs_lite.load("tcl", checkpoint=tmp_path / "tcl.safetensors")
    assert model.segment(shape_pairs(1)[0]["image"], "a red block, night").logits.shape == (2, 64, 64)
    assert moved(tensors) == {"block", "decoder"}


def test_with_unfreeze_1_the_block_never_learns(tmp_path):
    tensors, _ = train_command("tcl", tmp_path, *SMALL, "--unfreeze", 1)
    assert moved(tensors) == {"decoder"}


def test_accumulation_counts_steps_until_the_block_is_unfrozen(tmp_path):
    """Two steps of two batches each: the block rests in the first step's batches 0 and 1."""
    train_command("tcl", tmp_path, *SMALL, "--steps", 2, "--accumulation", 2, "--checkpoint-every", 1)
    start, states = untrained(), [load_checkpoint(path) for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert [state.step for state in states] == [1, 2]
    for name in start:
        first, second = (state.tensors[f"model.{name}"] for state in states)
        assert torch.equal(first, start[name]) or not name.startswith("block"), name
        assert not torch.equal(second, first) or name.startswith("decoder"), "open gates let the decoder learn, later"
    assert not torch.equal(states[0].tensors["model.proj"], start["proj"])


def test_shards_take_the_place_of_a_prepared_split(tmp_path, capsys):
    """Every pair is met in the first epoch, the two without a text too; a shard that is none is left out."""
    for number in (0, 1):
        shard_of_pairs(tmp_path / f"{number:05d}.tar", shape_pairs(4), textless=[2])
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    given = ["--data", f"{tmp_path}/{{00000..00001}}.tar::{tmp_path}/b*.tar"]
    tensors, seen = train_command("tcl", tmp_path / "a", *SMALL, *given)
    printed = capsys.readouterr().out.splitlines()
    (written,) = [place for place, line in enumerate(printed) if line.startswith("wrote ")]
    assert printed[written].startswith(f"wrote {tmp_path / 'a' / 'tcl.safetensors'}; last loss 0.")
    assert printed[written + 1] == "8 pairs in 2 shards, 1 bad shards left out; 2 bad pairs met by this process"
    assert moved(tensors) == {"block", "decoder"} and len(seen) == 4
    assert_same_bits(train_command("tcl", tmp_path / "b", *SMALL, *given)[0], tensors)


def test_pairs_made_in_memory_take_the_place_of_data(tmp_path):
    """And decide the numbers: another count of them is another run."""
    given = [*SMALL, "--steps", 2, "--data", "synthetic:12"]
    assert moved(train_command("tcl", tmp_path, *given)[0]) >= {"decoder"}
    with pytest.raises(ValueError, match="other settings: data .*synthetic:12.* -> .*synthetic:13"):
        train_command("tcl", tmp_path, *given[:-1], "synthetic:13")


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        ("--area-weight 0", {"image", "feature", "smooth"}),
        ("--image-weight 0 --feature-weight 0 --area-weight 0 --smooth-weight 0 --contrastive-weight 1",
         {"contrastive"}),
    ],
)  # fmt: skip
def test_a_weight_of_0_drops_its_term(words, terms, tmp_path):
    _, (row,) = train_command("tcl", tmp_path, *SMALL, "--steps", 1, *words.split())
    assert row.keys() == terms | {"step", "loss", "grad_norm", "lr", "images_per_s"}


def test_the_task_draws_the_configured_batches():
    changes = {"batch": 3, "image_size": 32, "crop_area": (1.0, 1.0), "area_weight": 3.0}
    task = make_task(2, **changes)
    batch = task.batch(1).pairs
    assert batch.images.shape == (3, 3, 32, 32) and isinstance(task.batches, Prefetched)
    assert task.weights == WEIGHTS | {"area": 3.0} and task.found["pairs"] == 7
    wholes = {record["image_id"]: torch.from_numpy(record["image"]).permute(2, 0, 1) / 255 for record in shape_pairs(7)}
    for name, image in zip(batch.image_ids, batch.images, strict=True):
        whole = torch.nn.functional.avg_pool2d(wholes[name], 2)
        assert min((whole - other).abs().mean() for other in (image, image.flip(-1))) < 0.05, "area 1 cuts nothing"
    for seed, same in ((2, True), (3, False)):
        assert torch.equal(make_task(seed, **changes).batch(1).pairs.images, batch.images) == same


@pytest.mark.parametrize("changes", [{"workers": 1}, {"augment": "strong"}])
def test_what_has_workers_or_draws_from_the_global_generator_is_not_prepared_in_a_thread(changes):
    task = make_task(**changes)
    assert isinstance(task.batches, PairBatches) and task.batches.workers == changes.get("workers", 0)
    plain = torch.equal(task.batch(0).pairs.images, make_task().batch(0).pairs.images)
    assert plain == ("augment" not in changes)
