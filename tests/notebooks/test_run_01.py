"""Notebook 01 runs from end to end."""

import pytest

from kit.notebooks import check_smoke_run


@pytest.mark.slow
def test_the_notebook_runs_in_the_smoke_profile(tmp_path, smoke_data):
    check_smoke_run("01", tmp_path, smoke_data)
