"""Data sets of the user's, for tests marked `real`."""

import os

import pytest


def found(find, what):
    """What a finder of `ovs_lite.data.readers.real_data` sees below OVS_REAL_DATA; without any the test is skipped."""
    root = os.environ.get("OVS_REAL_DATA")
    there = find(root) if root else []
    return there or pytest.skip(f"set OVS_REAL_DATA to a folder with {what}, in its own layout")
