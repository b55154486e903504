"""Ports of this machine."""

import socket


def free_port() -> int:
    """One that nobody listens at, nor at the next, with which torchrun's ranks meet."""
    while True:
        with socket.socket() as probe, socket.socket() as next_one:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
