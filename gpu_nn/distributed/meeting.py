"""Meeting by TCP: a connection from every rank to rank 0, which waits for all of them at one address."""

import errno
import socket
import time
from collections.abc import Iterator

from gpu_nn.distributed import messages
from gpu_nn.distributed.introductions import LENGTH, Hello, Reception
from gpu_nn.errors import DeviceError

# Seconds: for rank 0 to listen, for all the others to come.
UNTIL_IT_LISTENS = 25.0
UNTIL_ALL_CAME = 600.0
_BETWEEN_TRIES = 0.1


def arrivals(host: str, port: int, size: int, cure: str, patience: float) -> Iterator[tuple[int, socket.socket]]:
    """Rank 0's connections to the others, and which rank each is, as they come.

    cure: what the reader may do where the port is taken. patience: seconds in which all must have come.

    Raises DeviceError where this host cannot listen there, or somebody is missing or comes twice.
    """
    missing = set(range(1, size))
    with Reception(_listening(host, port, cure)) as reception:
        for connection, (rank, told) in reception.introduced(time.monotonic() + patience):
            if told != size or rank not in missing:
                connection.close()
                waits = f"at {host}:{port} rank 0 of {size} waits for {_ranks(missing)}"
                raise DeviceError(
                    f"{waits}, but rank {rank} of {told} came; every process needs its own RANK and the same WORLD_SIZE"
                )
            try:
                connection.sendall(Hello(0, size).packed())
            except OSError:
                connection.close()
                continue
            missing.remove(rank)
            yield rank, messages.lasting(connection)
            if not missing:
                return
    waited = f"rank 0 of {size} waited {patience:g} seconds at {host}:{port}"
    raise DeviceError(f"{waited} for {_ranks(missing)}; see what became of it")


def reached(host: str, port: int, rank: int, size: int, seconds: float) -> socket.socket:
    """The connection of another rank to rank 0. Raises DeviceError where that does not answer in so many seconds."""
    until = time.monotonic() + seconds
    while True:
        try:
            connection = socket.create_connection((host, port), max(until - time.monotonic(), _BETWEEN_TRIES))
            try:
                # A connection to a port of this host that nobody listens at may be given that very port.
                if connection.getsockname() == connection.getpeername():
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
                connection.sendall(Hello(rank, size).packed())
                if Hello.unpacked(messages.exactly(connection, LENGTH)) != (0, size):
                    raise OSError("what listens there is no rank 0 of as many")
                return messages.lasting(connection)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            if time.monotonic() + _BETWEEN_TRIES > until:
                reason = error.strerror or str(error)
                unmet = f"rank {rank} of {size} did not meet the others at {host}:{port}"
                raise DeviceError(f"{unmet}: {reason}") from None
        time.sleep(_BETWEEN_TRIES)


def _listening(host: str, port: int, cure: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # Of a name with both, the others try both.
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=socket.SOMAXCONN)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRNOTAVAIL:
            cure = f"rank 0 runs on {socket.gethostname()}: MASTER_ADDR must be an address of that"
        raise DeviceError(f"rank 0 cannot listen at {host}:{port}: {reason}; {cure}") from None


def _ranks(missing: set[int]) -> str:
    return f"rank {', '.join(map(str, sorted(missing)))}"
