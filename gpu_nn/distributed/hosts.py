"""The name and the address of this host."""

import socket
from ipaddress import ip_address


def host_name() -> str:
    return socket.gethostname()


def loopback_of_host_name() -> str:
    """The loopback address that this host resolves its own name to, as Debian's 127.0.1.1; "" where it is another one.

    Other hosts do not reach what binds to such a name, as Gloo does.
    """
    try:
        address = str(socket.getaddrinfo(host_name(), None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:  # Gloo then binds to a loopback address
        return "127.0.0.1"
    return address if ip_address(address.partition("%")[0]).is_loopback else ""
