"""Training by several processes, one a GPU or, on the CPU, one a socket: gradients are added up over all of them.

The field's own launchers start them:

    mpiexec -n 4 gpu-nn train --distributed --data x.npy --target y.npy     # one host or many, CPU or GPUs
    torchrun --nproc-per-node 4 --no-python gpu-nn train --distributed …    # GPUs

and in a program of one's own, started in the same way,

    ranks, device = gpu_nn.distributed.connect()
    with gpu_nn.distributed.together(ranks):
        net = gpu_nn.Network([784, 256, 10], device=device)
        gpu_nn.Trainer(net, gpu_nn.Adam(), batch_size=512, ranks=ranks).fit(x, y)

Ray and Dask start processes of their own: set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in each before
`connect`, as torchrun would, with the address of the worker that is rank 0.

Every rank is given the same data and the same arguments and takes its part of each batch, so batch size, loss and
metrics mean what they mean in one process. Of a stream every rank reads all rows that are trained on, as its part of a
batch may lie anywhere in a window, but of those that are only evaluated its own share.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gpu_nn.device import Device, cupy_module, resolve_device, why_no_cuda
from gpu_nn.distributed import mpi, nccl
from gpu_nn.errors import TrainingDiverged
from gpu_nn.training.ranks import ALONE, RankFailed, Ranks

__all__ = ["ALONE", "RankFailed", "Ranks", "connect", "together"]

_FAILED = 1
_PASSED_ON = 0.5  # seconds


def connect(device: str = "auto") -> tuple[Ranks, Device]:
    """The ranks that a launcher started, this process among them, and the device of this one.

    device: "auto" gives each rank a GPU of its host, or the CPU where there is none; "cuda", a GPU or an error; "cpu".

    Raises ValueError where no launcher started this process, DeviceError where MPI, NCCL or a GPU is missing or the
    ranks do not meet.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r}; expected auto, cpu or cuda: each rank takes the GPU of its number")
    on_gpu = device == "cuda" or (device == "auto" and not why_no_cuda())
    if mpi.started():
        ranks = mpi.MpiRanks()
        if not on_gpu:
            return ranks, resolve_device("cpu")
        own = _own_gpu(ranks.local_rank())
        return nccl.NcclRanks(own, ranks), own
    if not nccl.started():
        raise ValueError("no launcher started this process: mpiexec -n 4 gpu-nn train --distributed starts four")
    if not on_gpu:
        raise ValueError("on the CPU ranks talk by MPI: start them by mpiexec; pip install 'gpu_nn[mpi]' brings it")
    own = _own_gpu(nccl.local_rank())
    return nccl.NcclRanks(own, None), own


def _own_gpu(local_rank: int) -> Device:
    resolve_device("cuda")  # an error with its cure where there is none
    count = cupy_module().cuda.runtime.getDeviceCount()
    if local_rank >= count:
        raise ValueError(f"{local_rank + 1} or more ranks on a host with {count} GPUs; start one for each")
    return resolve_device(f"cuda:{local_rank}")


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Ends all ranks when this one fails, with a line that says which it was: the others would wait for it for ever.

    What all of them raise is left to rank 0 to tell; the others exit with code 1.
    """
    try:
        yield
    except Exception as error:
        if ranks.size == 1:
            raise
        # The loss is the same everywhere.
        if ranks.failed_alike or isinstance(error, TrainingDiverged):
            if ranks.rank == 0:
                raise
            raise SystemExit(_FAILED) from None
        print(f"rank {ranks.rank} of {ranks.size} failed: {error}; all ranks end", file=sys.stderr, flush=True)
        # A launcher that is told to end all at once may drop what it has not passed on.
        time.sleep(_PASSED_ON)
        ranks.abort(_FAILED)
        raise SystemExit(_FAILED) from None
