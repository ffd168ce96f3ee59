"""What tests of commands share."""

import pytest

from ovs_lite.config import get_profile
from ovs_lite.iconworld.build import build_set


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data folder with smoke-size sets, one without and one with a background."""
    root = tmp_path_factory.mktemp("data")
    for name in ("icon-voc20", "icon-voc21"):
        build_set(name, get_profile("smoke").data, root, progress=False)
    return root
