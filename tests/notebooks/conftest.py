"""The scenes that the smoke runs of all notebooks read: drawn once, also where several processes run the tests."""

import pytest
from filelock import FileLock

from ovs_lite.config import get_profile
from ovs_lite.iconworld.build import build_all


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory, worker_id):
    """A data folder with all sets of the smoke profile. worker_id: of pytest-xdist, whose processes share it."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    with FileLock(shared / "smoke-data.lock"):
        build_all(get_profile("smoke").data, shared / "smoke-data", progress=False)
    return shared / "smoke-data"
