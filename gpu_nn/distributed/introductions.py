"""Introductions: whoever comes to rank 0 says hello, and rank 0 says hello in return."""

import errno
import hashlib
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from gpu_nn import __version__
from gpu_nn.errors import DeviceError, one_line

# Seconds for one that came to say who it is.
_UNTIL_SAID = 5.0

_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)

# The layout is for ever, so that any two versions can tell each other which they are. Names end in zeros.
GREETING = b"gpu_nn\0\0"
_VERSION = __version__.encode()[:56]
_LAYOUT = struct.Struct("!8s56s32sII")
LENGTH = _LAYOUT.size


class Hello(NamedTuple):
    """What one says of itself. rank: its number. size: how many ranks it says there are. version: of gpu_nn.

    job: a hash of what tells the job from others, the same on all its ranks.
    """

    rank: int
    size: int
    job: bytes
    version: bytes

    @classmethod
    def of(cls, rank: int, size: int, job: str) -> "Hello":
        return cls(rank, size, hashlib.sha256(job.encode(errors="surrogateescape")).digest(), _VERSION)

    def is_like(self, other: "Hello") -> bool:
        """Whether both are ranks of the same job, in all but their numbers."""
        return self[1:] == other[1:]

    def release(self) -> str:
        """The name of its version, as a line may quote it."""
        return f"gpu_nn {one_line(self.version.decode(errors='replace'))}"

    def packed(self) -> bytes:
        return _LAYOUT.pack(GREETING, self.version, self.job, self.rank, self.size)

    @classmethod
    def unpacked(cls, content: bytes | bytearray) -> "Hello | None":
        """None for what is no hello."""
        greeting, version, job, rank, size = _LAYOUT.unpack(content)
        return cls(rank, size, job, version.rstrip(b"\0")) if greeting == GREETING else None


class _Comer(NamedTuple):
    """One that came, when it must have said who it is, and what it has said of that."""

    connection: socket.socket
    until: float
    said: bytearray


class Reception:
    """Listens for those who come, and to all of them at the same time: one that says nothing holds up nobody.

    listener: closed behind the `with` block, as are the connections to those who have not said who they are.
    """

    def __init__(self, listener: socket.socket):
        self._listener = listener
        self._silent: list[_Comer] = []  # in the order in which they came

    def __enter__(self) -> "Reception":
        self._selector = selectors.DefaultSelector()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (self._listener, *(comer.connection for comer in self._silent)):
            connection.close()
        self._selector.close()

    def introduced(self, until: float) -> Iterator[tuple[socket.socket, Hello]]:
        """Connections to those who have said hello, as they say it, until that time.

        Raises DeviceError where this process may have no more connections.
        """
        while (now := time.monotonic()) < until:
            while self._silent and self._silent[0].until <= now:
                self._send_away(self._silent[0])
            soonest = min(until, self._silent[0].until) if self._silent else until
            ready = [key.data for key, _ in self._selector.select(soonest - now)]
            for comer in ready:
                if comer and (hello := self._heard(comer)):
                    yield comer.connection, hello
            if None in ready:  # the listener
                self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            # Else it has gone again.
            if error.errno in _NO_MORE_FILES:
                if not self._silent:
                    reason = f"rank 0 cannot take one more connection: {error.strerror}"
                    raise DeviceError(f"{reason}; allow it more, by ulimit -n") from None
                self._send_away(self._silent[0])
            return
        connection.setblocking(False)
        comer = _Comer(connection, time.monotonic() + _UNTIL_SAID, bytearray())
        self._silent.append(comer)
        self._selector.register(connection, selectors.EVENT_READ, comer)

    def _heard(self, comer: _Comer) -> Hello | None:
        """Its hello, when it has said all of it. One that says something else is sent away."""
        try:
            piece = comer.connection.recv(LENGTH - len(comer.said))
        except BlockingIOError:
            return None
        except OSError:
            piece = b""
        comer.said.extend(piece)
        if piece and len(comer.said) < LENGTH:
            return None
        hello = Hello.unpacked(comer.said) if piece else None
        if hello is None:
            self._send_away(comer)
        else:
            self._forget(comer)
        return hello

    def _send_away(self, comer: _Comer) -> None:
        self._forget(comer)
        comer.connection.close()

    def _forget(self, comer: _Comer) -> None:
        self._silent.remove(comer)
        self._selector.unregister(comer.connection)
