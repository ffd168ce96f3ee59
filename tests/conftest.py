"""Every test runs offline, without a display, and with a text cache of its own."""

import os
import socket

import pytest

os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Nothing cached by an earlier run can make a test pass, and no test writes to the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """A connection to anything but this machine is an error (notebook kernels and two-process tests stay on it)."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("localhost", "127.0.0.1", "::1"):
            raise OSError(f"a test tried to reach {host}: tests run without network")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield
