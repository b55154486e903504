"""Training by several processes, one a GPU or, on CPUs, one a processor: gradients are added up over all of them.

A launcher starts them, `mpiexec -n 4 gpu-nn train --distributed …` or `torchrun --nproc-per-node 4 --no-python
gpu-nn train --distributed …`, and in a program of one's own, started in the same way,

    communicator, device = gpu_nn.distributed.init_process_group()
    with communicator:
        net = gpu_nn.Network([784, 256, 10], device=device)
        gpu_nn.Trainer(net, gpu_nn.Adam(), batch_size=512, communicator=communicator).fit(x, y)

README.md in this folder says what is equal on all ranks, what becomes of them when one fails, and how Ray and Dask
start them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gpu_nn import __version__
from gpu_nn.device import Device, cuda_unavailable_reason, cupy_module, resolve_device
from gpu_nn.distributed import environment, gloo, mpi, nccl
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator, RankFailed, is_raised_on_all_ranks
from gpu_nn.distributed.environment import EXIT_FAILURE, exit_silently, rank_and_world_size
from gpu_nn.errors import DeviceError

__all__ = [
    "EXIT_FAILURE",
    "SINGLE_PROCESS",
    "Communicator",
    "RankFailed",
    "connect",
    "exit_silently",
    "is_raised_on_all_ranks",
    "launched",
    "together",
]

# Seconds for the others to end as well, where one ends by an interrupt or with an exit code.
_UNTIL_ALL_ENDED = 20.0


def init_process_group(device: str = "auto") -> tuple[Communicator, Device]:
    """The ranks that a launcher started, this process among them, and the device of this one.

    They talk over the group of torch.distributed that the program made, if it made one; else by MPI, where that started
    them; else over a group that they make where RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say. On GPUs they add up
    by NCCL.

    device: "auto" gives each rank a GPU of its host, or the CPU where there is none; "cuda", a GPU or an error; "cpu".

    Raises ValueError where no launcher started this process or its environment cannot be, DeviceError where PyTorch,
    MPI, NCCL or a GPU is missing or the ranks do not meet.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r}; expected auto, cpu or cuda: each rank takes the GPU of its number")
    on_gpu = device == "cuda" or (device == "auto" and not cuda_unavailable_reason())
    ranks = _met()
    with _failing(ranks):
        communicator.assert_same_on_all_ranks({"gpu_nn": __version__, "a GPU": on_gpu})
        if not on_gpu:
            return ranks, resolve_device("cpu")
        local_rank = communicator.local_rank()
        with communicator.raise_on_all_ranks():
            own = _own_gpu(local_rank)
            nccl.module()
        return nccl.NcclCommunicator(own, ranks), own


def _met() -> Communicator:
    if gloo.is_initialized():
        return gloo.of_the_program()
    if environment.is_started_by_mpi():
        try:
            return mpi.MpiCommunicator()
        except DeviceError:
            # What is installed may differ between hosts, but not on one.
            if environment.local_rank_of_mpi():
                exit_silently(EXIT_FAILURE)
            raise
    if environment.has_rendezvous_variables():
        return gloo.met(environment.rendezvous_address())
    raise ValueError("no launcher started this process: mpiexec -n 4 gpu-nn train --distributed starts four")


def _own_gpu(local_rank: int) -> Device:
    resolve_device("cuda")  # an error with its hint where there is none
    count = cupy_module().cuda.runtime.getDeviceCount()
    if local_rank >= count:
        raise ValueError(f"{local_rank + 1} or more ranks on a host with {count} GPUs; start one for each")
    return resolve_device(f"cuda:{local_rank}")


@contextmanager
def together(communicator: Communicator) -> Iterator[None]:
    """Ends the sums of all ranks when this one fails: the others would wait for it for ever. Behind it are no sums.

    An exception of this rank alone ends the processes of all ranks where MPI started them; elsewhere it is raised, and
    the others, in a sum or at the next one, raise DeviceError. An exception of all ranks is raised on all or, where MPI
    started them, on rank 0; the others exit with code 1 there.
    """
    with _failing(ranks):
        try:
            yield
        except SystemExit as error:
            if isinstance(error.code, str):  # it would be said after the others have ended this process
                print(error.code, file=sys.stderr, flush=True)
                error.code = EXIT_FAILURE
            communicator.close(_UNTIL_ALL_ENDED if error.code else None)
            raise
        except KeyboardInterrupt:
            communicator.close(_UNTIL_ALL_ENDED)
            raise
        communicator.close()


@contextmanager
def _failing(communicator: Communicator) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # any: the others would wait for this rank, whatever it raised
        communicator.abort(error)
        raise
