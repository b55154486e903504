"""The rendezvous of ranks that MPI did not start: at a store of torch.distributed, before they make a group.

torchrun's agent hosts the store, or else rank 0 does. Other jobs may use the same address, and this job comes back to
it: in the same processes or, restarted by torchrun, in new ones. So rank 0 opens a new round for every rendezvous, with
a unique name under the name of the job, and the other ranks join a round that they have not joined before.
"""

import json
import os
import time
import uuid
from datetime import timedelta
from typing import Any

from gpu_nn.distributed.environment import RendezvousAddress
from gpu_nn.distributed.hosts import host_name, loopback_of_host_name
from gpu_nn.errors import DeviceError, one_line

# Seconds: for all ranks to join; for a new round, where a rank cannot join this one; for the other ranks to read why a
# round failed, before rank 0 closes the store.
TIMEOUT = 600.0
_NEW_ROUND_TIMEOUT = 60.0
_ERROR_DELAY = 1.0

_CONNECT_TIMEOUT = 5.0
_POLL_INTERVAL = 0.1

# Keys: the job whose rank 0 hosts the store; a job's latest round and its number of ranks; the entries of a round. In a
# round each rank writes its host, and then counts its arrivals under its rank.
_JOB, _ROUND = "gpu_nn job", "round"
_HOST, _PROBLEM, _OUTCOME = "host of {}", "problem", "outcome"

_UNIQUE = "every process needs its own RANK and the same WORLD_SIZE, every job its own MASTER_PORT"

# The rounds that a rank of this process has tried to join.
_known_rounds: set[tuple[str, int]] = set()


def open_store(distributed: Any, address: RendezvousAddress, timeout: float = TIMEOUT) -> Any:
    """The store of a round that all ranks have joined.

    distributed: the module torch.distributed.  timeout: seconds for all ranks to join.

    Raises DeviceError where a rank is missing, joins twice, has another WORLD_SIZE or belongs to another job.
    """
    return (_host_round if address.rank == 0 else _join_round)(distributed, address, timeout)


def _host_round(distributed: Any, address: RendezvousAddress, timeout: float) -> Any:
    store = _host_store(distributed, address)
    try:
        round_store, problem = _wait_for_ranks(distributed, store, address, timeout)
    except distributed.DistError as error:
        raise DeviceError(f"rank 0 lost the store at {address}: {one_line(error)}") from None
    if problem:
        time.sleep(_ERROR_DELAY)
        raise DeviceError(problem)
    return round_store


def _wait_for_ranks(distributed: Any, store: Any, address: RendezvousAddress, timeout: float) -> tuple[Any, str]:
    """The store of a new round, and why the round failed; "" where all ranks have joined it."""
    until, name = time.monotonic() + timeout, uuid.uuid4().hex
    job = distributed.PrefixStore(address.job, store)
    round_store = distributed.PrefixStore(name, job)
    job.set(_ROUND, f"{name} {address.size}")
    missing = list(range(1, address.size))
    problem = ""
    while missing and not problem:
        if time.monotonic() > until:
            ranks = f"rank {', '.join(map(str, missing))}"
            waited = f"rank 0 of {address.size} waited {timeout:g} seconds at {address}"
            problem = f"{waited} for {ranks}; see what became of it"
        else:
            time.sleep(_POLL_INTERVAL)
            problem = _read(round_store, _PROBLEM)
            missing = [rank for rank in missing if not round_store.check([str(rank)])]
    if not problem:
        others = [json.loads(_read(round_store, _HOST.format(rank))) for rank in range(1, address.size)]
        problem = _unreachable([_own_host(), *others])
    round_store.set(_OUTCOME, problem)
    return round_store, problem


def _host_store(distributed: Any, address: RendezvousAddress) -> Any:
    """The store that rank 0 opens, or that torchrun's agent has opened."""
    try:
        store = _connect(distributed, address, is_server=not address.has_agent_store)
        if not address.has_agent_store:
            store.set(_JOB, address.job)
        return store
    except distributed.DistError as error:
        if "EADDRINUSE" in str(error):
            unopened, hint = f"rank 0 cannot listen at {address}: Address already in use", "choose another"
            raise DeviceError(f"{unopened}; {hint} MASTER_PORT") from None
        hint = f"rank 0 runs on {host_name()}: MASTER_ADDR must be a name or an address of that"
        raise DeviceError(f"rank 0 finds no store at {address}: {one_line(error)}; {hint}") from None


def _join_round(distributed: Any, address: RendezvousAddress, timeout: float) -> Any:
    until = time.monotonic() + timeout
    store = round_store = None
    unmet, problem = f"rank {address.rank} of {address.size} did not meet the others at {address}", ""
    waits_for = "nobody has opened a store there"
    while time.monotonic() < until:
        try:
            if store is None:
                store = _connect(distributed, address, is_server=False)
                waits_for = "rank 0 has not come"
            if not address.has_agent_store and _read(store, _JOB, address.job) != address.job:
                raise DeviceError(f"{unmet}: another job meets there; choose another MASTER_PORT")
            name, _, size = _read(distributed.PrefixStore(address.job, store), _ROUND).partition(" ")
            if name and (name, address.rank) not in _known_rounds:
                _known_rounds.add((name, address.rank))
                round_store = distributed.PrefixStore(name, distributed.PrefixStore(address.job, store))
                now = time.monotonic()
                if round_store.check([_OUTCOME]):
                    # The round of processes that have ended; torchrun's agent keeps it in its store.
                    problem = _read(round_store, _OUTCOME) or f"the others have met without rank {address.rank}"
                    round_store = None
                elif problem := _join_error(round_store, address, int(size)):
                    # This round, too, may belong to processes that have ended.
                    round_store.set(_PROBLEM, problem)
                    round_store, until = None, min(until, now + _NEW_ROUND_TIMEOUT)
                else:
                    # Rank 0 writes the outcome within its own timeout, which began before this one.
                    until, waits_for = now + timeout + _NEW_ROUND_TIMEOUT, "rank 0 has not said who came"
            if round_store is not None and round_store.check([_OUTCOME]):
                outcome = _read(round_store, _OUTCOME)
                if outcome:
                    raise DeviceError(outcome)
                return round_store
        except distributed.DistError:  # rank 0 has ended with its store; torchrun may restart it
            store = round_store = None
        time.sleep(_POLL_INTERVAL)
    raise DeviceError(f"{unmet}: {problem or f'{waits_for} in {timeout:g} seconds'}")


def _join_error(round_store: Any, address: RendezvousAddress, size: int) -> str:
    """Join the round. Returns why this rank cannot; "" where it has."""
    if size != address.size:
        return f"rank {address.rank} has WORLD_SIZE={address.size}, rank 0 has {size}; {_UNIQUE}"
    round_store.set(_HOST.format(address.rank), json.dumps(_own_host()))
    if round_store.add(str(address.rank), 1) > 1:
        return f"two processes came to {address} as rank {address.rank} of {size}; {_UNIQUE}"
    return ""


def _own_host() -> list[str]:
    """The name of this host, and the loopback address that Gloo would bind to; "" where it binds to another one."""
    return [host_name(), "" if "GLOO_SOCKET_IFNAME" in os.environ else loopback_of_host_name()]


def _unreachable(hosts: list[list[str]]) -> str:
    """Why ranks on several hosts, given by rank, cannot connect to each other; "" where nothing is known against it."""
    if len({name for name, _ in hosts}) > 1:
        for rank, (name, loopback) in enumerate(hosts):
            if loopback:
                unreached = f"rank {rank} runs on {name}, whose name is the loopback address {loopback} there"
                return f"{unreached}; set GLOO_SOCKET_IFNAME there to the network interface that other hosts reach"
    return ""


def _connect(distributed: Any, address: RendezvousAddress, is_server: bool) -> Any:
    return distributed.TCPStore(
        address.host,
        address.port,
        None,
        is_server,
        timedelta(seconds=_CONNECT_TIMEOUT),
        wait_for_workers=False,
        # The last store of this process may not be garbage-collected yet.
        multi_tenant=True,
    )


def _read(store: Any, key: str, default: str = "") -> str:
    """The value of the key, or the default where the store does not have it yet."""
    return store.get(key).decode(errors="replace") if store.check([key]) else default
