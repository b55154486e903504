"""Messages between two ranks over a connection, and the end of one whose host is gone without a word.

A message is a letter, the length of what follows in 8 bytes, and that.
"""

import errno
import socket
import struct
import sys

_HEAD = struct.Struct("!cQ")
_AT_ONCE = 1 << 20

# Seconds: of silence before the other host is asked whether it is there, and without an answer before it is given up.
_SILENCE = 5
UNTIL_GIVEN_UP = 20

# What a connection ends with when nothing more is heard of the other host.
_UNHEARD = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)

# Of Linux's struct tcp_info: how often the oldest segment, or a probe of a receiver that is full, was sent again and
# not answered, and the milliseconds since the last answer of any kind.
_TCP_INFO = struct.Struct("=xxBB52xI")


def lasting(connection: socket.socket) -> socket.socket:
    """It waits for ever for a host that answers, though its rank be suspended, and for others UNTIL_GIVEN_UP."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    asked = {"KEEPIDLE": _SILENCE, "KEEPINTVL": _SILENCE, "KEEPCNT": UNTIL_GIVEN_UP // _SILENCE - 1}
    for name, value in asked.items():
        if hasattr(socket, f"TCP_{name}"):  # as on Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)
    if sys.platform == "linux":
        # `exactly` looks up so often.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _SILENCE, 0))
    return connection


def send(connection: socket.socket, kind: bytes, content: bytes | memoryview) -> None:
    connection.sendall(_HEAD.pack(kind, len(content)))
    connection.sendall(content)


def received(connection: socket.socket) -> tuple[bytes, bytearray]:
    """Raises OSError where the other end is gone; see `is_unheard`."""
    kind, length = _HEAD.unpack(exactly(connection, _HEAD.size))
    return kind, exactly(connection, length)


def exactly(connection: socket.socket, length: int) -> bytearray:
    content = bytearray()
    while len(content) < length:
        try:
            piece = connection.recv(min(length - len(content), _AT_ONCE))
        except BlockingIOError:  # after _SILENCE
            _check_answers(connection)
            continue
        if not piece:
            raise ConnectionResetError("the connection was closed")
        content += piece
    return content


def is_unheard(error: OSError) -> bool:
    """Whether the other host gave no answer, where a rank that dies has its host say that the connection is over."""
    return error.errno in _UNHEARD


def _check_answers(connection: socket.socket) -> None:
    """Raises TimeoutError where what was sent has not been answered UNTIL_GIVEN_UP.

    Keepalive is silent while data are on their way, and TCP gives up on these after a quarter of an hour. Its option
    for less, TCP_USER_TIMEOUT, also gives up on a host that answers, when the rank there is suspended or at work and
    takes nothing for as long.
    """
    again, probes, silent = _TCP_INFO.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    # The first may still be on its way, after however long a pause: probes of a full receiver become rare.
    if again + probes > 1 and silent >= 1000 * UNTIL_GIVEN_UP:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
