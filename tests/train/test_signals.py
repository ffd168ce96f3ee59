"""A signal to one process of two, before there is a step to end: all end in order, and the same command trains."""

import pytest

from kit.processes import launch
from kit.tasks import CONFIG
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_while_data_is_opened_ends_both_before_the_first_step(tmp_path):
    done = launch("kit.signals.one_while_the_task_is_built", tmp_path)
    assert done.returncode == 0 and done.stderr.count("stopped by a signal after 0 steps") == 2, done.stderr
    assert latest_checkpoint(tmp_path / "checkpoints") is None
    done = launch("kit.distributed_calls.contrast", tmp_path)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(latest_checkpoint(tmp_path / "checkpoints")).step == CONFIG["steps"]


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_while_its_model_is_loaded_ends_both_before_the_first_block(tmp_path):
    done = launch("kit.signals.one_while_a_command_loads", tmp_path)
    assert done.returncode == 0 and done.stderr.count("resumes from the images that are counted") == 2, done.stderr
    assert not list(tmp_path.iterdir())
