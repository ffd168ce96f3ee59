"""What `auto` becomes on a machine with and without instructions for bf16, and how the machine is asked."""

import pytest
import torch

from ovs_lite.train import precision
from ovs_lite.train.precision import accelerator, chosen, multiplies_bf16


@pytest.mark.parametrize(("fast", "found"), [(True, "bf16"), (False, "no")])
def test_auto_is_bf16_only_where_the_machine_multiplies_in_it(monkeypatch, fast, found):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: fast)
    assert chosen("auto") == found and accelerator("auto").mixed_precision == found
    assert [chosen(asked) for asked in ("no", "bf16", "fp16")] == ["no", "bf16", "fp16"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks the GPU there")
def test_either_set_of_instructions_will_do_and_a_torch_that_cannot_say_means_no(monkeypatch):
    for tile, wide in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tile=tile: tile, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda wide=wide: wide, raising=False)
        assert multiplies_bf16() is (tile or wide)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not multiplies_bf16()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks the GPU there")
def test_the_processor_is_asked_by_the_names_of_the_installed_torch():
    """Against what the kernel lists: were the names gone, `auto` would be single precision everywhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = set(next(line for line in file if line.startswith("flags")).split())
    except (OSError, StopIteration):
        pytest.skip("no list of the processor's instructions")
    assert multiplies_bf16() is bool(flags & {"amx_tile", "avx512_bf16"})
