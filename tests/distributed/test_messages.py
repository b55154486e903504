"""Messages arrive whole, and a host that is gone is told from one whose rank is busy."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from gpu_nn.distributed import messages
from tests.distributed.cut import cut

MUCH = bytes(64 << 20)  # more than the kernels of both ends hold


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(messages, "_SILENCE", 1)
    monkeypatch.setattr(messages, "UNTIL_GIVEN_UP", 3)


@pytest.fixture
def connected():
    """Two connections with each other, and a thread, which ends after them."""
    with (
        ThreadPoolExecutor(1) as threads,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as one,
        listener.accept()[0] as other,
    ):
        yield messages.lasting(one), messages.lasting(other), threads
        for connection in (one, other):
            with suppress(OSError):  # that TCP itself has given up
                connection.shutdown(socket.SHUT_RDWR)


def test_a_message_that_claims_more_than_it_has_costs_no_memory():
    one, other = socket.socketpair()
    with one, other:
        one.sendall(messages._HEAD.pack(b"s", 1 << 62) + b"abc")
        one.close()
        with pytest.raises(ConnectionResetError):
            messages.received(other)


def test_a_message_arrives_whole_after_any_silence(hasty, connected):
    one, other, threads = connected
    later = threads.submit(messages.received, other)
    time.sleep(2.5)
    messages.send(one, b"s", MUCH)
    assert later.result() == (b"s", MUCH)


def unheard(connection):
    began = time.monotonic()
    too_late = threading.Timer(15, connection.shutdown, [socket.SHUT_RDWR])
    too_late.start()
    with pytest.raises(OSError, match="Connection timed out") as raised:
        messages.received(connection)
    too_late.cancel()
    assert messages.is_unheard(raised.value)
    return time.monotonic() - began


def test_a_host_that_is_gone_in_the_middle_of_a_message_is_given_up(hasty, connected):
    """Where TCP itself would try for a quarter of an hour."""
    one, other, threads = connected
    sent = threads.submit(messages.send, one, b"s", MUCH)
    other.recv(1 << 20)
    cut(one, other)
    assert unheard(one) > 2
    one.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match="Broken pipe"):
        sent.result()


def test_a_host_that_is_gone_in_silence_is_given_up(hasty, connected):
    one, other, _ = connected
    cut(one, other)
    assert unheard(one) > 2


def test_a_rank_that_is_suspended_is_waited_for(hasty, connected):
    """Its host answers, though it takes nothing more: TCP_USER_TIMEOUT would give it up."""
    one, other, threads = connected
    sent = threads.submit(messages.send, one, b"s", MUCH)
    answer = threading.Thread(target=lambda: (time.sleep(8), messages.received(other), messages.send(other, b"l", b"")))
    answer.start()
    assert messages.received(one) == (b"l", b"")
    sent.result()
    answer.join()


def test_a_rank_that_dies_is_not_unheard(connected):
    one, other, _ = connected
    other.close()
    with pytest.raises(OSError, match="the connection was closed") as raised:
        messages.received(one)
    assert not messages.is_unheard(raised.value)
