"""How ranks that MPI did not start find each other: at a store of torch.distributed, before they make a group.

torchrun's agent has the store, or else rank 0 opens one. Other jobs may come to its address too, and this job comes
again: in the same processes or, restarted by torchrun, in new ones. So rank 0 begins every rendezvous as a round with a
name of its own, under the name of the job, and the others join a round that they have not been in.
"""

import json
import os
import time
import uuid
from datetime import timedelta
from typing import Any

from gpu_nn.distributed.environment import Environment
from gpu_nn.distributed.hosts import host_name, loopback_of_host_name
from gpu_nn.errors import DeviceError, one_line

# Seconds: for all ranks to come, for one that cannot be in this round to see a new one, for the others to be told of a
# failure before rank 0 closes the store.
PATIENCE = 600.0
_UNTIL_A_NEW_ROUND = 60.0
_UNTIL_TOLD = 1.0

_CONNECTING = 5.0
_BETWEEN_LOOKS = 0.1

# Keys: of the job whose rank 0 opened the store; of a job's latest round, and how many ranks it has; of a round. In a
# round each rank says on which host it is, and then counts its arrivals under its number.
_JOB, _ROUND = "gpu_nn job", "round"
_HOST, _PROBLEM, _OUTCOME = "host of {}", "problem", "outcome"

_UNIQUE = "every process needs its own RANK and the same WORLD_SIZE, every job its own MASTER_PORT"

# The rounds that a rank of this process came to.
_known: set[tuple[str, int]] = set()


def met(distributed: Any, place: Environment, patience: float = PATIENCE) -> Any:
    """The store of a round to which all ranks have come.

    distributed: the module torch.distributed.  patience: seconds in which all must have come.

    Raises DeviceError where a rank is missing, comes twice, counts the ranks otherwise or is of another job.
    """
    return (_begin if place.rank == 0 else _join)(distributed, place, patience)


def _begin(distributed: Any, place: Environment, patience: float) -> Any:
    """Rank 0's part."""
    store = _opened(distributed, place)
    try:
        found, problem = _all_come(distributed, store, place, patience)
    except distributed.DistError as error:
        raise DeviceError(f"rank 0 lost the store at {place.address}: {one_line(error)}") from None
    if problem:
        time.sleep(_UNTIL_TOLD)
        raise DeviceError(problem)
    return found


def _all_come(distributed: Any, store: Any, place: Environment, patience: float) -> tuple[Any, str]:
    """A new round, and why it is none; "" where all ranks are in it."""
    until, name = time.monotonic() + patience, uuid.uuid4().hex
    job = distributed.PrefixStore(place.job, store)
    found = distributed.PrefixStore(name, job)
    job.set(_ROUND, f"{name} {place.size}")
    missing = list(range(1, place.size))
    problem = ""
    while missing and not problem:
        if time.monotonic() > until:
            ranks = f"rank {', '.join(map(str, missing))}"
            waited = f"rank 0 of {place.size} waited {patience:g} seconds at {place.address}"
            problem = f"{waited} for {ranks}; see what became of it"
        else:
            time.sleep(_BETWEEN_LOOKS)
            problem = _read(found, _PROBLEM)
            missing = [rank for rank in missing if not found.check([str(rank)])]
    if not problem:
        others = [json.loads(_read(found, _HOST.format(rank))) for rank in range(1, place.size)]
        problem = _unreachable([_own_host(), *others])
    found.set(_OUTCOME, problem)
    return found, problem


def _opened(distributed: Any, place: Environment) -> Any:
    """The store that rank 0 opens, or that the agent has opened."""
    try:
        store = _connected(distributed, place, is_server=not place.has_agent_store)
        if not place.has_agent_store:
            store.set(_JOB, place.job)
        return store
    except distributed.DistError as error:
        if "EADDRINUSE" in str(error):
            unopened, hint = f"rank 0 cannot listen at {place.address}: Address already in use", "choose another"
            raise DeviceError(f"{unopened}; {hint} MASTER_PORT") from None
        hint = f"rank 0 runs on {host_name()}: MASTER_ADDR must be a name or an address of that"
        raise DeviceError(f"rank 0 finds no store at {place.address}: {one_line(error)}; {hint}") from None


def _join(distributed: Any, place: Environment, patience: float) -> Any:
    """The part of the other ranks."""
    until = time.monotonic() + patience
    store = found = None
    unmet, problem = f"rank {place.rank} of {place.size} did not meet the others at {place.address}", ""
    waits_for = "nobody has opened a store there"
    while time.monotonic() < until:
        try:
            if store is None:
                store = _connected(distributed, place, is_server=False)
                waits_for = "rank 0 has not come"
            if not place.has_agent_store and _read(store, _JOB, place.job) != place.job:
                raise DeviceError(f"{unmet}: another job meets there; choose another MASTER_PORT")
            name, _, size = _read(distributed.PrefixStore(place.job, store), _ROUND).partition(" ")
            if name and (name, place.rank) not in _known:
                _known.add((name, place.rank))
                found = distributed.PrefixStore(name, distributed.PrefixStore(place.job, store))
                now = time.monotonic()
                if found.check([_OUTCOME]):
                    # Of processes that are gone, as torchrun's agent keeps it in its store.
                    problem, found = _read(found, _OUTCOME) or f"the others have met without rank {place.rank}", None
                elif problem := _refusal(found, place, int(size)):
                    # It, too, may be of processes that are gone.
                    found.set(_PROBLEM, problem)
                    found, until = None, min(until, now + _UNTIL_A_NEW_ROUND)
                else:
                    # Rank 0 says in its patience, which began before, whether all have come.
                    until, waits_for = now + patience + _UNTIL_A_NEW_ROUND, "rank 0 has not said who came"
            if found is not None and found.check([_OUTCOME]):
                outcome = _read(found, _OUTCOME)
                if outcome:
                    raise DeviceError(outcome)
                return found
        except distributed.DistError:  # rank 0 is gone with its store; it may come again
            store = found = None
        time.sleep(_BETWEEN_LOOKS)
    raise DeviceError(f"{unmet}: {problem or f'{waits_for} in {patience:g} seconds'}")


def _refusal(found: Any, place: Environment, size: int) -> str:
    """Why this rank cannot be in the round; "" where it is in it now."""
    if size != place.size:
        return f"rank {place.rank} has WORLD_SIZE={place.size}, rank 0 has {size}; {_UNIQUE}"
    found.set(_HOST.format(place.rank), json.dumps(_own_host()))
    if found.add(str(place.rank), 1) > 1:
        return f"two processes came to {place.address} as rank {place.rank} of {size}; {_UNIQUE}"
    return ""


def _own_host() -> list[str]:
    """Its name, and the address at which Gloo would be found by no other host; "" where there is none."""
    return [host_name(), "" if "GLOO_SOCKET_IFNAME" in os.environ else loopback_of_host_name()]


def _unreachable(hosts: list[list[str]]) -> str:
    """What keeps ranks on several hosts, given by rank, from reaching each other; "" for nothing known."""
    if len({name for name, _ in hosts}) > 1:
        for rank, (name, loopback) in enumerate(hosts):
            if loopback:
                unreached = f"rank {rank} runs on {name}, whose name is the loopback address {loopback} there"
                return f"{unreached}; set GLOO_SOCKET_IFNAME there to the network interface that other hosts reach"
    return ""


def _connected(distributed: Any, place: Environment, is_server: bool) -> Any:
    return distributed.TCPStore(
        place.host,
        place.port,
        None,
        is_server,
        timedelta(seconds=_CONNECTING),
        wait_for_workers=False,
        # Rank 0 of a process that meets again may find that its last store is not collected yet.
        multi_tenant=True,
    )


def _read(store: Any, key: str, default: str = "") -> str:
    """Without waiting for it."""
    return store.get(key).decode(errors="replace") if store.check([key]) else default
