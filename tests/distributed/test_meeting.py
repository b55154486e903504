"""Ranks meet where rank 0 listens, or say who is missing and where; strangers are sent away."""

import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import gpu_nn
from gpu_nn.distributed import meeting, messages
from gpu_nn.distributed.introductions import LENGTH, Hello
from gpu_nn.errors import DeviceError
from tests.distributed.ports import free_port

HOST = "127.0.0.1"


CURE = "choose another MASTER_PORT"


def reached(port, rank, size, seconds, job="a job"):
    return meeting.reached(HOST, port, Hello.of(rank, size, job), CURE, seconds)


def arrived(port, size, patience=30):
    found = {}
    try:
        for rank, connection in meeting.arrivals(HOST, port, Hello.of(0, size, "a job"), CURE, patience):
            found[rank] = connection
    except DeviceError:
        closed(found.values())
        raise
    return found


def closed(connections):
    for connection in connections:
        connection.close()


def test_all_that_come_are_told_apart_whoever_is_first():
    port = free_port()
    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(reached, port, rank, 4, 30) for rank in (3, 1, 2)]
        time.sleep(0.3)  # rank 0 is the last
        found = arrived(port, 4)
        assert sorted(found) == [1, 2, 3]
        for rank, there in zip((3, 1, 2), others, strict=True):
            messages.send(found[rank], b"x", bytes([rank]))
            assert messages.received(there.result()) == (b"x", bytes([rank]))
        closed([*found.values(), *(there.result() for there in others)])


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 9, Hello.of(1, 2, "a job").packed()[:-1], b"\0" * LENGTH],
    ids=["nothing", "http", "half a hello", "zeros"],
)
def test_a_stranger_neither_counts_nor_disturbs(said):
    port = free_port()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(arrived, port, 2)
        with until_it_listens(port) as stranger:
            stranger.sendall(said)
            if not said:
                stranger.close()
            there = reached(port, 1, 2, 30)
        assert list(first.result()) == [1]
        closed([there, *first.result().values()])


def until_it_listens(port):
    until = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((HOST, port), 30)
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("rank", "size", "came"), [(1, 3, "rank 1 of 3 came"), (0, 3, "rank 0 of 3"), (2, 4, "rank 2 of 4")]
)
def test_a_rank_that_comes_twice_or_counts_otherwise_is_named(rank, size, came):
    port = free_port()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(arrived, port, 3)
        there = reached(port, 1, 3, 30)
        with pytest.raises(DeviceError, match=f"rank {rank} of {size} did not meet the others at {HOST}:{port}"):
            reached(port, rank, size, 1)
        said = rf"at {HOST}:{port} rank 0 of 3 waits for rank 2, but {came}.*its own RANK and the same WORLD_SIZE"
        with pytest.raises(DeviceError, match=said):
            first.result()
        there.close()


@pytest.mark.parametrize(("rank", "size"), [(1, 3), (2, 3), (0, 3), (1, 4)])
def test_a_rank_of_another_job_is_told_at_once_and_the_job_that_it_came_to_goes_on(rank, size):
    port = free_port()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(arrived, port, 3)
        others = [reached(port, 1, 3, 30)]
        began = time.monotonic()
        unmet = f"rank {rank} of {size} did not meet the others at {HOST}:{port}: another job meets there; {CURE}"
        with pytest.raises(DeviceError, match=f"^{unmet}$"):
            reached(port, rank, size, 30, job="another job")
        assert time.monotonic() - began < 10
        others.append(reached(port, 2, 3, 30))
        assert list(first.result()) == [1, 2]
        closed([*others, *first.result().values()])


def test_a_rank_of_another_version_is_told_by_both_ends():
    port = free_port()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(arrived, port, 3)
        newer = Hello.of(2, 3, "a job")._replace(version=b"7.0.1")
        own = gpu_nn.__version__
        said = f"rank 0 has gpu_nn {own}, rank 2 has gpu_nn 7.0.1; expected the same version on all hosts"
        with pytest.raises(DeviceError, match=f"rank 2 of 3 did not meet the others at {HOST}:{port}: {said}"):
            meeting.reached(HOST, port, newer, CURE, 30)
        said = f"but rank 2 has gpu_nn 7.0.1, rank 0 has gpu_nn {own}; expected the same version on all hosts"
        with pytest.raises(DeviceError, match=said):
            first.result()


def test_rank_0_says_for_whom_it_waited():
    port = free_port()
    with ThreadPoolExecutor(1) as threads:
        there = threads.submit(reached, port, 2, 4, 30)
        with pytest.raises(DeviceError, match=rf"rank 0 of 4 waited 0.5 seconds at {HOST}:{port} for rank 1, 3;"):
            arrived(port, 4, patience=0.5)
        there.result().close()


def test_a_rank_says_that_rank_0_does_not_listen():
    port, began = free_port(), time.monotonic()
    said = rf"rank 1 of 2 did not meet the others at {HOST}:{port}: Connection refused"
    with pytest.raises(DeviceError, match=said):
        reached(port, 1, 2, 0.5)
    assert 0.3 < time.monotonic() - began < 10


def test_a_rank_says_that_something_else_listens():
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]

        def answers():
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answer = threading.Thread(target=answers)
        answer.start()
        with pytest.raises(DeviceError, match=rf"{HOST}:{port}: what listens there is no rank 0 of gpu_nn"):
            reached(port, 1, 2, 0.05)
        answer.join()


def test_a_port_in_use_is_told_at_once_with_the_variable_to_change():
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        said = rf"rank 0 cannot listen at {HOST}:{port}: Address already in use.*; choose another MASTER_PORT"
        with pytest.raises(DeviceError, match=said):
            arrived(port, 2)


def test_an_address_of_another_host_is_told_with_the_host_of_rank_0():
    # From the block of addresses that are kept for documentation.
    with pytest.raises(DeviceError, match=f"rank 0 runs on {socket.gethostname()}: MASTER_ADDR must be a name or"):
        list(meeting.arrivals("198.51.100.1", free_port(), Hello.of(0, 2, ""), CURE, 1))


@pytest.mark.parametrize(("host", "place"), [("nowhere", "nowhere:7"), ("fe80::1%eth0", r"\[fe80::1%eth0\]:7")])
def test_a_name_that_nobody_knows_is_told_with_the_host_of_rank_0(monkeypatch, host, place):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said = f"rank 0 cannot listen at {place}: Name or service not known; rank 0 runs on {socket.gethostname()}: MASTER_"
    with pytest.raises(DeviceError, match=said):
        list(meeting.arrivals(host, 7, Hello.of(0, 2, ""), CURE, 1))
    with pytest.raises(DeviceError, match=f"rank 1 of 2 did not meet the others at {place}: Name or service not known"):
        meeting.reached(host, 7, Hello.of(1, 2, ""), CURE, 0.3)


def resolved(monkeypatch, **hosts):
    """These names have these addresses."""
    getaddrinfo = socket.getaddrinfo

    def found(host, *arguments, **options):
        addresses = hosts.get(host, [host])
        return [entry for address in addresses for entry in getaddrinfo(address, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


OF_HOSTS = [
    ("node", "127.0.1.1", "0.0.0.0"),  # as Debian has it in /etc/hosts; other hosts know the address
    ("localhost", "127.0.0.1", "127.0.0.1"),
    ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
]
OF_HOSTS_WITH_IPV6 = [("node", "::1", "::"), ("::1", "::1", "::1")]


@pytest.mark.parametrize(("host", "address", "listens"), OF_HOSTS + (OF_HOSTS_WITH_IPV6 if has_ipv6() else []))
def test_rank_0_listens_where_the_others_find_its_name(monkeypatch, host, address, listens):
    resolved(monkeypatch, node=[address])
    with meeting._listening(host, free_port(), CURE) as listener:
        port = listener.getsockname()[1]
        socket.create_connection((address, port), 30).close()
        assert listener.getsockname()[0] == listens


def test_an_address_that_is_silent_leaves_time_for_the_next(monkeypatch):
    monkeypatch.setattr(meeting, "_UNTIL_ANSWERED", 1.0)
    resolved(monkeypatch, node=["127.0.0.2", HOST])
    port = free_port()
    with socket.create_server(("127.0.0.2", port), backlog=0), socket.create_connection(("127.0.0.2", port), 30):
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.2", port), 0.5)
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(arrived, port, 2)
            began = time.monotonic()
            there = meeting.reached("node", port, Hello.of(1, 2, "a job"), CURE, 30)
            assert time.monotonic() - began < 10
            closed([there, *first.result().values()])


def test_both_ends_notice_a_host_that_is_gone():
    port = free_port()
    with ThreadPoolExecutor(1) as threads:
        there = threads.submit(reached, port, 1, 2, 30)
        ends = [*arrived(port, 2).values(), there.result()]
    for connection in ends:
        assert connection.gettimeout() is None
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        found = [getattr(socket, f"TCP_{name}") for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT")]
        assert [connection.getsockopt(socket.IPPROTO_TCP, name) for name in found] == [5, 5, 3]
        seconds, _ = struct.unpack("@ll", connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
        assert seconds == 5
    closed(ends)
