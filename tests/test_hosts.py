"""Whether other hosts reach this one by its name."""

import socket

import pytest

from gpu_nn.distributed import hosts


@pytest.mark.parametrize(
    ("addresses", "loopback"),
    [
        (["127.0.1.1"], "127.0.1.1"),
        (["::1"], "::1"),
        (["10.0.0.1"], ""),
        (["10.0.0.1", "127.0.1.1"], ""),
        (["fe80::1%eth0"], ""),
        ([], "127.0.0.1"),
    ],
    ids=str,
)
def test_a_name_that_is_a_loopback_address_is_known(monkeypatch, addresses, loopback):
    def getaddrinfo(name, *_, **__):
        assert name == socket.gethostname()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert hosts.loopback_of_host_name() == loopback
