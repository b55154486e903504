"""Ranks of one job find each other at a store, whoever comes first, comes again or was there before."""

import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
import torch.distributed as distributed

from gpu_nn.distributed import rendezvous
from gpu_nn.distributed.environment import RendezvousAddress
from gpu_nn.errors import DeviceError
from tests.distributed.ports import free_port

HOST = "127.0.0.1"
JOB = "gpu_nn a job"


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(rendezvous, "_NEW_ROUND_TIMEOUT", 1.0)
    monkeypatch.setattr(rendezvous, "_CONNECT_TIMEOUT", 0.5)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def place(rank, size, port, job=JOB, host=HOST, agent=False):
    return RendezvousAddress(rank, size, host, port, job, agent)


def met(rank, size, port, patience=30.0, **options):
    return rendezvous.open_store(distributed, place(rank, size, port, **options), patience)


@contextmanager
def agent_store():
    """A store like that of torchrun's agent, which outlives the ranks, and its port."""
    port = free_port()
    store = distributed.TCPStore(HOST, port, None, True, timedelta(seconds=30), wait_for_workers=False)
    yield port
    del store


def gone(threads, came, port, size=3):
    """Outcomes of processes that came to an agent's store and are gone: what comes behind them is in new processes."""
    first = [threads.submit(met, rank, size, port, 3.0 if rank == 0 else 4.0, agent=True) for rank in came]
    errors = [one.exception(60) for one in first]
    rendezvous._known_rounds.clear()
    return errors


def meet_again(threads, port, size=3, last=0, after=0.5):
    """All ranks, of which `last` comes so many seconds behind the others, are in one round."""
    others = [threads.submit(met, rank, size, port, agent=True) for rank in range(size) if rank != last]
    time.sleep(after)
    return is_one_round([met(last, size, port, agent=True), *(other.result(60) for other in others)])


def said(future):
    """What the DeviceError says that a rank raises."""
    with pytest.raises(DeviceError) as raised:
        future.result(60)
    return str(raised.value)


def is_one_round(stores):
    """Whether these are the same store below the same names."""
    stores[0].set("a key", "a value")
    return all(store.check(["a key"]) for store in stores)


@pytest.mark.parametrize("last", [0, 2])
def test_all_that_come_meet_whoever_is_last(threads, last):
    port = free_port()
    others = [threads.submit(met, rank, 4, port) for rank in range(4) if rank != last]
    time.sleep(1.5)
    assert not any(other.done() for other in others)
    assert is_one_round([met(last, 4, port), *(other.result(60) for other in others)])


def test_a_rank_that_does_not_come_is_named_by_all_that_did(threads):
    port = free_port()
    here = [threads.submit(met, rank, 4, port, patience=2.0 if rank == 0 else 30.0) for rank in (0, 2)]
    expected = f"rank 0 of 4 waited 2 seconds at {HOST}:{port} for rank 1, 3; see what became of it"
    assert [said(one) for one in here] == [expected, expected]


def test_ranks_say_that_rank_0_does_not_come(threads):
    port = free_port()
    unmet = f"rank 1 of 2 did not meet the others at {HOST}:{port}"
    assert said(threads.submit(met, 1, 2, port, 1.5)) == f"{unmet}: nobody has opened a store there in 1.5 seconds"
    with agent_store() as port:
        told = said(threads.submit(met, 1, 2, port, 1.5, agent=True))
    assert told == f"rank 1 of 2 did not meet the others at {HOST}:{port}: rank 0 has not come in 1.5 seconds"


@pytest.mark.parametrize(
    ("rank", "size", "problem"),
    [(1, 3, "two processes came to {} as rank 1 of 3"), (2, 4, "rank 2 has WORLD_SIZE=4, rank 0 has 3")],
    ids=["the same RANK", "another WORLD_SIZE"],
)
def test_a_rank_that_comes_twice_or_counts_otherwise_is_named_by_all(threads, rank, size, problem):
    port = free_port()
    here = [threads.submit(met, 0, 3, port), threads.submit(met, 1, 3, port)]
    time.sleep(1.0)
    if rank == 1:
        rendezvous._known_rounds.clear()  # as in a process of its own
    here.append(threads.submit(met, rank, size, port))
    told = [said(one) for one in here]
    problem = problem.format(f"{HOST}:{port}")
    hint = "every process needs its own RANK and the same WORLD_SIZE, every job its own MASTER_PORT"
    assert told[:2] == [f"{problem}; {hint}"] * 2
    assert told[2] == f"rank {rank} of {size} did not meet the others at {HOST}:{port}: {problem}; {hint}"


@pytest.mark.parametrize(("rank", "size"), [(1, 3), (2, 3), (1, 4)])
def test_a_rank_of_another_job_is_told_at_once_and_the_job_that_it_came_to_goes_on(threads, rank, size):
    port = free_port()
    here = [threads.submit(met, 0, 3, port), threads.submit(met, 1, 3, port)]
    time.sleep(0.5)
    began = time.monotonic()
    told = said(threads.submit(met, rank, size, port, job="gpu_nn another job"))
    assert time.monotonic() - began < 10
    unmet = f"rank {rank} of {size} did not meet the others at {HOST}:{port}"
    assert told == f"{unmet}: another job meets there; choose another MASTER_PORT"
    assert is_one_round([met(2, 3, port), *(one.result(60) for one in here)])


def test_jobs_that_share_the_store_of_an_agent_do_not_mix(threads):
    with agent_store() as port:
        started = [
            [threads.submit(met, rank, 3, port, job=job, agent=True) for rank in range(3)]
            for job in ("gpu_nn one", "gpu_nn other")
        ]
        one, other = ([future.result(60) for future in job] for job in started)
        assert is_one_round(one)
        assert is_one_round(other)
        one[0].set("of one", "")
        assert not other[0].check(["of one"])


class TestHosts:
    """Those whose own name is a loopback address are reached by no others: Gloo would wait for them for minutes."""

    def test_one_is_named_by_all_ranks(self, threads, monkeypatch):
        names = iter(f"host{rank}" for rank in range(9))
        monkeypatch.setattr(rendezvous, "_own_host", lambda: [next(names), "127.0.1.1"])
        port = free_port()
        told = [said(one) for one in [threads.submit(met, rank, 3, port) for rank in range(3)]]
        assert told == [told[0]] * 3
        assert re.fullmatch(
            r"rank 0 runs on host\d, whose name is the loopback address 127.0.1.1 there; "
            r"set GLOO_SOCKET_IFNAME there to the network interface that other hosts reach",
            told[0],
        )

    @pytest.mark.parametrize(
        ("hosts", "rank"),
        [
            ([["a", "127.0.1.1"], ["a", "127.0.1.1"]], None),
            ([["a", ""], ["b", ""]], None),
            ([["a", ""], ["b", "127.0.1.1"], ["b", "127.0.1.1"]], 1),
            ([["a", ""], ["b", ""], ["c", "::1"]], 2),
        ],
        ids=["one host", "reachable", "two hosts", "IPv6"],
    )
    def test_only_ranks_on_several_hosts_need_to_be_reached(self, hosts, rank):
        told = rendezvous._unreachable(hosts)
        assert told.startswith(f"rank {rank} runs on {hosts[rank][0]}, ") if rank else told == ""

    def test_an_interface_that_is_named_is_taken_for_one_that_is_reached(self, monkeypatch):
        monkeypatch.setattr(rendezvous, "loopback_of_host_name", lambda: "127.0.1.1")
        monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
        assert rendezvous._own_host()[1] == "127.0.1.1"
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
        assert rendezvous._own_host()[1] == ""


@pytest.mark.parametrize("came", [(0, 1, 2), (0, 1), (0, 2), (0,)], ids=str)
def test_ranks_that_torchrun_starts_again_meet_in_a_round_of_their_own(threads, came):
    """In the first round only some came before all were ended; its names are in the agent's store."""
    with agent_store() as port:
        first = gone(threads, came, port)[0]
        assert first is None if came == (0, 1, 2) else "waited 3 seconds" in str(first)
        assert meet_again(threads, port)


def test_a_rank_that_saw_an_old_round_is_patient_in_the_new_one(threads):
    """For longer than one that was refused has to see a new round."""
    with agent_store() as port:
        gone(threads, (0, 1, 2), port)
        assert meet_again(threads, port, last=2, after=2.5)


def test_a_rank_that_was_refused_is_patient_in_the_next_round(threads):
    with agent_store() as port:
        store = distributed.TCPStore(HOST, port, None, False, timedelta(seconds=30), wait_for_workers=False)
        distributed.PrefixStore(JOB, store).set("round", "first 7")  # of 7 ranks, all ended before they met
        late = threads.submit(lambda: (time.sleep(0.5), met(0, 3, port, agent=True))[1])
        second = threads.submit(met, 1, 3, port, agent=True)
        time.sleep(3.5)
        assert is_one_round([met(2, 3, port, agent=True), late.result(60), second.result(60)])


def test_ranks_leave_a_round_whose_rank_0_was_ended_before_all_had_come(threads):
    with agent_store() as port:
        store = distributed.TCPStore(HOST, port, None, False, timedelta(seconds=30), wait_for_workers=False)
        distributed.PrefixStore(JOB, store).set("round", "first 3")
        assert meet_again(threads, port)


def test_ranks_meet_in_another_number_after_some_are_gone(threads):
    """As torchrun with --nnodes 1:2 starts them."""
    with agent_store() as port:
        gone(threads, (0, 1, 2), port)
        assert meet_again(threads, port, size=2)


def test_processes_that_live_on_meet_again(threads):
    port = free_port()
    for _ in range(3):
        stores = [future.result(60) for future in [threads.submit(met, rank, 3, port) for rank in range(3)]]
        assert is_one_round(stores)
        del stores


def test_ranks_wait_for_a_rank_0_that_ends_and_comes_again(threads):
    port = free_port()
    assert "waited 1 seconds" in said(threads.submit(met, 0, 3, port, 1.0))
    first = threads.submit(met, 1, 3, port)
    time.sleep(0.5)
    here = [threads.submit(met, rank, 3, port) for rank in (0, 2)]
    assert is_one_round([one.result(60) for one in (*here, first)])


def test_a_port_in_use_is_told_at_once_with_the_variable_to_change(threads):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        told = said(threads.submit(met, 0, 2, port))
    assert told == f"rank 0 cannot listen at {HOST}:{port}: Address already in use; choose another MASTER_PORT"


def test_a_name_that_nobody_knows_is_told_with_the_host_of_rank_0(threads):
    told = said(threads.submit(met, 0, 2, 29400, host="nowhere.invalid"))
    assert told.startswith("rank 0 finds no store at nowhere.invalid:29400: ")
    assert told.endswith(": MASTER_ADDR must be a name or an address of that")


def test_a_rank_says_that_something_else_listens(threads):
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]

        def answers():
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answer = threading.Thread(target=answers)
        answer.start()
        told = said(threads.submit(met, 1, 2, port, 2.0))
        other.shutdown(socket.SHUT_RDWR)
        answer.join()
    assert told.startswith(f"rank 1 of 2 did not meet the others at {HOST}:{port}: ")
