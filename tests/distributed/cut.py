"""Connections whose cable is pulled, at both ends."""

import ctypes
import socket

_SO_ATTACH_FILTER = 26


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter)))


def cut(*connections: socket.socket) -> None:
    """From now on Linux drops all that comes to these ends, answers to what they sent among it, and tells nobody."""
    keep_nothing = _Filter(0x06, 0, 0, 0)  # "return 0" in the language of Berkeley's packet filter
    program = bytes(_Program(1, ctypes.pointer(keep_nothing)))
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
