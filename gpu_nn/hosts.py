"""This host among others."""

import socket
from ipaddress import ip_address


def host_name() -> str:
    return socket.gethostname()


def loopback_of_host_name() -> str:
    """The loopback address that this host's own name has here, as on Debian 127.0.1.1; "" where it has another one.

    What binds to its own name then, such as Gloo, is not reached from other hosts.
    """
    try:
        address = str(socket.getaddrinfo(host_name(), None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:  # Gloo takes a loopback address then
        return "127.0.0.1"
    return address if ip_address(address.partition("%")[0]).is_loopback else ""
