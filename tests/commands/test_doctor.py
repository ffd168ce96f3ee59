"""Each trap, set on purpose, is named with a cure; a trap that is only a nuisance does not fail the whole."""

import contextlib
import io
import os
import sys
from collections import namedtuple

import pytest
import torch
from safetensors.torch import save_file

from ovs_lite.clip.lite.files import LITE_MODELS
from ovs_lite.commands import doctor
from ovs_lite.tensors import write_tensors

Found = namedtuple("Found", "status detail cure")


def finding(check):
    """The finding of one check, as the report prints it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(doctor, "CHECKS", {check: doctor.CHECKS[check]})
        code = doctor.main()
    first, *cure, _ = printed.getvalue().splitlines()
    assert code == first.startswith("FAIL") and bool(cure) != first.startswith("ok")
    return Found(first[:4].strip(), first[24:], "".join(cure).strip())


def test_a_torchvision_of_another_build_is_named(monkeypatch):
    import torchvision

    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", nms)
    found = finding(doctor.torch_pair)
    assert found.status == "FAIL" and "torchvision::nms" in found.detail and "pip install" in found.cure


@pytest.mark.parametrize(("module", "check"), [("torchvision", doctor.torch_pair), ("open_clip", doctor.open_clip)])
def test_a_missing_library_is_named(monkeypatch, module, check):
    monkeypatch.setitem(sys.modules, module, None)
    assert finding(check).status == "FAIL" and module in finding(check).detail


def test_missing_and_damaged_sprites_are_named(monkeypatch, tmp_path):
    assert finding(doctor.shipped_sprites).status == "ok"
    monkeypatch.setattr("ovs_lite.iconworld.atlas.FOLDER", tmp_path)
    assert finding(doctor.shipped_sprites).status == "FAIL"
    (tmp_path / "noto.webp").write_bytes(b"half of a file")
    found = finding(doctor.shipped_sprites)
    assert found.status == "FAIL" and "noto" in found.detail and "pillow" in found.cure


def test_missing_and_damaged_weights_are_named(monkeypatch, tmp_path):
    path = tmp_path / "ViT-Lite-8.safetensors"
    monkeypatch.setattr("ovs_lite.clip.lite.files.shipped_path", lambda name: path)
    assert finding(doctor.shipped_weights).status == "FAIL"
    path.write_bytes(b"half of a file")
    found = finding(doctor.shipped_weights)
    assert found.status == "FAIL" and "ViT-Lite-8" in found.detail and "ovs-lite train clip" in found.cure


def test_weights_with_a_flipped_bit_or_without_digest_are_named(monkeypatch, tmp_path):
    """Of the CLIPs and of the methods."""
    places = {}
    for name in (*LITE_MODELS, "tcl"):
        places[name] = tmp_path / f"{name}.safetensors"
        write_tensors(places[name], {"w": torch.arange(4.0)})
    monkeypatch.setattr("ovs_lite.clip.lite.files.shipped_path", places.__getitem__)
    kinds = "ovs_lite.methods.trained.shipped_weights"
    monkeypatch.setattr(kinds, lambda kind: places.get(kind.name, tmp_path / "none"))
    assert finding(doctor.shipped_weights)[:2] == ("ok", "ViT-Lite-8, ConvNeXt-Lite, tcl")
    for name, path in places.items():
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        found = finding(doctor.shipped_weights)
        assert found.status == "FAIL" and f"{name}.safetensors: damaged" in found.detail
        save_file({"w": torch.arange(4.0)}, path)
        found = finding(doctor.shipped_weights)
        assert found.status == "note" and f"no digest in {name}, " in found.detail
        path.write_bytes(whole)


def test_a_full_disk_is_named(monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 10**8)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    found = finding(doctor.disk)
    assert found.status == "FAIL" and "0.1 GB free" in found.detail and "OVS_DATA" in found.cure


def test_an_unwritable_folder_is_named_with_its_variable(monkeypatch, tmp_path):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("OVS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", lambda dir: refuse(dir))
    found = finding(doctor.writable_folders)
    assert found.status == "FAIL" and "Permission denied" in found.detail and "OVS_DATA" in found.cure


def test_a_folder_that_is_not_there_yet_is_no_problem(monkeypatch, tmp_path):
    for variable in ("OVS_DATA", "OVS_RUNS", "OVS_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / "a" / "b"))
    assert finding(doctor.writable_folders).status == "ok"
    assert finding(doctor.disk).status == "ok"
    assert list(tmp_path.iterdir()) == [], "looking must not create anything"


def test_a_missing_kernel_is_named(monkeypatch):
    from jupyter_client import kernelspec

    def absent(self, name):
        raise kernelspec.NoSuchKernel(name)

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", absent)
    assert "ipykernel install" in finding(doctor.jupyter_kernel).cure


def test_missing_tagger_data_and_gpu_are_only_notes(monkeypatch):
    import nltk
    import torch

    monkeypatch.setattr(nltk.data, "path", ["/nowhere"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert finding(doctor.nltk_data).status == finding(doctor.gpu).status == "note"
    assert "averaged_perceptron_tagger_eng" in finding(doctor.nltk_data).cure


def test_more_threads_than_cores_is_a_note(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert finding(doctor.threads).status == "note"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system ties no process to cores")
def test_cores_are_those_that_this_process_may_use(monkeypatch):
    import torch

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert "3 threads on 2 cores" in finding(doctor.threads).detail
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert finding(doctor.threads).detail == "2 of 2 cores"


def test_exit_code_and_report(monkeypatch, capsys):
    def fine():
        return "found"

    def a_nuisance():
        raise doctor.Nuisance("absent")

    def surprise():
        raise KeyError("never thought of")

    monkeypatch.setattr(doctor, "CHECKS", {fine: "unused", a_nuisance: "get it"})
    assert doctor.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok    fine              found",
        "note  a nuisance        absent",
        "                        cure: get it",
        "everything that is needed works",
    ]
    monkeypatch.setattr(doctor, "CHECKS", {surprise: doctor.REINSTALL, fine: "unused"})
    assert doctor.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAIL  surprise          KeyError: 'never thought of'",
        f"                        cure: {doctor.REINSTALL}",
        "ok    fine              found",
        "1 of 2 checks failed",
    ]


def test_every_check_ends_with_ok_where_nothing_is_wrong():
    statuses = {check.__name__: finding(check).status for check in doctor.CHECKS}
    assert len(statuses) == 11 and {name for name, status in statuses.items() if status == "FAIL"} <= {"disk"}
    assert statuses["torch_pair"] == statuses["shipped_sprites"] == "ok"


def test_a_user_without_a_home_folder_is_named_and_is_no_failure(monkeypatch, tmp_path):
    assert finding(doctor.home).status == "ok"
    monkeypatch.delenv("OVS_CACHE", raising=False)
    monkeypatch.delenv("HOME")
    known = os.path.expanduser  # to which users that the system does not know are as they were given
    monkeypatch.setattr("os.path.expanduser", lambda path: known(path) if "HOME" in os.environ else path)
    found = finding(doctor.home)
    assert found.status == "note" and "HOME is not set" in found.detail and "set HOME" in found.cure
    for check in (doctor.jupyter_kernel, doctor.writable_folders):
        assert finding(check).status == "ok", finding(check)
