"""What launchers leave in the environment of the processes that they start."""

import os

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


def is_mpi() -> bool:
    """Whether a launcher of MPI started this process, and not a torchrun that it started."""
    return not _is_torchrun() and any(name in os.environ for name in _SIGNS_OF_MPI)


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def says_where_to_meet() -> bool:
    """Whether the environment says which rank this process is, and where rank 0 is met."""
    return all(name in os.environ for name in VARIABLES)


def launched() -> tuple[int, int]:
    """This process's number and how many a launcher started; (0, 1) where none did, or it does not say."""
    for names in _WORLDS[-1:] if _is_torchrun() else _WORLDS:
        rank, size = (os.environ.get(name, "") for name in names)
        if rank.isdecimal() and size.isdecimal():
            return int(rank), int(size)
    return 0, 1


def local_rank_of_mpi() -> int:
    """The number of this process among those of the same host, before MPI can tell it; its rank where nothing says."""
    texts = (os.environ.get(name, "") for name in _LOCAL_RANKS_OF_MPI)
    return next((int(text) for text in texts if text.isdecimal()), launched()[0])


def rank_and_size() -> tuple[int, int]:
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} with WORLD_SIZE={size}; expected a rank from 0 to {size - 1}")
    return rank, size


def local_rank() -> int:
    """The number of this rank among those of the same host."""
    return _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else _number("RANK")


def meeting_place() -> tuple[str, int, str]:
    """The host and port where rank 0 is met, and the variable that chooses another port.

    At MASTER_PORT itself torchrun's agent may listen, and says so: then it is the port after it, or GPU_NN_PORT.
    """
    host, port = _host("MASTER_ADDR"), _port("MASTER_PORT")
    if "GPU_NN_PORT" in os.environ:
        return host, _port("GPU_NN_PORT"), "GPU_NN_PORT"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return host, port + 1 if port < _LAST_PORT else port - 1, "GPU_NN_PORT"
    return host, port, "MASTER_PORT"


def job() -> str:
    """What tells this job from others, as all its ranks know it; "" where the launcher says nothing of it.

    The number of a batch job is nothing of the kind: each worker of Dask or Ray may be a batch job of its own.
    """
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def _host(name: str) -> str:
    host = os.environ[name]
    try:
        if host.encode("idna"):
            return host
    except UnicodeError:  # which the system's functions would raise
        pass
    raise ValueError(f"the environment has {name}={host!r}; expected a name or an address of the host of rank 0")


def _port(name: str) -> int:
    port = _number(name)
    if not 1 <= port <= _LAST_PORT:
        raise ValueError(f"{name}={port}; expected a port from 1 to {_LAST_PORT}")
    return port


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ValueError(f"the environment has {name}={text!r}; expected a whole number")
    return int(text)
