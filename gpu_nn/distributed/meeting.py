"""Meeting by TCP: a connection from every rank to rank 0, which waits for all of them at one address."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

from gpu_nn.distributed import messages
from gpu_nn.distributed.introductions import GREETING, LENGTH, Hello, Reception
from gpu_nn.errors import DeviceError

# Seconds: for rank 0 to listen, for all the others to come, for an address to answer.
UNTIL_IT_LISTENS = 25.0
UNTIL_ALL_CAME = 600.0
_UNTIL_ANSWERED = 5.0
_BETWEEN_TRIES = 0.1


def arrivals(host: str, port: int, own: Hello, cure: str, patience: float) -> Iterator[tuple[int, socket.socket]]:
    """Rank 0's connections to the others, and which rank each is, as they come.

    own: rank 0's hello. cure: what the reader may do where the port is taken. patience: seconds in which all must have
    come. Those of another job are sent away, and see why.

    Raises DeviceError where this host cannot listen there, or somebody is missing, comes twice or has another version.
    """
    missing = set(range(1, own.size))
    with Reception(_listening(host, port, cure)) as reception:
        for connection, hello in reception.introduced(time.monotonic() + patience):
            if own.is_like(hello) and hello.rank in missing:
                if _is_told(connection, own):
                    missing.remove(hello.rank)
                    yield hello.rank, messages.lasting(connection)
                    if not missing:
                        return
                continue
            if not own.is_like(hello):  # one that is alike would take it for a welcome
                _is_told(connection, own)
            connection.close()
            if hello.job == own.job:
                waits = f"at {_at(host, port)} rank 0 of {own.size} waits for {_ranks(missing)}"
                raise DeviceError(f"{waits}, but {_unlike(own, hello, 'came')}")
    waited = f"rank 0 of {own.size} waited {patience:g} seconds at {_at(host, port)}"
    raise DeviceError(f"{waited} for {_ranks(missing)}; see what became of it")


def reached(host: str, port: int, own: Hello, cure: str, seconds: float) -> socket.socket:
    """The connection of another rank to rank 0.

    own: the hello of this rank. cure: what the reader may do where another job meets there.

    Raises DeviceError where rank 0 does not answer in so many seconds, and at once where it is of another job, size or
    version.
    """
    until = time.monotonic() + seconds
    unmet = f"rank {own.rank} of {own.size} did not meet the others at {_at(host, port)}"
    while True:
        try:
            # Of several addresses one that is silent leaves time for the others.
            patience = max(until - time.monotonic(), _BETWEEN_TRIES)
            connection = socket.create_connection((host, port), min(patience, _UNTIL_ANSWERED))
            try:
                connection.settimeout(patience)
                # A connection to a port of this host that nobody listens at may be given that very port.
                if connection.getsockname() == connection.getpeername():
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
                connection.sendall(own.packed())
                first = _heard(connection)
                if first.job != own.job:
                    raise DeviceError(f"{unmet}: another job meets there; {cure}")
                if not own.is_like(first):
                    raise DeviceError(f"{unmet}: {_unlike(own, first, 'is there')}")
                return messages.lasting(connection)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            if time.monotonic() + _BETWEEN_TRIES > until:
                raise DeviceError(f"{unmet}: {error.strerror or error}") from None
        time.sleep(_BETWEEN_TRIES)


def _is_told(connection: socket.socket, own: Hello) -> bool:
    try:
        connection.sendall(own.packed())
    except OSError:  # it is gone, and may come again
        connection.close()
        return False
    return True


def _heard(connection: socket.socket) -> Hello:
    """Rank 0's hello. Raises OSError."""
    said = messages.exactly(connection, len(GREETING))
    if said == GREETING:
        hello = Hello.unpacked(said + messages.exactly(connection, LENGTH - len(GREETING)))
        if hello and hello.rank == 0:
            return hello
    raise OSError("what listens there is no rank 0 of gpu_nn")


def _unlike(own: Hello, other: Hello, came: str) -> str:
    """What one of the same job has that it may not have."""
    if other.version != own.version:
        has = f"rank {other.rank} has {other.release()}, rank {own.rank} has {own.release()}"
        return f"{has}; expected the same version on all hosts"
    cure = "every process needs its own RANK and the same WORLD_SIZE, every job a port of its own"
    return f"rank {other.rank} of {other.size} {came}; {cure}"


def _listening(host: str, port: int, cure: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # Of a name with both, the others try both.
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        if _is_own_name(host, str(address[0])):
            address = ("", port)
        return socket.create_server(address, family=family, backlog=socket.SOMAXCONN)
    except OSError as error:
        unknown = isinstance(error, socket.gaierror)
        reason = error.strerror if unknown or not error.errno else os.strerror(error.errno)
        if unknown or error.errno == errno.EADDRNOTAVAIL:
            cure = f"rank 0 runs on {socket.gethostname()}: MASTER_ADDR must be a name or an address of that"
        raise DeviceError(f"rank 0 cannot listen at {_at(host, port)}: {reason}; {cure}") from None


def _is_own_name(host: str, address: str) -> bool:
    """Whether it is the name of this host, which on Debian, for one, has the address 127.0.1.1 there, and no other.

    A name or an address that is meant for no other host is something else.
    """
    if host == "localhost" or not ip_address(address).is_loopback:
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ranks(missing: set[int]) -> str:
    return f"rank {', '.join(map(str, sorted(missing)))}"
