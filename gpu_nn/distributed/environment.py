"""What launchers leave in the environment of the processes that they start."""

import os
import time
from typing import NamedTuple, NoReturn

EXIT_FAILURE = 1

# Seconds for a launcher to pass on what ranks printed, before one ends and it ends all.
FLUSH_SECONDS = 0.5

# Of MPI: MPICH and Intel's, Open MPI, Slurm with PMI.
_SIGNS_OF_MPI = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID")
_LOCAL_RANKS_OF_MPI = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")

# Of torchrun, and of programs for Ray and Dask.
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_WORLDS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    ("RANK", "WORLD_SIZE"),
)
_LAST_PORT = 65_535


def is_started_by_mpi() -> bool:
    """Whether a launcher of MPI started this process, and not a torchrun that it started."""
    return not _is_torchrun() and any(name in os.environ for name in _SIGNS_OF_MPI)


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def has_rendezvous_variables() -> bool:
    """Whether the environment says which rank this process is, and where rank 0 is met."""
    return all(name in os.environ for name in VARIABLES)


def rank_and_world_size() -> tuple[int, int]:
    """This process's number and how many a launcher started; (0, 1) where none did, or it does not say."""
    for names in _WORLDS[-1:] if _is_torchrun() else _WORLDS:
        rank, size = (os.environ.get(name, "") for name in names)
        if rank.isdecimal() and size.isdecimal():
            return int(rank), int(size)
    return 0, 1


def local_rank_of_mpi() -> int:
    """The number of this process among those of the same host, before MPI can tell it; its rank where nothing says."""
    texts = (os.environ.get(name, "") for name in _LOCAL_RANKS_OF_MPI)
    return next((int(text) for text in texts if text.isdecimal()), rank_and_world_size()[0])


class Environment(NamedTuple):
    """Where ranks meet that MPI did not start, as torchrun's variables say it.

    rank, size: of this process. host, port: of the store. job: what all processes of a job have, and no other job.
    has_agent_store: whether torchrun's agent opens the store; else rank 0 does.
    """

    rank: int
    size: int
    host: str
    port: int
    job: str
    has_agent_store: bool

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def rendezvous_address() -> Environment:
    """Raises ValueError that names a variable which cannot be."""
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} with WORLD_SIZE={size}; expected a rank from 0 to {size - 1}")
    port = _number("MASTER_PORT")
    if not 1 <= port <= _LAST_PORT:
        raise ValueError(f"MASTER_PORT={port}; expected a port from 1 to {_LAST_PORT}")
    # The number of a batch job names no job: each worker of Dask or Ray may be a batch job of its own. Nor does the
    # count of restarts: nodes that did not fail are restarted without it.
    job = f"gpu_nn {os.environ.get('TORCHELASTIC_RUN_ID', '')}"
    return Environment(rank, size, _host("MASTER_ADDR"), port, job, has_agent_store=_has_agent_store())


def _has_agent_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def local_rank() -> int | None:
    """The number of this rank among those of the same host, where the environment has it."""
    return _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else None


def _host(name: str) -> str:
    host = os.environ[name]
    try:
        if host.encode("idna"):
            return host
    except UnicodeError:  # which the system's functions would raise
        pass
    raise ValueError(f"the environment has {name}={host!r}; expected a name or an address of the host of rank 0")


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ValueError(f"the environment has {name}={text!r}; expected a whole number")
    return int(text)


def exit_silently(code: int) -> NoReturn:
    """Ends this rank, after rank 0 had time to say why: a launcher may end all when the first has ended."""
    time.sleep(FLUSH_SECONDS)
    raise SystemExit(code) from None
