"""The environment variables that launchers set for the processes that they start."""

import os
import time
from typing import NamedTuple, NoReturn

EXIT_FAILURE = 1

# Seconds for a launcher to pass on what ranks have printed, before one ends and the launcher ends all.
FLUSH_SECONDS = 0.5

# Set by MPI launchers: MPICH and Intel's, Open MPI, Slurm with PMI.
_MPI_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID")
_MPI_LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")

# Set by torchrun, and by programs for Ray and Dask.
RENDEZVOUS_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_RANKS_AND_SIZES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    ("RANK", "WORLD_SIZE"),
)
_LAST_PORT = 65_535


def is_started_by_mpi() -> bool:
    """Whether an MPI launcher started this process, and not a torchrun that MPI started."""
    return not _is_torchrun() and any(name in os.environ for name in _MPI_VARIABLES)


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def has_rendezvous_variables() -> bool:
    """Whether the environment names the rank of this process and the address of rank 0."""
    return all(name in os.environ for name in RENDEZVOUS_VARIABLES)


def rank_and_world_size() -> tuple[int, int]:
    """The rank of this process and the number of processes; (0, 1) where no launcher set them."""
    for names in _RANKS_AND_SIZES[-1:] if _is_torchrun() else _RANKS_AND_SIZES:
        rank, size = (os.environ.get(name, "") for name in names)
        if rank.isdecimal() and size.isdecimal():
            return int(rank), int(size)
    return 0, 1


def local_rank_of_mpi() -> int:
    """The rank among the processes of the same host, before MPI is initialised; the rank where it is not set."""
    texts = (os.environ.get(name, "") for name in _MPI_LOCAL_RANKS)
    return next((int(text) for text in texts if text.isdecimal()), rank_and_world_size()[0])


def local_rank() -> int | None:
    """The rank among the processes of the same host, where torchrun's variable has it."""
    return _whole_number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else None


class RendezvousAddress(NamedTuple):
    """Where ranks that MPI did not start find each other, as torchrun's variables say.

    rank, size: of this process. host, port: of the store. job: a name that all processes of a job share and no other
    job has. has_agent_store: whether torchrun's agent opens the store; else rank 0 does.
    """

    rank: int
    size: int
    host: str
    port: int
    job: str
    has_agent_store: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def rendezvous_address() -> RendezvousAddress:
    """The address in the environment. Raises ValueError that names a variable with a wrong value."""
    rank, size = _whole_number("RANK"), _whole_number("WORLD_SIZE")
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} with WORLD_SIZE={size}; expected a rank from 0 to {size - 1}")
    port = _whole_number("MASTER_PORT")
    if not 1 <= port <= _LAST_PORT:
        raise ValueError(f"MASTER_PORT={port}; expected a port from 1 to {_LAST_PORT}")
    # The number of a batch job does not identify a job: each worker of Dask or Ray may be a batch job of its own. Nor
    # does the number of restarts: torchrun restarts nodes that did not fail without counting.
    job = f"gpu_nn {os.environ.get('TORCHELASTIC_RUN_ID', '')}"
    has_agent_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return RendezvousAddress(rank, size, _host("MASTER_ADDR"), port, job, has_agent_store)


def _host(name: str) -> str:
    host = os.environ[name]
    try:
        if host.encode("idna"):
            return host
    except UnicodeError:  # the system's functions would raise it
        pass
    raise ValueError(f"the environment has {name}={host!r}; expected a name or an address of the host of rank 0")


def _whole_number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ValueError(f"the environment has {name}={text!r}; expected a whole number")
    return int(text)


def exit_silently(code: int) -> NoReturn:
    """End this rank after rank 0 had time to print the reason: a launcher may end all ranks when the first one ends."""
    time.sleep(FLUSH_SECONDS)
    raise SystemExit(code) from None
