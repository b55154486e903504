"""Whoever says hello is introduced, however many others say nothing."""

import errno
import hashlib
import os
import socket
import time
from contextlib import ExitStack

import pytest

import gpu_nn
from gpu_nn.distributed import introductions
from gpu_nn.distributed.introductions import Hello, Reception
from gpu_nn.errors import DeviceError

MANY = 300


def hello(rank, size):
    return Hello.of(rank, size, "a job")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=socket.SOMAXCONN) as listener:
        yield listener


@pytest.fixture
def comer(listener):
    """Connects one more, which says so much."""
    with ExitStack() as connections:

        def comer(said=b""):
            connection = connections.enter_context(socket.create_connection(listener.getsockname(), 30))
            connection.sendall(said)
            return connection

        yield comer


def introduced(reception, seconds):
    found = []
    for connection, said in reception.introduced(time.monotonic() + seconds):
        connection.close()
        found.append(said)
    return found


def test_the_silent_hold_up_nobody(listener, comer):
    for _ in range(MANY):
        comer()
    comer(hello(3, 4).packed())
    began = time.monotonic()
    with Reception(listener) as reception:
        for connection, found in reception.introduced(began + 60):
            connection.close()
            assert found == hello(3, 4)
            break
    assert time.monotonic() - began < 5


def test_a_hello_in_pieces_is_one_and_each_has_its_own(listener, comer):
    hellos = [hello(rank, 50) for rank in range(1, 50)]
    comers = [comer(own.packed()[:3]) for own in hellos]
    with Reception(listener) as reception:
        assert introduced(reception, 0.5) == []
        for connection, own in zip(comers, hellos, strict=True):
            connection.sendall(own.packed()[3:-1])
        assert introduced(reception, 0.5) == []
        for connection, own in zip(comers, hellos, strict=True):
            connection.sendall(own.packed()[-1:])
        assert sorted(introduced(reception, 0.5)) == hellos


def test_a_hello_is_read_as_it_was_said(monkeypatch):
    said = hello(3, 4)
    assert Hello.unpacked(said.packed()) == said
    assert said.release() == f"gpu_nn {gpu_nn.__version__}"
    assert len({hello(3, 4), Hello.of(3, 4, "another job"), hello(2, 4), hello(3, 5)}) == 4
    # A newer gpu_nn must read this, and be read, so.
    assert said.packed()[:8] == b"gpu_nn\0\0"
    assert said.packed()[8:64] == gpu_nn.__version__.encode().ljust(56, b"\0")
    assert said.packed()[64:96] == hashlib.sha256(b"a job").digest()
    assert said.packed()[96:] == bytes([0, 0, 0, 3, 0, 0, 0, 4])


def test_a_version_that_is_no_text_is_quoted_as_one_line():
    assert hello(1, 2)._replace(version=b"1\n2\xff\x1b[0m").release() == "gpu_nn 1 2\ufffd\\x1b[0m"


def is_open(connection):
    connection.settimeout(0.1)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


def test_those_who_say_something_else_are_sent_away_at_once_and_the_silent_in_time(listener, comer, monkeypatch):
    monkeypatch.setattr(introductions, "_UNTIL_SAID", 1.0)
    silent, other = comer(), comer(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 20)
    with Reception(listener) as reception:
        assert introduced(reception, 0.5) == []
        assert (is_open(silent), is_open(other)) == (True, False)
        assert introduced(reception, 1.0) == []
        assert not is_open(silent)


def test_those_who_are_left_are_sent_away_at_the_end(listener, comer):
    silent = comer()
    with Reception(listener) as reception:
        assert introduced(reception, 0.2) == []
        assert is_open(silent)
    assert not is_open(silent)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(silent.getpeername(), 30)


class Full(socket.socket):
    """A listener of a process that has all the files it may, unless one was closed."""

    allowed = 0

    def accept(self):
        if self.allowed == 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.allowed -= 1
        return super().accept()


def test_without_room_for_one_more_the_silent_make_room_and_then_it_is_an_error(listener, comer):
    full = Full(fileno=listener.detach())
    full.allowed = 1
    address = full.getsockname()
    with Reception(full) as reception, socket.create_connection(address, 30) as silent:
        assert introduced(reception, 0.2) == []
        with (
            socket.create_connection(address, 30),
            pytest.raises(DeviceError, match=r"one more connection: Too many open files; allow.*ulimit -n"),
        ):
            introduced(reception, 30)
        assert not is_open(silent)
